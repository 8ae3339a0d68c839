"""What is written to a client over TLS, of which the transport below it keeps what the client has not read."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop

from proxy.core.call import Call
from proxy.core.reply import Reply
from proxy.door import Door
from proxy.handshake import Terms
from proxy.http.server import Connection
from proxy.sockets import bind
from tests.core.doubles import HandClock
from tests.http.test_data_plane import WHOLE, Edge, posted
from tests.lifecycle.test_certificate import trusting, write_certificate

SIZE = 6_000_000

Told = Callable[["Place"], Awaitable[None]]


class Place:
    """A data plane behind a door with TLS, whose answers are larger than what the kernel keeps of them."""

    def __init__(self, folder: Path) -> None:
        write_certificate(folder, "here.test")
        served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        served.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        self.edge = Edge(HandClock(), _large)
        self.connections: list[Connection] = []
        listening = bind("127.0.0.1", 0)
        self._address: tuple[str, int] = listening.getsockname()
        self.door = Door(listening, self._made, tls=Terms(served, self.edge.listener, 10.0))

    def _made(self) -> Connection:
        self.connections.append(self.edge.connection())
        return self.connections[-1]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, self._address)
        return await asyncio.open_connection(sock=connection, ssl=trusting(), server_hostname="here.test", limit=1024)

    async def lags(self, *, lags: bool = True) -> Connection:
        async with asyncio.timeout(10):
            while not self.connections or self.connections[-1].lags is not lags:
                await asyncio.sleep(0.005)
        return self.connections[-1]

    async def is_lost(self) -> None:
        async with asyncio.timeout(10):
            while self.connections[-1].transport is not None:
                await asyncio.sleep(0.005)


async def _large(_call: Call) -> Reply:
    return Reply(200, {"content-type": "application/json"}, b"x" * SIZE)


@pytest.fixture(params=[uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])
def at(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Told], None]:
    def run(told: Told) -> None:
        async def main() -> None:
            place = Place(tmp_path)
            await place.door.open()
            try:
                await told(place)
            finally:
                place.door.close()
                place.edge.listener.abort()
                await asyncio.sleep(0.01)

        request.param(main())

    return run


async def body_of(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(10):
        await reader.readuntil(b"\r\n\r\n")
        return await reader.readexactly(SIZE)


@pytest.mark.parametrize("more", [b"Connection: close", b"Connection: keep-alive"])
def test_a_client_that_pauses_gets_all_of_a_large_answer(at: Callable[[Told], None], more: bytes):
    """Also where the connection closes behind it, and where the gateway stops meanwhile."""

    async def told(place: Place) -> None:
        reader, writer = await place.connect()
        writer.write(posted(WHOLE, more))
        connection = await place.lags()
        assert connection.unsent() > 1_000_000
        place.edge.plane.drain()
        place.edge.listener.drain()
        await asyncio.sleep(0.8)
        assert place.edge.plane.in_flight == 1, "it is still being answered"
        assert len(await body_of(reader)) == SIZE
        await place.is_lost()
        writer.transport.abort()

    at(told)


def test_a_connection_whose_client_has_caught_up_goes_on(at: Callable[[Told], None]):
    async def told(place: Place) -> None:
        reader, writer = await place.connect()
        for _ in range(3):
            writer.write(posted(WHOLE))
            await place.lags()
            assert len(await body_of(reader)) == SIZE
            connection = await place.lags(lags=False)
            assert connection.unsent() == 0
        writer.transport.abort()

    at(told)


@pytest.mark.parametrize("way", [Connection.end, Connection.force_close])
def test_what_closes_while_its_client_reads_on_is_not_cut(at: Callable[[Told], None], way: Callable[[Connection], Any]):
    async def told(place: Place) -> None:
        reader, writer = await place.connect()
        writer.write(posted(WHOLE))
        way(await place.lags())
        await asyncio.sleep(0.8)
        assert len(await body_of(reader)) == SIZE
        await place.is_lost()
        writer.transport.abort()

    at(told)


def test_who_takes_nothing_is_cut_after_its_time(at: Callable[[Told], None]):
    async def told(place: Place) -> None:
        _, writer = await place.connect()
        writer.write(posted(WHOLE))
        connection = await place.lags()
        connection.stall = 0.3
        connection.end()
        await place.is_lost()
        writer.transport.abort()

    at(told)


def test_who_has_it_all_and_says_no_goodbye_is_not_waited_for(at: Callable[[Told], None]):
    async def told(place: Place) -> None:
        _, writer = await place.connect()
        cast(asyncio.Transport, writer.transport).pause_reading()
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        connection = await place.lags(lags=False)
        await asyncio.sleep(0.1)
        connection.end()
        async with asyncio.timeout(3):
            await place.is_lost()
        writer.transport.abort()

    at(told)
