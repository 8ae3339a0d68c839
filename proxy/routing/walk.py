"""One request's way from target to target: which one comes after a failure, and when it is over. It decides; the caller does the asking."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from proxy.core.call import Call, Target
from proxy.core.errors import CapacityError, ClientError, GatewayError
from proxy.routing.binding import ONLY
from proxy.routing.causes import CAUSES, may_move
from proxy.routing.router import Router
from proxy.routing.table import Rule

#: Why a target is passed over that was not asked.
OUT = CapacityError("The model's first choice has failed of late and is given a rest.")

#: Seconds to wait where every target is out, and one of them is being tried at this moment.
_SOON = 1.0


class Step(NamedTuple):
    """Where to go next. `cause` names the rule that led there; `any` within one model. `model` is None where it is the same as before."""

    target: Target
    cause: str
    model: str | None = None


class Walk:
    """Keeps what was tried. It ends: no target and no model comes twice, and at most `most` targets are asked, all of them at one provider
    where only that may be.

    Targets that are out are passed over. The last resort is one of them, if the first choice was not one already.
    """

    def __init__(self, router: Router, call: Call, most: int, *, was_out: bool) -> None:
        """It begins when the first target has failed, or instead of asking it. `was_out`: whether that one was, before it was asked."""
        first = call.target
        if first is None:
            raise LookupError("a call reached fallback without a target: the route policy is missing")
        self._router = router
        self._call = call
        self._left = most - 1
        self._only = call.notes.get(ONLY) if call.notes else None
        self._waiting = deque(call.others)
        self._tried = {(first.provider, first.model)}
        self._models = {call.model}
        own = call.resolved.fallback_model if call.resolved is not None else None
        self._rules = [Rule("any", own)] if own is not None else []
        self._add_rules(call.model)
        self._all_out = self._resorted = was_out
        self._out = [first] if was_out else []
        self._passed_over: list[tuple[Target, str | None]] = []
        self._model = call.model

    def around(self) -> Step | None:
        """The target to ask instead of the first one, which is out: one that is in, else who is back first (None: the first one)."""
        first = self._call.target
        assert first is not None, "a walk begins at a target"
        self._resorted = False
        self._passed_over.append((first, self._model))
        step = self._onward(OUT) or self._elsewhere(OUT) or self._last_resort(OUT)
        return None if step is None or step.target is first else step

    def after(self, error: GatewayError) -> Step | None:
        """The next target after `error`, or None: that was all, or no other one would help."""
        self._count_asked()
        if self._left <= 0:
            return None
        step = self._onward(error) or self._elsewhere(error) or self._last_resort(error)
        if step is not None:
            self._left -= 1
        return step

    def _count_asked(self) -> None:
        """Targets that were asked beside those that are chosen here have had their turn."""
        asked = {(each.target.provider, each.target.model) for each in self._call.attempts} - self._tried
        self._tried |= asked
        self._left -= len(asked)

    def outcome(self, error: GatewayError) -> GatewayError:
        """What the client is told at the end: the last failure, and where that has a hint, when the first of all is back; or, if every
        target was out, when to come back.
        """
        if not may_move(error):
            return error
        if not self._all_out:
            if error.retry_after is not None:
                error.retry_after = min(error.retry_after, self._soonest())
            return error
        # Asked for now: what was tried as the last resort may have asked for a longer rest since.
        wait = max(min(self._router.rests(each) or 0.0 for each in self._out), _SOON)
        message = "Every provider of this model has failed of late and is given a rest."
        return CapacityError(message, code="all_targets_unavailable", retry_after=wait)

    def _soonest(self) -> float:
        """Seconds until the first of those that are out is back."""
        seen = (*(each.target for each in self._call.attempts), *self._out)
        rests = [rest for each in seen if (rest := self._router.rests(each)) is not None]
        return max(min(rests, default=float("inf")), _SOON)

    def _onward(self, error: GatewayError) -> Step | None:
        """To another target of the same model, which a request that is at fault itself would not please either."""
        target = self._fresh(self._model) if may_move(error) else None
        return None if target is None else Step(target, "any")

    def _elsewhere(self, error: GatewayError) -> Step | None:
        """To the first target of the first model that a rule for this error leads to."""
        for rule in self._rules:
            if rule.to in self._models or not CAUSES[rule.cause](error):
                continue
            self._models.add(rule.to)
            if not self._router.fits(rule.to, self._call):
                continue
            try:
                self._waiting = deque(self._router.targets(rule.to, self._call))
            except ClientError:
                continue  # Not there any more, or not for this key, or not for such a request.
            self._add_rules(rule.to)  # they are gone through next: what is passed over is on the way, too
            target = self._fresh(rule.to)
            if target is not None:
                self._model = rule.to
                return Step(target, rule.cause, rule.to)
        return None

    def _last_resort(self, error: GatewayError) -> Step | None:
        if self._resorted or not self._passed_over or not may_move(error):
            return None
        self._resorted = True
        target, model = min(self._passed_over, key=lambda each: self._router.rests(each[0]) or 0.0)
        return Step(target, "any", model if model != self._model else None)

    def _fresh(self, model: str | None) -> Target | None:
        """The next of the waiting targets, which are of `model`, that was not tried and is not out."""
        while self._waiting:
            target = self._waiting.popleft()
            key = (target.provider, target.model)
            if key in self._tried or self._only not in (None, target.provider):
                continue
            self._tried.add(key)
            if self._router.rests(target) is None:
                self._all_out = False
                return target
            self._out.append(target)
            self._passed_over.append((target, model))
        return None

    def _add_rules(self, model: str | None) -> None:
        route = self._router.table.routes.get(model) if model is not None else None
        if route is not None:
            self._rules += route.fallback


def leads_on(router: Router, most: int, call: Call, error: GatewayError) -> bool:
    """Whether a target that is in, and that was not asked, would be next if the call's target were given up after `error`."""
    step = Walk(router, call, most, was_out=False).after(error)
    return step is not None and router.rests(step.target) is None
