"""Who may connect to the admin plane, and for how long without asking anything."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from proxy.door import Door
from proxy.http.callers import Callers, Patience
from proxy.sockets import bind
from tests.support.log import logged

ASKED = b"GET / HTTP/1.1\r\nHost: admin.test\r\n\r\n"


class Place:
    """A server at a port of its own that answers everything with `yes`."""

    def __init__(self, callers: Callers) -> None:
        self.callers = callers
        listening = bind("127.0.0.1", 0)
        self.address: tuple[str, int] = listening.getsockname()
        self.door = Door(listening, callers)
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        found = await asyncio.open_connection(*self.address)
        self._writers.append(found[1])
        return found

    def close(self) -> None:
        self.door.close()
        for each in self._writers:
            each.transport.abort()


async def _yes(_request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text="yes")


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    server = web.Server(_yes)
    found = Place(Callers(server, most=3, most_per_address=2))
    await found.door.open()
    yield found
    found.close()
    await server.shutdown(1.0)


async def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(ASKED)
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ") and await reader.readexactly(3) == b"yes"


async def closed(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(5):
        try:
            assert await reader.read() == b""
        except ConnectionResetError:
            pass


async def test_those_beyond_the_bound_are_cut_and_the_others_served(place: Place):
    first, second = await place.connect(), await place.connect()
    for each in (first, second):
        await asked(*each)
    third = await place.connect()
    third[1].write(ASKED)
    await closed(third[0])
    await asked(*second)
    first[1].close()
    await first[1].wait_closed()
    async with asyncio.timeout(5):
        while not place.callers.admit("127.0.0.1"):
            await asyncio.sleep(0.005)
    place.callers.leave("127.0.0.1")
    await asked(*await place.connect())


async def test_places_are_bounded_in_all_and_by_address(place: Place):
    assert [place.callers.admit(address) for address in ("a", "a", "a", "b", "c")] == [True, True, False, True, False]
    place.callers.leave("a")
    assert place.callers.admit("c")


@pytest.mark.parametrize("sent", [b"", ASKED[:-2]], ids=["nothing", "half of a head"])
async def test_a_head_that_does_not_come_ends_its_connection(place: Place, sent: bytes):
    place.callers.patience = Patience(head=0.1, idle=60.0)
    reader, writer = await place.connect()
    writer.write(sent)
    await closed(reader)


async def test_so_does_one_that_does_not_come_after_an_answer(place: Place):
    place.callers.patience = Patience(head=0.3, idle=60.0)
    reader, writer = await place.connect()
    await asked(reader, writer)
    writer.write(ASKED[:-2])
    await closed(reader)


async def test_who_asks_no_more_is_idle_for_a_time(place: Place):
    place.callers.patience = Patience(head=60.0, idle=0.2)
    reader, writer = await place.connect()
    await asked(reader, writer)
    await closed(reader)


async def test_who_lies_idle_between_two_requests_is_not_late(place: Place):
    place.callers.patience = Patience(head=0.2, idle=60.0)
    reader, writer = await place.connect()
    await asked(reader, writer)
    await asyncio.sleep(0.4)
    await asked(reader, writer)


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (ASKED.replace(b"Host", b"X secret: a\r\nHost"), 400, "bad_request"),
        (b"SECRET words\r\n\r\n", 400, "bad_request"),
        (ASKED.replace(b"Host", b"X: " + b"secret" * 2000 + b"\r\nHost"), 431, "headers_too_large"),
    ],
    ids=["no host", "no header", "no HTTP", "too large"],
)
@pytest.mark.parametrize("before", [b"", ASKED], ids=["first", "second"])
async def test_what_is_no_http_is_an_error_in_our_shape_that_repeats_nothing(
    place: Place, before: bytes, sent: bytes, status: int, code: str
):
    reader, writer = await place.connect()
    if before:
        await asked(reader, writer)
    with logged() as lines:
        writer.write(sent)
        async with asyncio.timeout(5):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert head.split()[1] == b"%d" % status
    assert (json.loads(body)["error"]["code"], b"secret" in body.lower()) == (code, False)
    (line,) = lines
    assert (line["event"], line["status"], line["error"]) == ("admin_request_refused", status, code)
    assert f"x-request-id: {line['id']}".encode() in head.lower()
