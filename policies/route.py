"""Which targets serve a call, and in what order: a choice among what is configured.

What a client sends chooses among configured targets, never a destination.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from proxy.core.call import ANONYMOUS, Call, Target, Timeouts
from proxy.core.errors import CapacityError, GatewayError, UpstreamError, let_go
from proxy.core.hierarchy import without_fallback
from proxy.core.permissions import may_use
from proxy.core.protocols import Handler, Services
from proxy.core.recent import STOPPED
from proxy.core.repeatable import may_be_done_twice
from proxy.core.reply import Reply
from proxy.routing.binding import ONLY, further, in_order, is_unknown, made, named
from proxy.routing.causes import may_move
from proxy.routing.router import Router

#: Ways are kept, as many as this: clients choose among names of models without end.
_MOST_KEPT = 4096


class Route:
    """Sets the call's target, from its provider's settings its timeouts, and the model's further targets for when that one fails."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._routes = router.table.routes
        # Where a model that has but one target leads. It holds as long as the table and the providers' settings do, as the router itself.
        self._whole: dict[str | None, tuple[Target, Timeouts]] = {}
        self._streamed: dict[str | None, tuple[Target, Timeouts]] = {}

    def __call__(self, call: Call, call_next: Handler) -> Awaitable[Reply]:
        # Without a coroutine of its own: nothing is waited for here.
        limits, resolved = call.principal, call.resolved
        if limits is ANONYMOUS or (limits.models is None and limits.providers is None):
            way = (self._streamed if call.stream else self._whole).get(call.model)
            if way is not None:
                call.target, timeouts = way
                call.timeouts = timeouts if resolved is None or not resolved.timeouts else timeouts.overridden(resolved.timeouts)
                return call_next(call)
        self._choose(call)
        return call_next(call)

    def _choose(self, call: Call) -> None:
        router, limits, model = self._router, call.principal, call.model
        if limits.models is None and limits.providers is None and model not in self._routes:
            target = router.find(model)
            router.direct(call, target)
            self._keep(call, target)
        else:
            first, *others = router.targets(model, call)
            call.others = tuple(others)
            router.direct(call, first)

    def _keep(self, call: Call, target: Target) -> None:
        ways = self._streamed if call.stream else self._whole
        if len(ways) >= _MOST_KEPT:
            ways.clear()
        ways[call.model] = target, self._router.patience(call, target)


class Bound:
    """In place of `Route` for what makes, names or goes on with things that lie at one provider (`BINDING`): it goes where that is.

    Where nobody here knows, the first choice is asked, and when it says that it has no such thing, which leaves nothing behind, others are.
    When it fails nobody else is: what it has, others have not.
    """

    def __init__(self, router: Router, services: Services, most: int, searched: Sequence[str] = ()) -> None:
        """`most`: so many providers are asked for one request. `searched`: those that may have what a path names."""
        self._router = router
        self._whereabouts = services.whereabouts
        self._clock = services.clock
        self._most = most
        self._searched = searched
        self._plain = {name: Target(name, None) for name in router.table.providers}

    async def __call__(self, call: Call, call_next: Handler) -> Reply:
        name = named(call)
        holder = self._whereabouts.find(name) if name is not None else None
        if name is not None and holder is not None and holder not in self._plain:
            self._whereabouts.forget(name)
            holder = None
        targets = self._targets(call, name, holder)
        self._bind(call, name, targets)
        if holder == targets[0].provider:
            call.notes[STOPPED] = {0: "bound"}
        try:
            reply = await call_next(call)
        except UpstreamError as error:
            if name is None or holder is not None or call.content is not None or not is_unknown(error):
                raise
            reply = await self._sought(call, call_next, targets, error)
            self._learn(name, call)
        if 200 <= reply.status < 300:
            # What is gone on with may be ignored, what a path names may not.
            self._learn(made(call, reply) if call.operation == "responses" else name, call)
        return reply

    def _bind(self, call: Call, name: str | None, targets: tuple[Target, ...]) -> None:
        """To the first of the targets, and what goes on with something to that one's provider."""
        first = targets[0]
        if name is not None:
            call.notes[ONLY] = first.provider
        if call.model is None:
            call.others = ()
            if call.resolved is not None and call.resolved.fallback_model is not None:
                call.resolved = without_fallback(call.resolved)
        else:
            call.others = tuple(each for each in targets[1:] if name is None or each.provider == first.provider)
        self._router.direct(call, first)

    def _targets(self, call: Call, name: str | None, holder: str | None) -> tuple[Target, ...]:
        """Who may be asked, whoever has it first. Raises ClientError as `Router.targets` does."""
        table = self._router.table
        if call.model is not None or name is None:
            targets = self._router.targets(call.model, call)
            # Conversations are made without a model: at the default provider.
            return targets if name is None else in_order(targets, (holder, table.default if call.body.get("conversation") else None))
        providers = dict.fromkeys((holder, table.default, *self._whereabouts.holders, *self._searched))
        found = [self._plain[each] for each in providers if each in self._plain and may_use(call.principal, None, each)]
        return tuple(found) or self._router.targets(None, call)

    async def _sought(self, call: Call, call_next: Handler, targets: tuple[Target, ...], unknown: GatewayError) -> Reply:
        """Ask the others one by one. Where nobody has it, the first one's word holds; the failure of one that may have it goes before."""
        told, others = (call.target, unknown, call.usage), call.others
        last: GatewayError = unknown
        for target in further(targets, self._most):
            if call.deadline is not None and self._clock.monotonic() >= call.deadline:
                break
            if is_unknown(last):
                call.notes.setdefault(STOPPED, {})[len(call.attempts)] = "unknown"
            call.others, call.usage = (), None
            call.notes[ONLY] = target.provider
            self._router.direct(call, target)
            try:
                return await call_next(call)
            except (UpstreamError, CapacityError) as error:
                last = error
                let_go(last)
                if told[1] is unknown and may_move(error):
                    told = target, error, call.usage
                if not may_be_done_twice(call, error):
                    break
        call.others, call.usage = others, told[2]
        if told[0] is not None:
            self._router.direct(call, told[0])
        raise told[1]

    def _learn(self, name: str | None, call: Call) -> None:
        if name is not None and call.target is not None:
            self._whereabouts.note(name, call.target.provider)
