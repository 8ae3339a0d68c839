"""A client's connection: whom it waits for, what it takes in, and when it closes."""

from __future__ import annotations

import asyncio
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
