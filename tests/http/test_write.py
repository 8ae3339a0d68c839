"""Replies onto the client's connection: what is written, in how many writes, and how it ends."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from proxy.core.errors import ClientDisconnected
from proxy.http.server import Connection
from proxy.http.write import Writer, compose_head
from tests.core.doubles import HandClock, in_virtual_time


class Client:
    """A connection that remembers what was written, and reads when it is told to."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.transport: Any = self
        self.lags = False
        self.stall = 30.0
        self.left = 100
        self.ends_by_close = False
        self.is_whole = True
        self.body = None
        self.aborted = False
        self.reset = False
        self.leaves = False
        self.error: Exception | None = None

    def write(self, data: bytes) -> None:
        if self.transport is None:
            raise ClientDisconnected("gone")
        self.writes.append(data)

    send = write

    def abort_body(self) -> None:
        self.aborted, self.reset = True, self.ends_by_close and not self.is_whole

    def leave_soon(self) -> None:
        self.leaves = True

    def unsent(self) -> int:
        return self.left

    async def drained(self) -> None:
        if self.error is not None:
            raise self.error
        while self.lags:
            await asyncio.sleep(1)

    @property
    def text(self) -> bytes:
        return b"".join(self.writes)


def writer(client: Client, *, keep_alive: bool = True, http10: bool = False, head_only: bool = False, stall: float = 30.0) -> Writer:
    made = Writer(cast(Connection, client))
    made.renew(stall, keep_alive=keep_alive)
    made.http10, made.head_only = http10, head_only
    return made


@pytest.mark.parametrize(
    ("status", "headers", "http10", "expected"),
    [
        (200, {}, False, b"HTTP/1.1 200 OK\r\n\r\n"),
        (200, {"a": "b", "c": "d"}, False, b"HTTP/1.1 200 OK\r\na: b\r\nc: d\r\n\r\n"),
        (404, {}, True, b"HTTP/1.0 404 Not Found\r\n\r\n"),
        (499, {}, False, b"HTTP/1.1 499 Client Closed Request\r\n\r\n"),
        (529, {}, False, b"HTTP/1.1 529 Unknown\r\n\r\n"),
        (200, {"a": "é€"}, False, b"HTTP/1.1 200 OK\r\na: \xe9?\r\n\r\n"),
    ],
)
def test_a_head_is_composed(status: int, headers: dict[str, str], http10: bool, expected: bytes):
    assert compose_head(status, headers, http10=http10) == expected


def test_a_whole_answer_is_one_write():
    client = Client()
    made = writer(client)
    made.whole(200, {"a": "b"}, b"hello")
    assert client.writes == [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\na: b\r\n\r\nhello"]
    assert (made.begun, made.bytes_out, made.keep_alive) == (True, 5, True)


def test_a_head_alone_tells_the_length_of_what_it_leaves_out():
    client = Client()
    made = writer(client, head_only=True)
    made.whole(200, {}, b"hello")
    assert client.text == b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"
    assert made.bytes_out == 0


@pytest.mark.parametrize("known", [{}, {"content-length": "4"}], ids=["chunked", "of a known length"])
@pytest.mark.parametrize("http10", [False, True])
def test_of_a_stream_that_was_asked_for_by_head_only_the_head_goes_out(known: dict[str, str], http10: bool):
    """Whatever followed it would be read as the next answer on that connection."""
    client = Client()
    made = writer(client, head_only=True, http10=http10)
    made.start(200, {"content-type": "audio/mpeg", **known}, b"ab")
    made.piece(b"cd")
    made.end()
    head, end, rest = client.text.partition(b"\r\n\r\n")
    assert (end, rest) == (b"\r\n\r\n", b"")
    assert (b"content-length: 4" in head) is bool(known)
    assert b"transfer-encoding" not in head
    assert (made.begun, made.bytes_out, made.keep_alive) == (True, 0, True)


@pytest.mark.parametrize("head_only", [False, True])
def test_nobody_is_to_keep_events_or_to_hold_them_back(head_only: bool):
    client = Client()
    writer(client, head_only=head_only).start(200, {"content-type": "text/event-stream"}, b"data: 1\n\n")
    assert b"\r\ncache-control: no-cache\r\n" in client.text
    assert b"\r\nx-accel-buffering: no\r\n" in client.text


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("head_only", [False, True])
@pytest.mark.parametrize("way", ["whole", "start"])
def test_an_answer_without_a_body_says_nothing_of_one(status: int, head_only: bool, way: str):
    client = Client()
    made = writer(client, head_only=head_only)
    if way == "whole":
        made.whole(status, {"a": "b"}, b"ab")
    else:
        made.start(status, {"a": "b", "content-length": "2"}, b"ab")
        made.piece(b"cd")
        made.end()
    assert client.text in (b"HTTP/1.1 204 No Content\r\na: b\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\na: b\r\n\r\n")
    assert (made.bytes_out, made.keep_alive) == (0, True)


@pytest.mark.parametrize(
    ("keep_alive", "http10", "told"),
    [
        (True, False, b""),
        (False, False, b"connection: close"),
        (True, True, b"connection: keep-alive"),
        (False, True, b"connection: close"),
    ],
)
def test_a_client_is_told_whether_its_connection_goes_on(keep_alive: bool, http10: bool, told: bytes):
    client = Client()
    writer(client, keep_alive=keep_alive, http10=http10).whole(200, {}, b"")
    assert told in client.text
    assert (b"connection" in client.text) is bool(told)


def test_a_connection_can_be_closed_after_its_answer():
    client = Client()
    made = writer(client)
    made.close_after()
    made.whole(413, {}, b"")
    assert b"connection: close" in client.text
    assert not made.keep_alive


def test_a_stream_is_one_write_for_each_piece():
    client = Client()
    made = writer(client)
    made.start(200, {"content-type": "text/event-stream"}, b"data: a\n\n")
    made.piece(b"data: b\n\n")
    made.end()
    head, *rest = client.writes
    assert head.endswith(b"transfer-encoding: chunked\r\n\r\n9\r\ndata: a\n\n\r\n")
    assert rest == [b"9\r\ndata: b\n\n\r\n", b"0\r\n\r\n"]
    assert (made.bytes_out, made.is_event_stream) == (18, True)


@pytest.mark.parametrize("lags", [False, True])
def test_a_piece_says_whether_the_client_keeps_up(lags: bool):
    client = Client()
    made = writer(client)
    made.start(200, {})
    client.lags = lags
    assert made.piece(b"data: b\n\n") is not lags


@pytest.mark.parametrize(("headers", "http10"), [({}, False), ({"content-length": "9"}, False), ({}, True)])
def test_chunks_may_be_written_as_they_are_only_to_a_body_in_chunks(headers: dict[str, str], http10: bool):
    client = Client()
    made = writer(client)
    made.http10 = http10
    made.start(200, dict(headers), b"ab")
    assert (made.outlet is None) == bool(headers or http10)


def test_an_empty_first_piece_is_no_end():
    client = Client()
    made = writer(client)
    made.start(200, {})
    assert not client.text.endswith(b"0\r\n\r\n")
    made.end()
    assert client.text.endswith(b"0\r\n\r\n")


def test_a_body_of_known_length_is_not_chunked():
    client = Client()
    made = writer(client)
    made.start(200, {"content-length": "4"}, b"ab")
    made.piece(b"cd")
    made.end()
    assert client.text == b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabcd"


def test_an_old_client_reads_until_the_connection_closes():
    client = Client()
    made = writer(client, http10=True)
    made.start(200, {}, b"ab")
    made.end()
    assert client.text == b"HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nab"
    assert not made.keep_alive


@pytest.mark.parametrize(
    ("kind", "aborted"), [("text/event-stream; charset=utf-8", False), ("text/event-streamx", True), ("audio/mpeg", True)]
)
def test_a_broken_body_is_never_taken_for_a_whole_one(kind: str, aborted: bool):
    """Events tell it themselves; of all else the missing end must."""
    client = Client()
    made = writer(client)
    made.start(200, {"content-type": kind}, b"ab")
    made.end_broken()
    assert client.aborted is aborted
    assert client.text.endswith(b"0\r\n\r\n") is not aborted
    assert made.keep_alive is client.leaves is not aborted


@pytest.mark.parametrize(
    ("http10", "headers", "is_reset"), [(True, {}, True), (True, {"content-length": "9"}, False), (False, {}, False)], ids=str
)
@pytest.mark.parametrize("way", ["breaks", "is not read"])
def test_a_body_that_only_the_close_ends_is_reset_where_it_is_cut(http10: bool, headers: dict[str, str], is_reset: bool, way: str):
    """Another close would be its end."""

    async def main(_clock: HandClock) -> None:
        client = Client()
        made = writer(client, http10=http10, stall=2.0)
        made.start(200, {"content-type": "audio/mpeg", **headers}, b"ab")
        if way == "breaks":
            made.end_broken()
        else:
            client.lags = True
            with pytest.raises(ClientDisconnected):
                await made.drain()
        assert (client.aborted, client.reset) == (True, is_reset)

    in_virtual_time(main)


def test_writing_to_a_client_that_has_left_says_so():
    client = Client()
    client.transport = None
    with pytest.raises(ClientDisconnected):
        writer(client).whole(200, {}, b"")


def test_a_slow_client_is_waited_for_while_it_reads():
    async def main(clock: HandClock) -> None:
        client = Client()
        made = writer(client)
        client.lags = True
        before = made.is_full
        asyncio.get_running_loop().call_later(10, setattr, client, "lags", False)
        await made.drain()
        assert (before, made.is_full) == (True, False)
        assert clock.now >= 1010

    in_virtual_time(main)


def test_a_client_that_reads_slowly_is_waited_for_as_long_as_it_reads():
    """It takes something in each turn, though by far not all."""

    async def main(clock: HandClock) -> None:
        client = Client()
        client.lags = True
        waiting = asyncio.ensure_future(writer(client, stall=30).drain())
        for _ in range(4):
            await asyncio.sleep(25)
            client.left -= 1
        client.lags = False
        await waiting
        assert not client.aborted
        assert clock.now >= 1100

    in_virtual_time(main)


def test_a_client_that_stops_reading_is_given_up():
    async def main(clock: HandClock) -> None:
        client = Client()
        client.lags = True
        with pytest.raises(ClientDisconnected):
            await writer(client, stall=30).drain()
        assert client.aborted
        assert clock.now == pytest.approx(1030, abs=1)

    in_virtual_time(main)


async def test_a_client_that_leaves_while_it_is_waited_for_says_so():
    client = Client()
    client.error = ConnectionResetError()
    with pytest.raises(ClientDisconnected):
        await writer(client).drain()
