"""A head that is said again is taken as aiohttp's parser took it the first time; whatever else comes is parsed."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import Any

import pytest
from aiohttp import StreamReader
from aiohttp.http import HttpRequestParser, RawRequestMessage

from proxy.http.known_head import KnownHead, Payload, learnt
from proxy.http.listener import Listener
from proxy.http.server import Connection
from tests.fuzz.wires import Wire

HEAD = (
    b"POST /v1/chat/completions?a=1 HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
    b"X-Odd:  spaced \t\r\nContent-Length: %b\r\nX-A: 1\r\nX-A: 2\r\n\r\n"
)


def request(body: bytes, head: bytes = HEAD, length: bytes | None = None) -> bytes:
    return head % (str(len(body)).encode() if length is None else length) + body


class Protocol:
    """As much as aiohttp's parser wants of one."""

    def pause_reading(self) -> None: ...

    def resume_reading(self, resume_parser: bool = True) -> None: ...


async def parsed(data: bytes) -> tuple[RawRequestMessage, StreamReader]:
    loop = asyncio.get_running_loop()
    protocol: Any = Protocol()
    parser = HttpRequestParser(protocol, loop, 2**16, auto_decompress=False)
    messages, _, _ = parser.feed_data(data)
    return messages[0]


async def known(data: bytes) -> KnownHead | None:
    message, payload = await parsed(data)
    return learnt(message, payload, data)


def but_for_length(message: RawRequestMessage) -> tuple[Any, ...]:
    """What a message says; of a known head the length is not kept."""
    headers = [(name, value) for name, value in message.headers.items() if name.lower() != "content-length"]
    return message.method, message.path, message.version, message.should_close, message.upgrade, message.chunked, message.url, headers


async def test_a_known_head_with_another_length_is_what_the_parser_makes_of_it():
    dice = random.Random(1)
    names = (b"Content-Length", b"content-length", b"CONTENT-LENGTH")
    for _ in range(200):
        extra = b"".join(
            b"x-%d: %b\r\n" % (n, bytes(dice.choices(b'ab ,;=\xc3\xa9"', k=dice.randrange(9)))) for n in range(dice.randrange(6))
        )
        head = HEAD.replace(b"X-A: 1\r\n", extra).replace(b"Content-Length", dice.choice(names))
        found = await known(request(b"x" * dice.randrange(1, 300), head))
        assert found is not None
        data = request(b"{" * dice.randrange(1, 3000), head)
        message, payload = await parsed(data)
        match = found.match(data)
        assert match is not None
        assert but_for_length(match.message) == but_for_length(message)
        assert "content-length" not in match.message.headers
        assert match.data == payload.read_nowait(-1)


async def test_only_a_whole_request_with_that_very_head_is_known():
    found = await known(request(b"12345"))
    assert found is not None
    whole = request(b"12345678")
    assert found.match(whole) is not None
    assert found.match(b"") is None
    assert found.match(whole[:-1]) is None
    assert found.match(whole + b"P") is None
    assert found.match(whole + whole) is None
    for position in range(len(whole) - 8):
        for byte in (b"\r", b"\n", b"\0", b" ", b"0", b"z"):
            changed = whole[:position] + byte + whole[position + 1 :]
            assert changed == whole or found.match(changed) is None, changed
    for length in (b"08", b"+8", b"-8", b" 8", b"8 ", b"8,8", b"0x8", b"", b"8_", b"\xef\xbc\x98", b"8\r\nContent-Length: 8", b"8" * 400):
        assert found.match(request(b"12345678", length=length)) is None, length


async def test_heads_that_may_mean_something_else_are_not_learnt():
    plain = request(b"{}")
    assert await known(plain) is not None
    for change in (
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"POST", b"PUT"),
        (b"X-A: 1", b"Connection: close"),
        (b"X-A: 1", b"Content-Encoding: gzip"),
        (b"X-A: 1", b"x-long: " + b"a" * 5000),
    ):
        assert await known(plain.replace(*change)) is None, change


async def _handled(segments: list[bytes], *, learns: bool) -> list[Any]:
    """What a connection makes of segments: each request's head and body, and each refusal."""
    seen: list[Any] = []

    async def handle(_connection: Connection, message: RawRequestMessage, payload: Payload) -> bool:
        body = b""
        try:
            while not payload.at_eof():
                body += await payload.readany()
        except Exception as error:  # noqa: BLE001 - whatever it is, both ways must end in it
            body = type(error).__name__.encode()
        seen.append((but_for_length(message), body))
        return not message.should_close

    def refuse(_connection: Connection, status: int) -> None:
        seen.append(status)

    options = {"auto_decompress": False, "header_timeout": 5.0}
    listener = Listener(lambda connection: partial(handle, connection), refuse, most=9, most_per_address=9, options=options)
    connection = listener()
    if not learns:
        connection._learnt = 10**6
    wire = Wire(connection)
    for segment in segments:
        wire.feed(segment)
        for _ in range(4):
            await asyncio.sleep(0)
    seen.append(connection._known is not None)
    wire.lose()
    for _ in range(4):
        await asyncio.sleep(0)
    return seen


@pytest.mark.parametrize("known_before", [True, False])
async def test_a_request_that_has_come_when_its_connection_is_retired_is_answered(known_before: bool):
    """The connection's task has not gone on yet; closing now would lose the request without a word."""
    seen: list[bytes] = []

    async def handle(_connection: Connection, _message: RawRequestMessage, payload: Payload) -> bool:
        seen.append(await payload.readany())
        return True

    options = {"header_timeout": 5.0}
    listener = Listener(lambda connection: partial(handle, connection), lambda *_: None, most=9, most_per_address=9, options=options)
    connection = listener()
    wire = Wire(connection)
    for _ in range(3 if known_before else 1):
        wire.feed(request(b"before"))
        for _ in range(4):
            await asyncio.sleep(0)
    assert (connection._known is not None) is known_before
    wire.feed(request(b"the last"))
    connection.retire()
    assert not wire.is_closing(), "closed before it is answered"
    for _ in range(4):
        await asyncio.sleep(0)
    assert seen[-1] == b"the last"
    wire.lose()
    await asyncio.sleep(0)


async def test_a_connection_sees_the_same_requests_whether_it_learns_or_not():
    dice = random.Random(2)
    learning = 0
    for _ in range(300):
        stream = b""
        edges = []
        for _ in range(dice.randrange(2, 9)):
            kind = dice.random()
            if kind < 0.75:
                stream += request(b"x" * dice.choice((1, 5, 40)))
            elif kind < 0.85:
                stream += b"GET /v1/models HTTP/1.1\r\nHost: h\r\n\r\n"
            elif kind < 0.9:
                stream += b"\r\n" + request(b"yy")
            elif kind < 0.95:
                chunked = HEAD.replace(b"Content-Length: %b", b"Transfer-Encoding: chunked")
                stream += chunked + b"2\r\nab\r\n0\r\n\r\n"
            else:
                stream += request(b"zzz", length=dice.choice((b"2", b"4", b"3x", b"3, 3")))
            edges.append(len(stream))
        if dice.random() < 0.5:  # cut elsewhere, or not at all
            edges = sorted(set(dice.sample(edges, dice.randrange(1, len(edges) + 1)) + [dice.randrange(len(stream)) for _ in range(2)]))
        segments = [stream[one:other] for one, other in zip([0, *edges], [*edges, len(stream)], strict=True)]
        *learnt_way, has_learnt = await _handled(segments, learns=True)
        *parsed_way, _ = await _handled(segments, learns=False)
        assert learnt_way == parsed_way, segments
        learning += has_learnt
    assert learning > 100
