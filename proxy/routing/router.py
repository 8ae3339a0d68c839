"""From a model's name to targets in the order in which they are to be tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from random import random as drawn
from typing import Any, Protocol

from proxy.core.board import Board, is_available, seconds_out
from proxy.core.call import ANONYMOUS, Call, Principal, Target, Timeouts
from proxy.core.errors import ClientError
from proxy.core.estimate import estimated_tokens
from proxy.core.permissions import may_use
from proxy.core.protocols import Clock
from proxy.routing.conditions import holds, max_tokens, prompt_tokens
from proxy.routing.strategies import STRATEGIES, Candidate, Moment, Seen, available_first
from proxy.routing.table import ModelRoute, Table

#: What a client may send to stay with one target.
SESSION = "x-comporta-session"

#: Tokens of an answer, where the request does not bound them.
_TYPICAL_ANSWER = 500

#: Targets of names that no configuration has are kept, as many as this: clients choose among names without end.
_MOST_FOUND = 4096


_NO_WINDOWS: Mapping[str, int] = {}


class Patience(Protocol):
    """What a provider's settings say of time."""

    def timeouts(self, call: Call) -> Timeouts: ...


class Router:
    """The table, with what is known of each target at this moment. It only reads."""

    def __init__(
        self,
        table: Table,
        providers: Mapping[str, Patience],
        board: Board,
        clock: Clock,
        *,
        windows: Mapping[str, int] = _NO_WINDOWS,
        random: Callable[[], float] = drawn,
    ) -> None:
        """`windows` are the most tokens that models take, by their names, where that is known."""
        self.table = table
        self._windows = windows
        self._providers = providers
        self._board = board
        self._clock = clock
        self._random = random
        self._found: dict[str | None, Target] = {}

    def find(self, model: str | None, principal: Principal = ANONYMOUS) -> Target:
        """The (first) target of a model's name: the same object each time.

        Raises ClientError (404 `model_not_found`), which names nothing that the principal may not have.
        """
        target = self._found.get(model)
        if target is None:
            if len(self._found) >= _MOST_FOUND:
                self._found.clear()
            target = self._found[model] = self.table.find(model, partial(self.may_have, principal))
        return target

    def direct(self, call: Call, target: Target) -> None:
        """Set the call's target, and its timeouts: those of that provider's settings, but for what the hierarchy says of them."""
        call.target = target
        timeouts = self.patience(call, target)
        resolved = call.resolved
        call.timeouts = timeouts.overridden(resolved.timeouts) if resolved is not None and resolved.timeouts else timeouts

    def patience(self, call: Call, target: Target) -> Timeouts:
        """What the settings of a target's provider say of time, which is the same for all streams, and for all else."""
        return self._providers[target.provider].timeouts(call)

    def rests(self, target: Target) -> float | None:
        """Seconds until a target that is out may be tried again; None: it is in."""
        state, now = self._board.of(target), self._clock.monotonic()
        return None if is_available(state, now) else seconds_out(state, now)

    def fits(self, model: str, call: Call) -> bool:
        """Whether the prompt is no longer than `model` takes, as far as is known."""
        window = self._windows.get(model)
        return window is None or estimated_tokens(call.body) <= window

    def may_have(self, principal: Principal, model: str) -> bool:
        """Whether the principal may have `model` from one of those who serve it."""
        try:
            return bool(self.candidates(model, principal))
        except ClientError:
            return False

    def candidates(self, model: str | None, principal: Principal) -> tuple[Candidate, ...]:
        """Who may serve `model` to the principal, at one time or another.

        Raises ClientError: 404 `model_not_found`, 403 `model_not_allowed`.
        """
        route = self.table.routes.get(model) if model is not None else None
        found = route.candidates if route is not None else (Candidate(self.find(model, principal)),)
        if principal.models is None and principal.providers is None:
            return found
        usable = tuple(each for each in found if may_use(principal, model, each.target.provider))
        if not usable:
            raise ClientError("The key may not use this model.", param="model", code="model_not_allowed", status=403)
        return usable

    def targets(self, model: str | None, call: Call) -> tuple[Target, ...]:
        """Who may serve `model` for this call, the first choice first.

        Raises ClientError as `candidates` does, and 400 `no_target` where no target's condition holds.
        """
        candidates = self.candidates(model, call.principal)
        route = self.table.routes.get(model) if model is not None else None
        if route is None or (len(route.candidates) == 1 and not route.candidates[0].when):
            return (candidates[0].target,)
        return self._ordered(route, candidates, call)

    def _ordered(self, route: ModelRoute, candidates: tuple[Candidate, ...], call: Call) -> tuple[Target, ...]:
        """Targets whose condition holds go before those that have none: they were meant for such requests."""
        known: dict[str, Any] = {}
        meant = [each for each in candidates if each.when and holds(each.when, call, known)]
        open_to_all = [each for each in candidates if not each.when]
        if not meant and not open_to_all:
            raise ClientError("No target of this model serves such a request.", param="model", code="no_target")
        moment = self._moment(route, call)
        strategy = STRATEGIES[route.strategy]
        found = [*strategy(self._seen(meant), moment), *strategy(self._seen(open_to_all), moment)]
        return tuple(each.candidate.target for each in available_first(found, moment.now))

    def _seen(self, candidates: list[Candidate]) -> list[Seen]:
        return [Seen(each, self._board.of(each.target)) for each in candidates]

    def _moment(self, route: ModelRoute, call: Call) -> Moment:
        now = self._clock.monotonic()
        if route.strategy == "sticky":
            return Moment(now, self._random, session_of(call))
        if route.strategy == "cheapest":
            most = max_tokens(call)
            answer = most if isinstance(most, int) and most > 0 else 0 if call.operation == "embedding" else _TYPICAL_ANSWER
            return Moment(now, self._random, None, prompt_tokens(call), answer, route.latency)
        return Moment(now, self._random)


def session_of(call: Call) -> str | None:
    """What ties requests together: the session that the client names, its prompt cache's key, its user, else its key; None: nothing."""
    for value in (call.headers.get(SESSION), call.body.get("prompt_cache_key"), call.end_user, call.body.get("user"), call.principal.key):
        if isinstance(value, str) and value:
            return value
    return None
