"""What came whole before bytes that are no HTTP is answered, however the network cut it."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

import pytest
from aiohttp import StreamReader
from aiohttp.http import RawRequestMessage

from proxy.http.known_head import Payload
from proxy.http.listener import Listener
from proxy.http.salvage import requests_before
from proxy.http.server import Connection
from tests.fuzz.wires import Wire

LIMITS = {"max_line_size": 8190, "max_headers": 128, "max_field_size": 8190, "max_msg_queue_size": 32}
GET = b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
LARGE = b"POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000
CHUNKED = b"POST /v1/files HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
BROKEN = CHUNKED.replace(b"5\r\n", b"zz\r\n")
WRONG = {
    "no HTTP": b"BLAH\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01",
    "two lengths": b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "a line that is too long": b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n",
    "bad chunks": BROKEN,
}


def body_of(payload: StreamReader) -> bytes:
    return payload.read_nowait(-1)


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize(
    ("before", "bodies"),
    [(b"", []), (GET, [b""]), (POST, [b"hello"]), (CHUNKED + GET, [b"hello", b""]), (LARGE + POST, [b"x" * 200_000, b"hello"])],
    ids=["nothing", "one without a body", "one", "two", "a large one"],
)
async def test_what_stands_before_is_found_with_its_bodies(before: bytes, bodies: list[bytes], wrong: bytes):
    found = requests_before(before + wrong, LIMITS)
    if wrong is BROKEN:
        message, payload = found.pop()
        assert (message.path, payload.is_eof()) == ("/v1/files", False)
    assert [body_of(payload) for _, payload in found] == bodies
    assert all(payload.is_eof() for _, payload in found)


async def test_of_what_is_http_nothing_is_taken_twice():
    assert requests_before(GET + POST, LIMITS) == []


@pytest.mark.parametrize("size", range(480, 545, 3))
async def test_where_what_is_wrong_stands_makes_no_difference(size: int):
    body = b"x" * (size - 70)
    before = b"POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    for wrong in WRONG.values():
        found = requests_before(before + GET + wrong, LIMITS)
        assert [body_of(payload) for _, payload in found[:2]] == [body, b""]
        assert len(found) == 2 + (wrong is BROKEN)


@pytest.mark.parametrize(
    "before", [GET * 31, GET * 9000, CHUNKED[:-5] + b"1\r\nx\r\n" * 40_000], ids=["31 requests", "9000 requests", "40000 chunks"]
)
async def test_looking_for_it_costs_little_more_than_the_parser_has_spent(before: bytes):
    began = time.process_time()
    requests_before(before + WRONG["no HTTP"], LIMITS)
    assert time.process_time() - began < 0.5


async def _answered(parts: list[bytes]) -> list[Any]:
    """What a connection makes of `parts`: each request's path and body, each refusal's status."""
    seen: list[Any] = []

    async def handle(_connection: Connection, message: RawRequestMessage, payload: Payload) -> bool:
        body = b""
        try:
            while not payload.at_eof():
                body += await payload.readany()
        except Exception as error:  # noqa: BLE001 - whatever the connection set
            seen.append((message.path, type(error).__name__))
        else:
            seen.append((message.path, body))
        return True

    def refuse(_connection: Connection, status: int) -> None:
        seen.append(status)

    options: dict[str, Any] = {"header_timeout": 10.0, "keepalive_timeout": 75.0, "access_log": None, "auto_decompress": False}
    wire = Wire(Listener(lambda connection: partial(handle, connection), refuse, most=1, most_per_address=1, options=options)())
    for part in parts:
        wire.feed(part)
        for _ in range(8):
            await asyncio.sleep(0)
    wire.lose()
    await asyncio.sleep(0)
    return seen


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("before", [[], [GET], [POST], [POST, POST, POST], [GET, POST]])
async def test_a_connection_answers_the_same_whether_what_is_wrong_comes_with_it_or_later(before: list[bytes], wrong: bytes):
    at_once = await _answered([b"".join(before) + wrong])
    one_by_one = await _answered([*before, wrong])
    if wrong is BROKEN:
        assert at_once.pop() == one_by_one.pop() == ("/v1/files", "ClientError")
    else:
        assert at_once.pop() == one_by_one.pop() == (431 if b"a" * 9000 in wrong else 400)
    assert at_once == one_by_one
    assert len(at_once) == len(before)


async def test_what_comes_after_a_connection_has_lost_count_is_not_searched():
    """After chunks it is not known where a request begins: bytes of a body must not be taken for one."""
    assert await _answered([CHUNKED, POST + WRONG["no HTTP"]]) == [("/v1/files", b"hello"), 400]
