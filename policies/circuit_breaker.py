"""Keeps the board: how many attempts each target has under way, how fast it is, and whether it is out because it keeps failing.

It never refuses an attempt itself. Whoever chooses among targets asks `proxy.core.board.is_available`; an attempt at a target that is
out had no alternative, and its success brings the target back.
"""

from __future__ import annotations

from asyncio import CancelledError
from functools import partial

from pydantic import Field

from proxy.core.board import (
    Ejection,
    TargetState,
    is_available,
    is_in_vain,
    note_content,
    note_failure,
    note_in_vain,
    note_no_content,
    note_success,
    peak_average,
)
from proxy.core.call import Call
from proxy.core.errors import UpstreamError
from proxy.core.protocols import UNSENT, Handler, Services
from proxy.core.reply import Closer, Reply
from proxy.fields import Duration, Section

#: Targets are known, as many as this: clients choose among names of models without end.
_MOST_KEPT = 4096


class CircuitBreakerSettings(Section):
    """What takes a target out, and for how long."""

    failures: int = Field(Ejection().failures, ge=1, description="failures in a row after which a target is taken out")
    ejection: Duration = Field(
        Ejection().seconds, gt=0, description="how long it is out the first time; the n-th time in a row n times that"
    )
    longest: Duration = Field(Ejection().longest, gt=0, description="how long it is out at most")


class CircuitBreaker:
    Settings = CircuitBreakerSettings

    def __init__(self, settings: CircuitBreakerSettings, services: Services) -> None:
        self._ejection = Ejection(settings.failures, settings.ejection, settings.longest)
        self._board = services.board
        self._ends: dict[TargetState, Closer] = {}
        self._now = services.clock.monotonic

    async def __call__(self, call: Call, call_next: Handler) -> Reply:
        target, now = call.target, self._now
        assert target is not None, "an attempt has a target"
        state = self._board.of(target)
        started = now()
        while_out = state.closed_until != 0.0 or state.held_until != 0.0
        probes = while_out and is_available(state, started)
        if probes:
            state.probing = True
        state.in_flight += 1
        try:
            reply = await call_next(call)
        except BaseException as error:
            state.in_flight -= 1
            if probes:
                state.probing = False
            self._without_content(call, state, error, started)
            raise
        begun = now()
        took = begun - started
        state.first_token = peak_average(state.first_token, took, begun - state.measured)
        state.measured = begun
        if state.in_vain:
            note_content(state)
        if while_out:
            note_success(state, begun, while_out=True)
        if reply.stream is None:
            state.in_flight -= 1
            if took > state.longest:  # noqa: PLR1730 - `max` costs ten times as much
                state.longest = took
            if state.failures or state.ejections:
                note_success(state, begun)
        else:
            reply.on_close(self._end_of(state))
        return reply

    def _without_content(self, call: Call, state: TargetState, error: BaseException, started: float) -> None:
        """An attempt has ended before any content: by a failure, or because its client did not wait for longer."""
        ended = self._now()
        waited = ended - started if _is_given_up(call, error) else None
        note_no_content(state, ended, waited)
        if isinstance(error, UpstreamError):
            note_failure(state, error, ended, self._ejection)
        if waited is not None and _was_asked(call, error) and is_in_vain(waited, state.longest, stream=call.stream):
            note_in_vain(state, ended, self._ejection)

    def _end_of(self, state: TargetState) -> Closer:
        """What is called when a stream of a target is over: the same for all of its streams."""
        found = self._ends.get(state)
        if found is None:
            if len(self._ends) >= _MOST_KEPT:
                self._ends.clear()
            found = self._ends[state] = partial(self._ended, state)
        return found

    def _ended(self, state: TargetState, error: BaseException | None) -> None:
        """A stream is over. That it began brings a target back; only that it ended well is a success."""
        state.in_flight -= 1
        if isinstance(error, UpstreamError):
            note_failure(state, error, self._now(), self._ejection)
        elif error is None and (state.failures or state.ejections):
            note_success(state, self._now())


def _is_given_up(call: Call, error: BaseException) -> bool:
    """Whether it was the client that did not wait for longer. A body that is passed on as it arrives takes as long as its client."""
    if call.content is not None:
        return False
    return isinstance(error, CancelledError) or (isinstance(error, UpstreamError) and error.is_impatience)


def _was_asked(call: Call, error: BaseException) -> bool:
    """Whether who gave up waited for the target: not for a place or a connection; and it was not the gateway, which shuts down."""
    return error.reached if isinstance(error, UpstreamError) else UNSENT not in error.args and call.interrupted is None
