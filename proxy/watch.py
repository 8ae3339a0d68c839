"""How long an answer may stand still, and go on, while it arrives."""

from __future__ import annotations

from proxy.core.call import Timeouts
from proxy.core.errors import IDLE, START, TOTAL, late
from proxy.core.protocols import Clock, UpstreamResponse
from proxy.sweeper import Sweeper

_FOREVER = float("inf")

#: How much of the time of an attempt that has reached its end may have been its client's, who read slowly.
_MOST_AWAITED = 0.1


class Watch:
    """Fails an answer that stands still, or that goes on for too long; the sweeper looks after it, so progress costs a clock reading.

    From the start it waits for content as long as `first_token`; once that has begun, for each next piece as long as `idle`. The whole ends
    with `total`, which, where nobody has set it, is lifted once content flows.
    """

    __slots__ = (
        "_awaited",
        "_end",
        "_flows",
        "_hush",
        "_idle",
        "_limits",
        "_listens",
        "_paused",
        "_response",
        "_start",
        "_started",
        "_sweeper",
        "due",
        "last",
        "monotonic",
    )

    def __init__(self, clock: Clock, response: UpstreamResponse, timeouts: Timeouts, started: float, sweeper: Sweeper) -> None:
        self.monotonic = clock.monotonic
        self._response = response
        self._sweeper = sweeper
        self._limits = timeouts
        self._started = started
        self._idle = _FOREVER if timeouts.idle is None else timeouts.idle
        self._end = end = _FOREVER if timeouts.total is None else started + timeouts.total
        due = _FOREVER if timeouts.first_token is None else started + timeouts.first_token
        self.due = self._start = due if due < end else end
        #: When content came. Where that was not worth a call, `due` is moved only once it has passed.
        self.last = -_FOREVER
        self._flows = self._listens = False
        self._hush = _FOREVER
        self._awaited = self._paused = 0.0
        sweeper.add(self)

    def progress(self) -> float:
        """Say that content has come; returns the time of it."""
        self.last = now = self.monotonic()
        due = now + self._idle
        self.due = due if due < self._end else self._end
        if self._paused:
            self._awaited += now - self._paused
            self._paused = 0.0
        return now

    def opening(self) -> None:
        """Say that an event has come, though not content: the next one may take as long as one in its midst."""
        due = self.monotonic() + self._idle
        if due > self.due:
            self.due = due if due < self._end else self._end

    def listen(self) -> None:
        """Say that the client waits so long for a byte, of whatever: where nobody has set a limit, what is `heard` counts, too."""
        self._listens = True

    def heard(self) -> None:
        """Say that bytes have come that bring no content. Without us they would keep the client waiting, as our pings do.

        So they end a silence that only the client bounds, but not for longer than an attempt may take that brings nothing else.
        """
        limits = self._limits
        if not self._listens or (IDLE if self._flows else START) not in limits.defaults:
            return
        silence = self._idle if self._flows or limits.first_token is None else limits.first_token
        self._hush = _FOREVER if limits.total is None else max(self._started, self.last) + limits.total
        due = min(self.monotonic() + silence, self._hush, self._end)
        if due > self.due:
            self.due = due
            if not self._flows:
                self._start = due

    def flow(self) -> None:
        """Say that content flows from now on. Where nobody has set how long the whole may take, silences bound it, and its deadline."""
        limits = self._limits
        self._flows = True
        if "total" in limits.defaults:
            self._end = _FOREVER if limits.left is None else self._started + limits.left

    def pause(self) -> None:
        """Say that it is the client who is waited for; until `progress`, only the whole has an end."""
        self._paused = self.monotonic()
        self.due = self._end

    def stop(self) -> None:
        self._sweeper.remove(self)

    def expire(self) -> None:
        due = self.last + self._idle
        if due > self.due and self._end > self.due:
            self.due = due if due < self._end else self._end
            self._sweeper.add(self)
        else:
            is_end = self.due >= self._end or self.due == self._hush
            error = late(TOTAL if is_end else START if self.due == self._start else IDLE)
            if is_end and self._is_the_clients():
                error.acquit()
            self._response.fail(error)

    def _is_the_clients(self) -> bool:
        """Whether much of the time went into waiting for the client to read: then its end says nothing of the provider."""
        now = self.monotonic()
        awaited = self._awaited + (now - self._paused if self._paused else 0.0)
        return awaited > _MOST_AWAITED * (now - self._started)
