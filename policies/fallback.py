"""When the first choice fails, or is out, others are asked: the model's further targets, then its chain. Before the commit point only."""

from __future__ import annotations

from collections.abc import Awaitable

from pydantic import Field

from proxy.core.call import Call, Target
from proxy.core.errors import CapacityError, GatewayError, UpstreamError, let_go
from proxy.core.protocols import Handler, Services
from proxy.core.recent import STOPPED
from proxy.core.repeatable import may_be_done_twice
from proxy.core.reply import Reply
from proxy.fields import Section
from proxy.routing.binding import is_bound
from proxy.routing.causes import kind_of
from proxy.routing.router import Router
from proxy.routing.walk import OUT, Step, Walk

#: Why another than the first choice has served: the kind of its failure.
HEADER = "x-comporta-fallback"


class FallbackSettings(Section):
    """How far to go when a target fails."""

    attempts: int = Field(4, description="most targets that are asked for one request", ge=1, le=20)


class Fallback:
    """A handler that raises has sent nothing, so another may still be asked; a reply that was returned is never replaced."""

    Settings = FallbackSettings

    def __init__(self, settings: FallbackSettings, services: Services, router: Router) -> None:
        self._most = settings.attempts
        self._clock = services.clock
        self._emit = services.emit
        self._router = router
        self._chained = frozenset(name for name, route in router.table.routes.items() if route.fallback)
        self._switches = services.metrics.counter(
            "llm_fallbacks_total",
            "Switches from a target that failed, or is out, to another one, by public names of models.",
            "from",
            "to",
            "cause",
        )

    def __call__(self, call: Call, call_next: Handler) -> Awaitable[Reply]:
        resolved = call.resolved
        alone = not call.others and call.model not in self._chained and (resolved is None or resolved.fallback_model is None)
        return call_next(call) if alone else self._walk(call, call_next)

    async def _walk(self, call: Call, call_next: Handler) -> Reply:
        first = call.target
        was_out = first is not None and self._router.rests(first) is not None
        walk = self._around(call) if was_out else None
        told: GatewayError | None = None
        spent = call.usage
        while True:
            try:
                reply = await call_next(call)
            except (UpstreamError, CapacityError) as error:
                if not _may_be_followed(call, error):
                    raise
                walk = walk or Walk(self._router, call, self._most, was_out=was_out)
                step = walk.after(error) if self._has_time(call) else None
                if step is None:
                    final = walk.outcome(error)
                    if told is not None and first is not None and _is_unknown_there(call, final):
                        self._router.direct(call, first)
                        call.stand_in, call.usage, final = None, spent, told
                    if final is error:
                        raise
                    raise final from None
                let_go(error)
                if told is None:
                    told, spent = error, call.usage
                self._switch(call, step, error)
            else:
                if call.fallback is not None:
                    reply.headers[HEADER] = call.fallback
                return reply

    def _around(self, call: Call) -> Walk | None:
        """Past a first choice that is out to the first of its chain that is in; None: there is none, and the first choice is asked."""
        first = call.target
        if first is None or is_bound(call):
            return None
        walk = Walk(self._router, call, self._most, was_out=True)
        step = walk.around()
        if step is None:
            return None
        call.others = (first, *call.others)
        call.notes.setdefault(STOPPED, {})[0] = "out"
        self._switch(call, step, OUT)
        return walk

    def _has_time(self, call: Call) -> bool:
        return call.deadline is None or self._clock.monotonic() < call.deadline

    def _switch(self, call: Call, step: Step, error: GatewayError) -> None:
        before, kind = call.target, kind_of(error)
        if call.fallback is None:
            call.fallback = kind
        if step.model is not None:
            call.stand_in = step.model
            if call.refill is not None:
                call.refill(call, step.model)
        self._router.direct(call, step.target)
        call.usage = None  # it has not been asked yet, and may never be
        self._switches.labels(_public(before), _public(step.target), kind).value += 1
        self._emit(
            {
                "event": "Primary model failed, trying fallback",
                "level": "warning",
                "id": call.id,
                "primary": _named(before),
                "primary_provider": before.provider if before is not None else None,
                "fallback": _named(step.target),
                "fallback_provider": step.target.provider,
                "error": kind,
                "cause": step.cause,
            }
        )


def _may_be_followed(call: Call, error: GatewayError) -> bool:
    """Whether another one may be asked after this failure. A body that is passed on as it arrives is gone once it was sent."""
    if call.content is not None:
        return False
    if may_be_done_twice(call, error):
        return True
    call.notes.setdefault(STOPPED, {})[len(call.attempts)] = "unrepeatable"
    return False


def _is_unknown_there(call: Call, error: GatewayError) -> bool:
    """Whether another than the first choice refuses what it may not know: its word on the request is not the last then."""
    return isinstance(error, UpstreamError) and error.kind == "rejected" and is_bound(call)


def _named(target: Target | None) -> str | None:
    return (target.public or target.model) if target is not None else None


def _public(target: Target | None) -> str:
    """A model's configured name; names that clients made up are no label."""
    return (target.public if target is not None else None) or "other"
