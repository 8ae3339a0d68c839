"""Heads that are read without the parser: fewer than the parser takes, and to the same end.

An answer whose first byte comes alone is read by the parser; that one is held against the same answer in one read.
"""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from proxy.core.errors import UpstreamError
from proxy.transport import Connection
from proxy.transport.head import _Lines, read_head
from tests.fuzz.wires import Wire

LIMIT = 2000
BODY = b'{"a": 1}'
LENGTH = b"content-length: 8\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
IN_CHUNKS = b'8\r\n{"a": 1}\r\n0\r\n\r\n'
GZIPPED = gzip.compress(BODY)


def answer(lines: bytes = b"", start: bytes = b"HTTP/1.1 200 OK", framing: bytes = LENGTH, body: bytes = BODY) -> bytes:
    return start + b"\r\n" + lines + framing + b"\r\n" + body


PLAIN = {
    "a length": answer(),
    "chunks": answer(framing=CHUNKED, body=IN_CHUNKS),
    "two chunks and the end": answer(framing=CHUNKED, body=b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"),
    "a large chunk": answer(framing=CHUNKED, body=b"1388\r\n" + b"x" * 5000 + b"\r\n0\r\n\r\n"),
    "chunks of lines' ends": answer(framing=CHUNKED, body=b"4\r\n\r\n\r\n\r\n0\r\n\r\n"),
    "a chunk like an end": answer(framing=CHUNKED, body=b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n"),
    "no body": answer(framing=b"content-length: 0\r\n", body=b""),
    "no body in chunks": answer(framing=CHUNKED, body=b"0\r\n\r\n"),
    "capitals": answer(framing=b"CONTENT-LENGTH: 8\r\n"),
    "a value without a space": answer(b"x:y\r\n"),
    "an empty value": answer(b"x:\r\n"),
    "an empty value and a space": answer(b"x: \r\n"),
    "a value with colons": answer(b"x: y: z:\r\n"),
    "kept alive": answer(b"connection: keep-alive\r\n"),
    "Kept Alive": answer(b"Connection: Keep-Alive\r\nKeep-Alive: timeout=5\r\n"),
    "cookies": answer(b"Set-Cookie: a\r\nset-cookie: b=c, d\r\n"),
    "repeated": answer(b"x: a\r\nSet-Cookie: a\r\nX: b\r\nset-cookie: b\r\n"),
    "many": answer(b"".join(b"x-%d: %d\r\n" % (at, at) for at in range(100))),
    "no reason": answer(start=b"HTTP/1.1 200"),
    "an empty reason": answer(start=b"HTTP/1.1 200 "),
    "an error": answer(start=b"HTTP/1.1 503 Service Unavailable"),
    "a trailer announced": answer(b"trailer: x\r\n", framing=CHUNKED, body=IN_CHUNKS),
    "odd tokens": answer(b"!#$%&'*+-.^_`|~: y\r\n"),
}

ODD = {
    "a bare line feed": answer(b"x: y\n"),
    "a bare return": answer(b"x: y\rz: a\r\n"),
    "a line feed in a value": answer(b"x: y\nz: a\r\n"),
    "a folded line": answer(b"x: y\r\n z\r\n"),
    "a space before the colon": answer(b"x : y\r\n"),
    "a space before the length's colon": answer(framing=b"content-length : 8\r\n"),
    "no colon": answer(b"x\r\n"),
    "no name": answer(b": y\r\n"),
    "a space in a name": answer(b"x y: z\r\n"),
    "a name that is no token": answer(b"x(y): z\r\n"),
    "spaces around a value": answer(b"x:   y  \r\n"),
    "a tab": answer(b"x:\ty\r\n"),
    "a nul": answer(b"x: y\x00z\r\n"),
    "a bell": answer(b"x: \x07\r\n"),
    "a delete": answer(b"x: \x7f\r\n"),
    "a nul in a name": answer(b"x\x00: y\r\n"),
    "not ASCII in a name": answer(b"\xe9: y\r\n"),
    "a space that does not break": answer(b"x: \xa0\r\n"),
    "two lengths": answer(LENGTH),
    "two other lengths": answer(b"content-length: 9\r\n"),
    "a signed length": answer(framing=b"content-length: +8\r\n"),
    "a negative length": answer(framing=b"content-length: -8\r\n"),
    "a length with a space": answer(framing=b"content-length: 8 \r\n"),
    "a length in hexadecimal": answer(framing=b"content-length: 0x8\r\n"),
    "a list of lengths": answer(framing=b"content-length: 8, 8\r\n"),
    "an empty length": answer(framing=b"content-length: \r\n"),
    "a length with a nought": answer(framing=b"content-length: 08\r\n"),
    "a length in other digits": answer(framing=b"content-length: \xb2\r\n"),
    "a length beyond all": answer(framing=b"content-length: 99999999999999999999\r\n"),
    "a length and chunks": answer(CHUNKED),
    "chunks twice": answer(CHUNKED, framing=CHUNKED, body=IN_CHUNKS),
    "chunks and gzip": answer(framing=b"transfer-encoding: gzip, chunked\r\n", body=IN_CHUNKS),
    "Chunks": answer(framing=b"Transfer-Encoding: Chunked\r\n", body=IN_CHUNKS),
    "gzip": answer(framing=b"transfer-encoding: gzip\r\n"),
    "until it closes": answer(framing=b""),
    "closing": answer(b"connection: close\r\n"),
    "Closing": answer(b"Connection: CLOSE\r\n"),
    "kept alive and closing": answer(b"connection: keep-alive, close\r\n"),
    "kept alive, then closing": answer(b"connection: keep-alive\r\nconnection: close\r\n"),
    "a proxy's closing": answer(b"proxy-connection: close\r\n"),
    "an upgrade": answer(b"connection: upgrade\r\nupgrade: h2c\r\n"),
    "an upgrade that is only told": answer(b"upgrade: h2c\r\n"),
    "HTTP/1.0": answer(start=b"HTTP/1.0 200 OK"),
    "HTTP/1.0, kept alive": answer(b"connection: keep-alive\r\n", start=b"HTTP/1.0 200 OK"),
    "HTTP/1.2": answer(start=b"HTTP/1.2 200 OK"),
    "another protocol": answer(start=b"ICY 200 OK"),
    "two spaces": answer(start=b"HTTP/1.1  200 OK"),
    "a status of two digits": answer(start=b"HTTP/1.1 20 OK"),
    "a status of four digits": answer(start=b"HTTP/1.1 2000 OK"),
    "a status under 100": answer(start=b"HTTP/1.1 099 OK"),
    "no content": answer(start=b"HTTP/1.1 204 No Content"),
    "not modified": answer(start=b"HTTP/1.1 304 Not Modified"),
    "a reason with a tab": answer(start=b"HTTP/1.1 200 O\tK"),
    "a reason with a nul": answer(start=b"HTTP/1.1 200 O\x00K"),
    "a body that is coded": answer(b"content-encoding: gzip\r\n", framing=b"content-length: %d\r\n" % len(GZIPPED), body=GZIPPED),
    "a body whose code is damaged": answer(b"Content-Encoding: deflate\r\n"),
    "a body that is coded in chunks": answer(
        b"content-encoding: gzip\r\n", framing=CHUNKED, body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(GZIPPED), GZIPPED)
    ),
    "a code that is none": answer(b"content-encoding: identity\r\n"),
    "a code that is not known": answer(b"content-encoding: br\r\n"),
    "switching": answer(b"connection: upgrade\r\nupgrade: x\r\n", start=b"HTTP/1.1 101 Switching"),
    "an informational one before it": b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + answer(),
    "an empty line before it": b"\r\n" + answer(),
    "no headers": b"HTTP/1.1 200 OK\r\n\r\n",
    "one header that is too large": answer(b"x: " + b"y" * LIMIT + b"\r\n"),
    "headers that are too large": answer(b"x: y\r\n" * LIMIT),
}

#: Plain heads with something else after them.
FOLLOWED = {
    "two answers": answer() * 2,
    "a byte too much": answer() + b"x",
    "an end of a line too much": answer() + b"\r\n",
    "a byte too few": answer()[:-1],
    "the head alone": answer(body=b""),
    "a chunk alone": answer(framing=CHUNKED, body=b"2\r\n{}\r\n"),
    "half a chunk": answer(framing=CHUNKED, body=b"2\r\n{"),
    "half a chunk's line": answer(framing=CHUNKED, body=b"2\r"),
    "a chunk too short": answer(framing=CHUNKED, body=b"3\r\n{}\r\n0\r\n\r\n"),
    "a chunk too long": answer(framing=CHUNKED, body=b"1\r\n{}\r\n0\r\n\r\n"),
    "a signed chunk": answer(framing=CHUNKED, body=b"+2\r\n{}\r\n0\r\n\r\n"),
    "a chunk with an underscore": answer(framing=CHUNKED, body=b"1_0_0_0\r\n" + b"x" * 4096 + b"\r\n0\r\n\r\n"),
    "a chunk with a nought": answer(framing=CHUNKED, body=b"02\r\n{}\r\n0\r\n\r\n"),
    "a chunk in capitals": answer(framing=CHUNKED, body=b"A\r\n0123456789\r\n0\r\n\r\n"),
    "an extension": answer(framing=CHUNKED, body=b"2;x=y\r\n{}\r\n0\r\n\r\n"),
    "a chunk that ends in line feeds": answer(framing=CHUNKED, body=b"2\r\n{}\n\n0\r\n\r\n"),
    "two ends": answer(framing=CHUNKED, body=b"2\r\n{}\r\n0\r\n\r\n0\r\n\r\n"),
    "an end in the middle": answer(framing=CHUNKED, body=b"2\r\n{}\r\n0\r\n\r\n2\r\n{}\r\n"),
    "half an end": answer(framing=CHUNKED, body=b"2\r\n{}\r\n0\r\n"),
    "a trailer": answer(framing=CHUNKED, body=b"2\r\n{}\r\n0\r\nx: y\r\n\r\n"),
    "a trailer that closes": answer(framing=CHUNKED, body=b"2\r\n{}\r\n0\r\nconnection: close\r\n\r\n"),
    "a trailer like a chunk": answer(framing=CHUNKED, body=b"0\r\n2\r\n{}\r\n\r\n"),
    "an answer after chunks": answer(framing=CHUNKED, body=IN_CHUNKS) + answer(),
}


async def outcome(*reads: bytes) -> tuple[Any, ...]:
    """What comes of an answer: what is known at once, whether its connection may serve again, and how a close then ends it."""
    released: list[Connection] = []
    connection = Connection(released.append, lambda _: None, header_limit=LIMIT, body_limit=LIMIT)
    wire = Wire(connection)
    connection.begin(b"GET / HTTP/1.1\r\n\r\n")
    for data in reads:
        wire.feed(data)
    at_once = connection.ready()
    wire_closed = wire.is_closing()
    wire.lose()
    try:
        connection.check()
        body = at_once or b""
        while data := await connection.receive():
            body += data
    except UpstreamError as error:
        return error.kind, at_once, wire_closed
    return connection.status, list(connection.headers.items()), body, at_once, connection.keep_alive, wire_closed


ALL = PLAIN | ODD | FOLLOWED


@pytest.mark.parametrize("data", ALL.values(), ids=ALL.keys())
async def test_an_answer_is_the_same_with_the_parser_and_without(data: bytes) -> None:
    """Twice, since what was read once is remembered; and with its body in a read of its own."""
    parsed = await outcome(data[:1], data[1:])
    assert await outcome(data) == parsed
    assert await outcome(data) == parsed
    head, end, body = data.partition(b"\r\n\r\n")
    assert await outcome(head + end, body) == await outcome(data[:1], head[1:] + end, body)


@pytest.mark.parametrize("data", (PLAIN | FOLLOWED).values(), ids=(PLAIN | FOLLOWED).keys())
def test_a_plain_head_needs_no_parser(data: bytes) -> None:
    assert read_head(data.partition(b"\r\n\r\n")[0]) is not None


@pytest.mark.parametrize("data", ODD.values(), ids=ODD.keys())
def test_what_is_not_plain_is_left_to_the_parser(data: bytes) -> None:
    head = data.partition(b"\r\n\r\n")[0]
    assert len(head) > LIMIT or read_head(head) is None
    assert len(head) > LIMIT or read_head(head) is None, "a line that was odd once stays so"


@pytest.mark.parametrize("byte", range(256))
async def test_whatever_byte_stands_in_a_name_or_a_value_comes_to_the_same(byte: int) -> None:
    for line in (b"x%by: z\r\n", b"%bx: y\r\n", b"x%b: y\r\n", b"x: y%bz\r\n", b"x: %by\r\n", b"x: y%b\r\n", b"x:%b\r\n"):
        data = answer(line % bytes((byte,)))
        assert await outcome(data) == await outcome(data[:1], data[1:])


async def test_the_next_answer_has_headers_of_its_own() -> None:
    released: list[Connection] = []
    connection = Connection(released.append, lambda _: None, header_limit=LIMIT, body_limit=LIMIT)
    wire = Wire(connection)
    for lines in (b"x: 1\r\n", b"x: 1\r\n", b"", b"x:\t1\r\n", b"x: 1\r\n"):
        connection.begin(b"GET / HTTP/1.1\r\n\r\n")
        wire.feed(answer(lines))
        assert connection.ready() == BODY
        assert connection.headers == ({"x": "1"} if lines else {}) | {"content-length": "8"}
        connection.headers["x"] = connection.headers["y"] = "changed"
        connection.close(reuse=True)
    assert len(released) == 5
    connection.abort()


async def test_how_an_answer_is_coded_says_nothing_of_the_next_one() -> None:
    connection = Connection(lambda _: None, lambda _: None, header_limit=LIMIT, body_limit=LIMIT)
    wire = Wire(connection)
    coded = ODD["a body that is coded"]
    for data in (coded, answer(), coded, ODD["a code that is none"], coded, answer(framing=CHUNKED, body=IN_CHUNKS)):
        connection.begin(b"GET / HTTP/1.1\r\n\r\n")
        wire.feed(data)
        connection.check()
        body = b""
        while piece := await connection.receive():
            body += piece
        assert body == BODY
        connection.close(reuse=True)
    assert not connection.closed
    connection.abort()


async def test_bytes_after_an_answer_that_was_read_without_the_parser_close_the_connection() -> None:
    for body in (answer(), answer(framing=CHUNKED, body=IN_CHUNKS)):
        connection = Connection(lambda _: None, lambda _: None, header_limit=LIMIT, body_limit=LIMIT)
        wire = Wire(connection)
        connection.begin(b"GET / HTTP/1.1\r\n\r\n")
        wire.feed(body)
        wire.feed(b"H")
        assert connection.ready() == BODY
        connection.close(reuse=True)
        assert wire.is_closing()


async def test_what_ends_while_nobody_reads_any_more_is_the_end_without_the_parser_too() -> None:
    for reads in ((answer(body=b""), BODY), (answer(framing=CHUNKED, body=b"2\r\n{}\r\n"), b"2\r\n{}\r\n2\r\n{}\r\n", b"0\r\n\r\n")):
        released: list[Connection] = []
        connection = Connection(released.append, lambda _: None, header_limit=LIMIT, body_limit=LIMIT)
        wire = Wire(connection)
        connection.begin(b"GET / HTTP/1.1\r\n\r\n")
        wire.feed(reads[0])
        connection.close(reuse=True)
        assert connection.draining
        for data in reads[1:]:
            wire.feed(data)
        assert connection.is_usable and len(released) == 2
        connection.abort()


def test_what_is_remembered_of_lines_has_a_bound() -> None:
    lines = _Lines()
    for at in range(5000):
        assert lines[f"x-{at}: {'y' * (at % 500)}"][0] in (f"x-{at}", "")
    assert len(lines) <= 1024
    assert all(len(line) <= 256 for line in lines)
