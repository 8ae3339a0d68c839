"""A stream that goes on, but too slowly: judged once a window by the sweeper, so that its pieces cost nothing more."""

from __future__ import annotations

from typing import NamedTuple

from proxy.core.call import Timeouts
from proxy.core.errors import PACE, late
from proxy.core.protocols import Clock, StreamDecoder, UpstreamResponse
from proxy.sweeper import Sweeper

TOO_SLOW = "The provider's answer came too slowly."


class Floor(NamedTuple):
    """At least so many contents (about one token each) a second, over so many seconds."""

    rate: float
    window: float


def floor_of(timeouts: Timeouts | None) -> Floor | None:
    """The slowest that a stream may be; None: there is no such limit."""
    if timeouts is None or not timeouts.min_tokens_per_second:
        return None
    return Floor(timeouts.min_tokens_per_second, timeouts.window)


class Pace:
    """Holds a stream to a floor from its first content on. The time in which the client is waited for does not count against it."""

    __slots__ = ("_clock", "_decoder", "_floor", "_response", "_since", "_sweeper", "_tokens", "due")

    def __init__(self, floor: Floor, decoder: StreamDecoder, response: UpstreamResponse, clock: Clock, sweeper: Sweeper) -> None:
        self._floor = floor
        self._decoder = decoder
        self._response = response
        self._clock = clock
        self._sweeper = sweeper
        self.resume()

    def resume(self) -> None:
        """A window begins."""
        self._since = self._clock.monotonic()
        self._tokens = self._decoder.tokens
        self.due = self._since + self._floor.window
        self._sweeper.add(self)

    def stop(self) -> None:
        """Judge no more, for now or for good."""
        self._sweeper.remove(self)

    def expire(self) -> None:
        """A window is over."""
        if is_under(self._floor, self._decoder.tokens - self._tokens, self._clock.monotonic() - self._since):
            self._response.fail(late(PACE, TOO_SLOW))
        else:
            self.resume()


def is_under(floor: Floor, tokens: int, seconds: float) -> bool:
    """Whether `tokens` in `seconds` are too few."""
    return tokens < floor.rate * seconds
