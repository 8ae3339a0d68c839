"""A client's connection: whom it waits for, what it takes in, and when it closes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.core.call import Call
from proxy.core.errors import ClientError
from proxy.core.reply import Reply
from tests.core.doubles import HandClock, in_virtual_time
from tests.http.test_data_plane import WHOLE, Edge, Line, posted

CHAT = posted(WHOLE)
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
UNKNOWN = b"GET /nope HTTP/1.1\r\nHost: a\r\n\r\n"


class Unread(Line):
    """A connection whose client reads nothing: after 64 KiB it says that it is full."""

    def write(self, data: Any) -> None:
        super().write(data)
        self.unsent += len(data)
        if self.unsent > 65536 and not self.connection.lags:
            self.connection.pause_writing()

    def read(self) -> None:
        self.unsent = 0
        self.connection.resume_writing()


def unread(edge: Edge) -> Unread:
    return Unread(edge.connection())


async def _whole(_call: Call) -> Reply:
    return Reply(200, {"content-type": "application/json"}, b'{"a":1}')


async def _refused(_call: Call) -> Reply:
    raise ClientError("no", status=401)


# -- who does not read --


@pytest.mark.parametrize("asked", [HEALTH, UNKNOWN, CHAT, posted(WHOLE, b"X-Refuse: 1")], ids=["health", "unknown", "chat", "refused"])
def test_who_only_asks_and_never_reads_is_not_answered_for_ever(asked: bytes):
    async def main(clock: HandClock) -> None:
        line = unread(Edge(clock, _refused if b"X-Refuse" in asked else _whole))
        for _ in range(100):
            if line.reading:
                line.feed(asked * 20)
            await asyncio.sleep(0.01)
        assert len(line.written) < 100_000, "the answers fill the memory"
        assert not line.reading, "and its requests do"
        await asyncio.sleep(27)
        assert not line.cut, "it may be slow"
        await asyncio.sleep(3)
        assert line.cut

    in_virtual_time(main)


@pytest.mark.parametrize("asked", [HEALTH, UNKNOWN], ids=["health", "unknown"])
def test_who_asks_for_much_at_once_lets_others_go_in_between(asked: bytes):
    async def main(clock: HandClock) -> None:
        edge = Edge(clock, _whole)
        greedy, other = Line(edge.connection()), Line(edge.connection())
        greedy.feed(asked * 10)
        other.feed(HEALTH)
        while not other.text.count(b"HTTP/1.1"):
            await asyncio.sleep(0)
        assert greedy.text.count(b"HTTP/1.1") < 5
        await asyncio.sleep(0.1)
        assert greedy.text.count(b"HTTP/1.1") == 10

    in_virtual_time(main)


def test_who_reads_late_gets_the_rest():
    async def main(clock: HandClock) -> None:
        line = unread(Edge(clock, _whole))
        for _ in range(60):
            line.feed(HEALTH * 20)
            await asyncio.sleep(0.01)
            if not line.reading:
                line.read()
        await asyncio.sleep(1)
        assert line.text.count(b"HTTP/1.1 200") == 1200
        assert not line.lost

    in_virtual_time(main)


def test_who_does_not_read_is_let_go_when_the_gateway_stops():
    """Once it has read: its connection waits for no further request."""

    async def main(clock: HandClock) -> None:
        edge = Edge(clock, _refused)
        line = unread(edge)
        while not line.connection.lags:
            line.feed(CHAT)
            await asyncio.sleep(0)
        edge.plane.drain()
        empty = edge.listener.drain()
        line.read()
        await asyncio.sleep(1)
        assert empty.is_set()
        assert not line.cut

    in_virtual_time(main)


def test_who_reads_slowly_is_waited_for_when_its_connection_closes():
    """`stall` is for taking nothing, not for taking all."""

    async def main(clock: HandClock) -> None:
        line = unread(Edge(clock, _whole))
        line.feed(posted(WHOLE, b"Connection: close"))
        line.unsent = 10
        await asyncio.sleep(0.1)
        for _ in range(4):
            await asyncio.sleep(25)
            line.unsent -= 1
        assert not line.lost
        await asyncio.sleep(61)
        assert line.cut

    in_virtual_time(main)


@pytest.mark.parametrize("way", ["is read", "is seen while nothing is read"])
@pytest.mark.parametrize("is_whole", [False, True])
def test_a_clients_end_is_not_that_of_a_body_which_only_the_close_ends(is_whole: bool, way: str):
    async def half(_call: Call) -> Reply:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"half"
            if not is_whole:
                await asyncio.sleep(5)

        return Reply(200, {"content-type": "audio/mpeg"}, stream=pieces())

    async def main(clock: HandClock) -> None:
        line = unread(Edge(clock, half))
        line.feed(posted(WHOLE).replace(b"HTTP/1.1", b"HTTP/1.0"))
        line.unsent = 10
        await asyncio.sleep(1)
        assert line.text.endswith(b"half")
        (line.end if way == "is read" else line.connection.end)()
        await asyncio.sleep(0)
        assert line.cut is not is_whole

    in_virtual_time(main)


# -- who is idle --


def test_a_head_that_is_arriving_is_not_cut_for_idleness():
    async def main(clock: HandClock) -> None:
        line = Edge(clock, _whole, keep_alive=1.0).line()
        for _ in range(2):
            line.feed(CHAT[:40])
            await asyncio.sleep(5)
            line.feed(CHAT[40:])
            await asyncio.sleep(0.5)
        assert line.text.count(b"HTTP/1.1 200") == 2
        await asyncio.sleep(1)
        assert line.lost, "an idle one is closed"

    in_virtual_time(main)


def test_a_head_that_never_ends_is_cut_in_its_own_time():
    async def main(clock: HandClock) -> None:
        line = Edge(clock, _whole, keep_alive=1.0).line()
        line.feed(CHAT)
        await asyncio.sleep(0.5)
        line.feed(CHAT[:40])
        await asyncio.sleep(9)
        assert not line.lost
        await asyncio.sleep(2)
        assert line.lost

    in_virtual_time(main)


def test_a_request_that_came_in_the_same_turn_is_answered_though_a_stream_broke_before_it():
    async def main(clock: HandClock) -> None:
        line = Edge(clock, _whole).line()
        line.feed(CHAT)
        await asyncio.sleep(0.1)
        begun = line.connection._request_count
        line.feed(CHAT)
        line.connection._leave(begun)
        await asyncio.sleep(0.1)
        assert line.text.count(b"HTTP/1.1 200") == 2

    in_virtual_time(main)


def test_where_no_connection_stays_each_answer_says_so():
    async def main(clock: HandClock) -> None:
        line = Edge(clock, _whole, keep_alive=0.0).line()
        line.feed(CHAT)
        await asyncio.sleep(0.1)
        assert b"\r\nconnection: close\r\n" in line.text
        assert line.lost

    in_virtual_time(main)


# -- who still sends --


def listed(length: int, *more: bytes) -> bytes:
    """A request that nobody reads a body of."""
    return b"\r\n".join([b"GET /healthz HTTP/1.1", b"Host: a", b"Content-Length: %d" % length, *more, b"", b""])


def test_a_small_body_that_nobody_reads_is_taken_in_and_the_connection_goes_on():
    async def main(clock: HandClock) -> None:
        line = Edge(clock, _whole).line()
        for _ in range(3):
            line.feed(listed(20))
            await asyncio.sleep(0.1)
            for piece in (b"GET / HTTP/1.1\r\n", b"ab\r\n"):
                line.feed(piece)
                await asyncio.sleep(1)
        line.feed(CHAT)
        await asyncio.sleep(0.1)
        assert line.text.count(b"HTTP/1.1 200") == 4
        assert b"connection: close" not in line.text

    in_virtual_time(main)


@pytest.mark.parametrize(
    "head",
    [listed(100_000), listed(20, b"Expect: 100-continue"), b"GET /healthz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"],
    ids=["large", "may never come", "of unknown length"],
)
def test_who_sends_a_body_that_is_not_taken_in_is_told_that_the_connection_closes(head: bytes):
    async def main(clock: HandClock) -> None:
        line = Edge(clock, _whole).line()
        line.feed(head)
        await asyncio.sleep(0.1)
        assert line.text.startswith(b"HTTP/1.1 200")
        assert b"\r\nconnection: close\r\n" in line.text
        await asyncio.sleep(2)
        assert line.lost

    in_virtual_time(main)


def test_a_small_body_that_never_comes_ends_its_connection():
    async def main(clock: HandClock) -> None:
        line = Edge(clock, _whole).line()
        line.feed(listed(20))
        await asyncio.sleep(5)
        assert line.lost

    in_virtual_time(main)


UPLOADS = {
    "announced": (b"Content-Length: 4000", b"x" * 50),
    "chunked": (b"Transfer-Encoding: chunked", b"32\r\n" + b"x" * 50 + b"\r\n"),
}


def upload(kind: str) -> bytes:
    return b"POST /v1/nope HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % UPLOADS[kind][0]


async def send_slowly(line: Line, kind: str, seconds: int) -> None:
    for _ in range(seconds):
        await asyncio.sleep(1)
        line.feed(UPLOADS[kind][1])


@pytest.mark.parametrize("kind", UPLOADS)
def test_a_refused_body_is_read_on_as_long_as_it_comes(kind: str):
    async def main(clock: HandClock) -> None:
        line = Edge(clock, _whole).line()
        line.feed(upload(kind))
        await send_slowly(line, kind, 20)
        assert line.text.startswith(b"HTTP/1.1 404")
        assert not line.lost, "it would be reset, and its answer with it"
        await asyncio.sleep(2.5)
        assert line.lost

    in_virtual_time(main)


def test_a_refused_body_is_not_read_for_ever():
    async def main(clock: HandClock) -> None:
        line = Edge(clock, _whole).line()
        line.feed(upload("chunked"))
        await send_slowly(line, "chunked", 31)
        assert line.lost

    in_virtual_time(main)


def test_only_a_quarter_of_all_connections_read_long_for_nobody():
    async def main(clock: HandClock) -> None:
        edge = Edge(clock, _whole)
        lines = [edge.line() for _ in range(4)]
        async with asyncio.TaskGroup() as sending:
            for line in lines:
                line.feed(upload("chunked"))
                sending.create_task(send_slowly(line, "chunked", 5))
        assert [line.lost for line in lines] == [False, False, True, True]

    in_virtual_time(main)


@pytest.mark.parametrize("begun", [True, False])
def test_a_gateway_that_stops_does_not_wait_for_a_refused_body(begun: bool):
    async def main(clock: HandClock) -> None:
        edge = Edge(clock, _whole)
        line = edge.line()
        if begun:
            line.feed(upload("chunked"))
            await send_slowly(line, "chunked", 3)
        empty = edge.listener.drain()
        line.feed(upload("chunked") if not begun else b"")
        await send_slowly(line, "chunked", 3)
        assert line.text.startswith(b"HTTP/1.1 404") or not begun
        assert empty.is_set()

    in_virtual_time(main)


def test_a_refused_body_that_turns_out_to_be_no_http_leaves_the_answer_readable():
    async def main(clock: HandClock) -> None:
        line = Edge(clock, _whole).line()
        line.feed(upload("chunked"))
        await asyncio.sleep(0.5)
        line.feed(b"ZZ\r\nxx")
        await asyncio.sleep(0.5)
        before = line.lost
        await asyncio.sleep(2)
        assert (before, line.lost) == (False, True)
        assert line.text.count(b"HTTP/1.1") == 1

    in_virtual_time(main)
