"""Answers while they arrive: watched for stillness, read under a cap, handed on event by event."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from proxy.core.call import Call, Timeouts, Usage
from proxy.core.errors import UPSTREAM_KINDS, CapacityError, ClientDisconnected, StreamError, UpstreamError
from proxy.core.protocols import ShortCut
from proxy.core.reply import Reply
from proxy.stream import EventStream, broken, numbered, read_some, read_whole
from proxy.sweeper import Mortal, Sweeper
from proxy.watch import Watch
from tests.core.doubles import HandClock, ScriptedResponse, make_call

FOREVER = float("inf")


class HandSweeper(Sweeper):
    """Looks only when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Mortal] = []

    def add(self, item: Mortal) -> None:
        self.held.append(item)

    def remove(self, item: Mortal) -> None:
        if item in self.held:
            self.held.remove(item)

    def look(self, now: float) -> None:
        for item in [item for item in self.held if item.due <= now]:
            self.remove(item)
            item.expire()


class Watched:
    """A watch over a scripted answer, with its clock and its sweeper."""

    def __init__(self, *script: bytes | UpstreamError | None, timeouts: Timeouts | None = None) -> None:
        self.clock = HandClock()
        self.sweeper = HandSweeper()
        self.response = ScriptedResponse(script)
        self.timeouts = timeouts or Timeouts(first_token=60, idle=30, total=100)
        self.watch = Watch(self.clock, self.response, self.timeouts, self.clock.now, self.sweeper)


RESET = UpstreamError("reset", "m")


# -- whole bodies --


@pytest.mark.parametrize("script", [(), (b"abc",), (b"a", b"b", b"c")])
async def test_a_body_is_read_whole(script: tuple[bytes, ...]):
    watched = Watched(*script)
    assert await read_whole(watched.response, 3, watched.watch) == b"".join(script)


@pytest.mark.parametrize("script", [(b"abcd",), (b"abc", b"d"), (b"a",) * 9])
async def test_a_body_over_the_limit_is_not_read_to_its_end(script: tuple[bytes, ...]):
    watched = Watched(*script)
    with pytest.raises(UpstreamError) as caught:
        await read_whole(watched.response, 3, watched.watch)
    assert caught.value.kind == "response_too_large"
    assert len(watched.response.script) == max(0, len(script) - 4)


@pytest.mark.parametrize("script", [(b"abcdef",), (b"ab", b"cd", b"ef")])
async def test_a_part_of_a_body_is_no_longer_than_asked(script: tuple[bytes, ...]):
    watched = Watched(*script)
    assert await read_some(watched.response, 3, watched.watch) == b"abc"


async def test_a_body_that_breaks_off_raises_what_broke_it():
    watched = Watched(b"a", RESET)
    with pytest.raises(UpstreamError) as caught:
        await read_whole(watched.response, 9, watched.watch)
    assert caught.value is RESET


@pytest.mark.parametrize(("at", "due"), [(1010, 1060), (1040, 1070), (1090, 1100)])
def test_an_event_before_content_lengthens_the_wait_for_it_and_never_shortens_it(at: float, due: float):
    watched = Watched()
    watched.clock.now = at
    watched.watch.opening()
    assert watched.watch.due == due


async def test_reading_counts_as_progress():
    watched = Watched(b"a", b"b")
    watched.clock.move(50)
    await read_whole(watched.response, 9, watched.watch)
    assert watched.watch.due == 1080


@pytest.mark.parametrize("kind", UPSTREAM_KINDS)
def test_a_failure_after_content_keeps_its_words_and_loses_what_only_a_status_would_tell(kind: str):
    error = broken(UpstreamError(kind, "words", param="p", detail="d"))
    lost = kind in ("reset", "bad_upstream", "invalid_response")
    assert error.kind == ("stream_interrupted" if lost else kind)
    assert (error.message, error.param, error.detail) == ("words", "p", "d")
    assert error.code == error.kind
    assert (error.status, error.retryable) == (UPSTREAM_KINDS[error.kind][0], UPSTREAM_KINDS[error.kind][2])


def test_a_failure_after_content_keeps_the_providers_own_code():
    error = broken(UpstreamError("rejected", "words", status=422, type="t", code="c"))
    assert (error.kind, error.status, error.type, error.code) == ("rejected", 422, "t", "c")


def test_a_failure_after_content_keeps_the_providers_own_event():
    failure = UpstreamError("server_error", "words")
    failure.event = b"event: error\n\n"
    assert broken(failure).event == failure.event
    failure.more = {"failed_generation": '"x"'}
    assert broken(failure).more == failure.more


# -- event streams --


class WordDecoder:
    """Every byte is an event: `x` fails, `.` ends, a blank is silence, `-` has no content, nor has `u`, a usage; all else is content."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.tokens = 0
        self.started = False
        self.done = False
        self.mended = False
        self.failure: UpstreamError | None = None

    def feed(self, data: bytes) -> bytes:
        out = b""
        for byte in data.decode():
            if byte == "x":
                self.failure = UpstreamError("server_error", "m")
                break
            if byte == ".":
                self.done = True
            elif byte == "u":
                self.usage = Usage(123, 45, reported=True)
            elif byte not in " -":
                self.tokens += 1
                self.started = True
            if byte != " ":
                out += byte.encode()
        return out

    def eof(self) -> bytes:
        self.failure = UpstreamError("stream_truncated", "m")
        return b""


class Streamed(Watched):
    """An event stream whose first event is in hand."""

    def __init__(self, *script: bytes | UpstreamError | None, begun: bytes = b"a", operation: str = "chat") -> None:
        super().__init__(*script)
        self.call: Call = make_call(operation, raw=b"12345678")
        self.decoder = WordDecoder()
        in_hand = self.decoder.feed(begun)
        self.call.tokens_seen = self.decoder.tokens
        self.failures: list[UpstreamError] = []
        self.counted: list[str] = []
        self.stream = EventStream(self.call, self.response, self.decoder, self.watch, in_hand)
        self.stream.report(self.failures.append, self.counted.append)

    async def read(self) -> tuple[list[bytes], StreamError | None]:
        seen = []
        try:
            async for events in self.stream:
                seen.append(events)
        except StreamError as error:
            return seen, error
        return seen, None


async def test_events_are_handed_on_as_they_arrive():
    streamed = Streamed(b"b", b" ", b"cd", b".")
    assert await streamed.read() == ([b"a", b"b", b"cd", b"."], None)
    assert streamed.call.tokens_seen == 4
    assert not streamed.failures


async def test_a_stream_that_was_whole_in_hand_asks_for_nothing_further():
    streamed = Streamed(RESET, begun=b"ab.")
    assert await streamed.read() == ([b"ab."], None)
    streamed.stream.close(None)
    assert streamed.response.reused is True


async def test_nothing_is_read_past_the_end():
    streamed = Streamed(b"b.", RESET)
    assert await streamed.read() == ([b"a", b"b."], None)


@pytest.mark.parametrize(
    ("script", "begun", "seen", "kind"),
    [
        ((b"bx",), b"a", [b"a", b"b"], "server_error"),
        ((b"x",), b"a", [b"a"], "server_error"),
        ((), b"abx", [b"ab"], "server_error"),
        ((b"b", RESET), b"a", [b"a", b"b"], "stream_interrupted"),
        ((b"b",), b"a", [b"a", b"b"], "stream_truncated"),
        ((UpstreamError("upstream_timeout", "m"),), b"a", [b"a"], "upstream_timeout"),
    ],
)
async def test_a_stream_that_breaks_hands_on_what_came_and_is_reported_once(
    script: tuple[bytes | UpstreamError, ...], begun: bytes, seen: list[bytes], kind: str
):
    streamed = Streamed(*script, begun=begun)
    found, error = await streamed.read()
    assert found == seen
    assert error is not None
    assert error.kind == kind
    assert streamed.failures == [error]
    assert await streamed.read() == ([], None)
    streamed.stream.close(error)
    assert streamed.response.reused is False


async def test_only_content_counts_as_progress():
    streamed = Streamed(b" ", b"b", b" ", b".")
    streamed.watch.progress()
    streamed.clock.move(10)
    assert await anext(streamed.stream) == b"a"
    assert streamed.watch.due == 1030
    assert await anext(streamed.stream) == b"b"
    assert streamed.watch.due == 1040
    assert streamed.call.last_token == 1010
    streamed.clock.move(10)
    assert await anext(streamed.stream) == b"."
    assert streamed.watch.due == 1040


@pytest.mark.parametrize(
    ("operation", "due"),
    [("chat", 1030), ("completion", 1030), ("responses", 1040), ("images", 1040), ("audio", 1040), ("response_storage", 1040)],
)
@pytest.mark.parametrize("flows", [False, True])
async def test_an_event_without_content_counts_as_progress_where_each_says_what_it_is(operation: str, due: float, flows: bool):
    streamed = Streamed(b"-", b".", operation=operation)
    streamed.response.flows = flows
    streamed.watch.progress()
    streamed.clock.move(10)
    await streamed.stream.pipe(Shelf())
    assert streamed.watch.due == due


async def test_what_is_no_event_is_never_progress():
    streamed = Streamed(b" ", RESET, operation="responses")
    streamed.watch.progress()
    streamed.clock.move(10)
    await streamed.read()
    assert streamed.watch.due == 1030


async def test_closing_settles_the_usage_and_gives_the_connection_back():
    streamed = Streamed(b".")
    streamed.decoder.usage = Usage(1, 2, reported=True)
    await streamed.read()
    streamed.stream.close(None)
    assert streamed.call.usage == Usage(1, 2, reported=True)
    assert (streamed.response.closed, streamed.response.reused) == (1, True)
    assert not streamed.sweeper.held


@pytest.mark.parametrize("rest", [b"u.", b"b"])
async def test_what_is_only_read_again_is_not_charged_again(rest: bytes):
    streamed = Streamed(rest, operation="stored_response")
    streamed.call.method = "GET"
    await streamed.read()
    streamed.stream.close(None)
    assert streamed.call.usage is None


async def test_closing_early_estimates_the_usage_and_closes_the_connection():
    streamed = Streamed(b"b", b"c")
    await anext(streamed.stream)
    await anext(streamed.stream)
    streamed.stream.close(ConnectionError())
    assert streamed.call.usage == Usage(2, 2, reported=False)
    assert streamed.response.reused is False


async def test_a_stream_that_was_mended_is_counted():
    streamed = Streamed(b".")
    streamed.decoder.mended = True
    await streamed.read()
    streamed.stream.close(None)
    assert streamed.counted == ["missing_done"]


async def test_a_stream_may_be_reported_to_nobody():
    watched = Watched(RESET)
    decoder = WordDecoder()
    stream = EventStream(make_call(), watched.response, decoder, watched.watch, b"")
    with pytest.raises(StreamError):
        await anext(stream)
    decoder.mended = True
    stream.close(None)


class Shelf:
    """A sink with room for so many pieces at a time; `gone` makes writing fail."""

    outlet = None
    bytes_out = 0

    def __init__(self, room: int = 1000) -> None:
        self.pieces: list[bytes] = []
        self.drained = 0
        self.gone = False
        self._room = room
        self._left = room

    @property
    def is_full(self) -> bool:
        return self._left <= 0

    def piece(self, data: bytes) -> bool:
        if self.gone:
            raise ClientDisconnected("gone")
        self.pieces.append(data)
        self._left -= 1
        return self._left > 0

    async def drain(self) -> None:
        self.drained += 1
        self._left = self._room


@pytest.mark.parametrize("flows", [False, True])
async def test_piping_writes_what_iterating_yields(flows: bool) -> None:
    script = (b"b", b" ", b"cd", b".")
    shelf, streamed = Shelf(), Streamed(*script)
    streamed.response.flows = flows
    await streamed.stream.pipe(shelf)
    assert shelf.pieces == (await Streamed(*script).read())[0]
    assert streamed.call.tokens_seen == 4
    assert streamed.response.attached == flows


class Paused(ScriptedResponse):
    """Flows until its script says that nothing comes."""

    def attach(self, take: Callable[[bytes], bool], short_cut: ShortCut | None = None) -> Awaitable[None] | None:
        self.take = take
        return self._until_failed()

    async def _until_failed(self) -> None:
        await self._woken.wait()


async def test_contents_that_flow_are_progress_and_their_want_is_not() -> None:
    streamed, shelf = Streamed(), Shelf()
    response = Paused()
    watch = Watch(streamed.clock, response, streamed.timeouts, streamed.clock.now, streamed.sweeper)
    watch.progress()
    stream = EventStream(streamed.call, response, streamed.decoder, watch, b"a")
    flowing = asyncio.create_task(stream.pipe(shelf))
    await asyncio.sleep(0)
    for _ in range(5):
        streamed.clock.move(15)
        assert response.take(b"b")
        streamed.sweeper.look(streamed.clock.now)
        assert response.failed is None
        assert streamed.call.last_token == streamed.clock.now
    streamed.clock.move(15)
    assert response.take(b" ")
    streamed.sweeper.look(streamed.clock.now + 14)
    assert response.failed is None
    streamed.sweeper.look(streamed.clock.now + 15)
    with pytest.raises(StreamError) as caught:
        await flowing
    assert caught.value.kind == "upstream_timeout"


async def test_contents_that_flow_never_move_the_end_of_all() -> None:
    watched = Watched()
    watched.watch.progress()
    for _ in range(9):
        watched.clock.move(10)
        watched.watch.last = watched.clock.now
        watched.sweeper.look(watched.clock.now)
        assert watched.response.failed is None
    watched.sweeper.look(watched.clock.now + 9)
    assert watched.response.failed is None
    watched.sweeper.look(watched.clock.now + 10)
    assert watched.response.failed is not None


async def test_a_full_client_is_waited_for_and_nothing_is_lost() -> None:
    shelf, streamed = Shelf(room=2), Streamed(b"b", b"c", b"d", b"e", b"f", b".")
    streamed.response.flows = True
    await streamed.stream.pipe(shelf)
    assert b"".join(shelf.pieces) == b"abcdef."
    assert shelf.drained >= 3


async def test_what_breaks_a_flowing_stream_is_told_after_what_came_before() -> None:
    shelf, streamed = Shelf(), Streamed(b"b", b"c", RESET)
    streamed.response.flows = True
    with pytest.raises(StreamError):
        await streamed.stream.pipe(shelf)
    assert shelf.pieces == [b"a", b"b", b"c"]
    assert [error.kind for error in streamed.failures] == ["stream_interrupted"]


async def test_a_flowing_stream_that_is_cut_is_told() -> None:
    shelf, streamed = Shelf(), Streamed(b"b", b"c")
    streamed.response.flows = True
    with pytest.raises(StreamError) as caught:
        await streamed.stream.pipe(shelf)
    assert caught.value.kind == "stream_truncated"


async def test_a_client_that_leaves_ends_the_flow() -> None:
    shelf, streamed = Shelf(), Streamed(b"b", b"c", b".")
    streamed.response.flows = True
    begun = await anext(streamed.stream)
    shelf.piece(begun)
    shelf.gone = True
    with pytest.raises(ClientDisconnected):
        await streamed.stream.pipe(shelf)
    assert streamed.response.script, "it went on for nobody"


async def test_a_stream_can_serve_another_call() -> None:
    streamed, other = Streamed(b"b", b"c", b"."), make_call(raw=b"1234")
    await anext(streamed.stream)
    streamed.stream.serve(other)
    assert other.tokens_seen == 1
    await streamed.read()
    streamed.stream.close(None)
    assert (other.tokens_seen, streamed.call.tokens_seen) == (3, 1)
    assert other.last_token is not None and streamed.call.usage is None
    assert other.usage is not None and (other.usage.prompt, other.usage.completion) == (1, 3)


class NumberedDecoder(WordDecoder):
    following = 7


@pytest.mark.parametrize(("decoder", "number"), [(WordDecoder(), 0), (NumberedDecoder(), 7)])
async def test_what_breaks_a_numbered_stream_is_numbered(decoder: WordDecoder, number: int) -> None:
    watched = Watched(RESET)
    stream = EventStream(make_call("responses"), watched.response, decoder, watched.watch, b"")
    with pytest.raises(StreamError) as caught:
        await anext(stream)
    assert caught.value.sequence_number == number


@pytest.mark.parametrize(("decoder", "number"), [(WordDecoder(), 0), (NumberedDecoder(), 7)])
def test_an_end_that_comes_to_many_streams_is_numbered_for_each(decoder: WordDecoder, number: int) -> None:
    watched, error = Watched(), CapacityError("The gateway is shutting down.")
    stream = EventStream(make_call("responses"), watched.response, decoder, watched.watch, b"")
    told = numbered(error, Reply(200, {}, b"", stream))
    assert (told.sequence_number, told.message, error.sequence_number) == (number, error.message, 0)
    assert numbered(error, None) is error
