"""One connection, driven by hand: what it takes of an answer, and when it has had enough."""

from __future__ import annotations

import pytest

from proxy.core.errors import UpstreamError
from proxy.transport import Connection
from tests.fuzz.wires import Wire

LIMIT = 1000
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def connected() -> tuple[Connection, Wire]:
    """A connection on which an answer's head has come."""
    connection = Connection(lambda _: None, lambda _: None, header_limit=LIMIT, body_limit=LIMIT)
    wire = Wire(connection)
    connection.begin(b"GET / HTTP/1.1\r\n\r\n")
    wire.feed(HEAD)
    return connection, wire


ENDLESS = {
    "a trailer's value": (b"2\r\n{}\r\n0\r\nx: ", b"a"),
    "a trailer's name": (b"2\r\n{}\r\n0\r\n", b"a"),
    "trailers": (b"2\r\n{}\r\n0\r\n", b"x: y\r\n"),
    "a chunk's extension": (b"2\r\n{}\r\n2;", b"a"),
    "the last chunk's extension": (b"2\r\n{}\r\n0;x=", b"a"),
    "an extension before any body": (b"2;", b"a"),
}


@pytest.mark.parametrize("read", [True, False], ids=["read", "unread"])
@pytest.mark.parametrize(("begun", "more"), ENDLESS.values(), ids=ENDLESS.keys())
async def test_what_is_no_body_and_has_no_end_is_cut_off(begun: bytes, more: bytes, read: bool):
    """Also while what came before it lies unread."""
    connection, wire = connected()
    wire.feed(begun)
    if read and b"{}" in begun:
        assert await connection.receive() == b"{}"
    for _ in range(LIMIT // 10):
        wire.feed(more * 20)
    assert wire.is_closing()
    with pytest.raises(UpstreamError) as caught:
        while await connection.receive():
            pass
    assert caught.value.kind == "response_too_large"


async def test_what_is_no_body_and_has_no_end_is_cut_off_also_when_nobody_reads_any_more():
    connection, wire = connected()
    wire.feed(b"2\r\n{}\r\n")
    assert await connection.receive() == b"{}"
    connection.close(reuse=True)
    wire.feed(b"0\r\nx: ")
    for _ in range(LIMIT):
        wire.feed(b"aa")
    assert wire.is_closing()


async def test_a_trailer_under_the_limit_is_taken_however_it_comes():
    for size in (1, 7, LIMIT):
        connection, wire = connected()
        end = b"2\r\n{}\r\n0\r\nx: " + b"a" * (LIMIT - 20) + b"\r\n\r\n"
        for start in range(0, len(end), size):
            wire.feed(end[start : start + size])
        assert connection.ready() == b"{}"
        connection.close(reuse=True)
        assert connection.is_usable


async def test_an_answer_of_many_small_chunks_is_taken_byte_by_byte():
    """What stands between its chunks is more than the limit in all."""
    connection, wire = connected()
    for _ in range(LIMIT):
        for byte in b"1\r\nx\r\n":
            wire.feed(bytes((byte,)))
    for byte in b"0\r\n\r\n":
        wire.feed(bytes((byte,)))
    assert connection.ready() == b"x" * LIMIT


async def test_a_head_does_not_count_for_what_follows_it():
    connection = Connection(lambda _: None, lambda _: None, header_limit=LIMIT, body_limit=LIMIT)
    wire = Wire(connection)
    connection.begin(b"GET / HTTP/1.1\r\n\r\n")
    for byte in HEAD.replace(b"\r\n\r\n", b"\r\nx: " + b"y" * (LIMIT - len(HEAD) - 10) + b"\r\n\r\n"):
        wire.feed(bytes((byte,)))
    for byte in b"2;" + b"a" * (LIMIT - 20) + b"\r\n{}\r\n0\r\n\r\n":
        wire.feed(bytes((byte,)))
    assert connection.ready() == b"{}"
