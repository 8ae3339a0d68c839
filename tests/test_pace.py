"""Streams that go on too slowly."""

from __future__ import annotations

import asyncio

import pytest

from proxy.core.call import Timeouts
from proxy.core.errors import PACE
from proxy.pace import Floor, Pace, floor_of, is_under
from proxy.stream import EventStream
from proxy.sweeper import Sweeper
from proxy.watch import Watch
from tests.core.doubles import HandClock, ScriptedResponse, make_call
from tests.test_stream import Shelf, WordDecoder


@pytest.mark.parametrize(("tokens", "seconds", "expected"), [(0, 10.0, True), (19, 10.0, True), (20, 10.0, False), (500, 10.0, False)])
def test_too_few_are_fewer_than_the_rate_brings_in_that_time(tokens: int, seconds: float, expected: bool):
    assert is_under(Floor(2.0, 10.0), tokens, seconds) is expected


@pytest.mark.parametrize(
    ("timeouts", "floor"),
    [(None, None), (Timeouts(), None), (Timeouts(min_tokens_per_second=2.0, window=5.0), Floor(2.0, 5.0))],
)
def test_there_is_a_floor_only_where_one_is_set(timeouts: Timeouts | None, floor: Floor | None):
    assert floor_of(timeouts) == floor


class Paced:
    """A stream held to two contents a second over ten seconds, a clock and a sweeper moved by hand."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.sweeper = Sweeper(self.clock.monotonic)
        self.response = ScriptedResponse()
        self.decoder = WordDecoder()
        self.pace = Pace(Floor(2.0, 10.0), self.decoder, self.response, self.clock, self.sweeper)

    def pass_time(self, seconds: float, contents: int) -> None:
        self.clock.move(seconds)
        self.decoder.tokens += contents
        self.sweeper._look()

    def ended(self) -> str | None:
        return self.response.failed.kind if self.response.failed is not None else None


async def test_a_stream_that_keeps_the_pace_in_every_window_goes_on():
    paced = Paced()
    for _ in range(5):
        paced.pass_time(10.0, 20)
    assert paced.ended() is None
    paced.pace.stop()
    assert not len(paced.sweeper)


async def test_a_stream_that_is_too_slow_says_by_which_limit_it_was_ended():
    paced = Paced()
    paced.pass_time(10.0, 1)
    assert paced.response.failed is not None
    assert paced.response.failed.bound == PACE


async def test_what_was_fast_before_does_not_excuse_a_slow_window():
    paced = Paced()
    paced.pass_time(10.0, 1000)
    paced.pass_time(9.0, 19)
    assert paced.ended() is None, "the window is not over"
    paced.pass_time(1.0, 0)
    assert paced.ended() == "upstream_timeout"
    assert not len(paced.sweeper)


async def test_the_time_in_which_the_client_is_waited_for_does_not_count():
    paced = Paced()
    paced.pass_time(9.0, 0)
    paced.pace.stop()
    paced.pass_time(1000.0, 0)
    paced.pace.resume()
    paced.pass_time(9.0, 20)
    assert paced.ended() is None
    paced.pass_time(1.0, 0)
    assert paced.ended() is None
    paced.pass_time(10.0, 0)
    assert paced.ended() == "upstream_timeout"


class Slow(Shelf):
    """A client that takes an hour over every piece."""

    def __init__(self, paced: Paced) -> None:
        super().__init__(room=1)
        self._paced = paced

    async def drain(self) -> None:
        self._paced.pass_time(3600.0, 0)
        await super().drain()


async def test_a_stream_is_not_held_to_its_pace_while_its_client_is_slow():
    paced = Paced()
    paced.response.script.extend([b"b", b"c", b"."])
    paced.response.flows = True
    watch = Watch(paced.clock, paced.response, Timeouts(idle=None, total=None, first_token=None), paced.clock.now, paced.sweeper)
    stream = EventStream(make_call(), paced.response, paced.decoder, watch, paced.decoder.feed(b"a"))
    stream.hold_to(paced.pace)
    shelf = Slow(paced)
    await asyncio.wait_for(stream.pipe(shelf), 5)
    assert b"".join(shelf.pieces) == b"abc."
    assert (shelf.drained > 1, paced.ended()) == (True, None)
    stream.close(None)
    assert not len(paced.sweeper), "a stream that is over is still judged"
