"""Which targets serve a call, and in what order: a choice among what is configured.

What a client sends chooses among configured targets, never a destination.
"""

from __future__ import annotations

from collections.abc import Awaitable

from proxy.core.call import ANONYMOUS, Call, Target, Timeouts
from proxy.core.protocols import Handler
from proxy.core.reply import Reply
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
