"""Connections that have not agreed on TLS: they count from their beginning, and give their place back however they end."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop

from proxy.door import Door
from proxy.handshake import Terms
from proxy.http.listener import Listener
from proxy.sockets import bind
from tests.lifecycle.test_certificate import passed_on, trusting, write_certificate


class Echo(asyncio.Protocol):
    """Says what it hears."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def _nobody(*_: Any) -> Any:
    raise AssertionError("nothing is asked here")


async def cut(reader: asyncio.StreamReader) -> None:
    """The other side ends it, with nothing said."""
    async with asyncio.timeout(10):
        try:
            assert await reader.read() == b""
        except ConnectionResetError:
            pass


class Place:
    """A door with TLS for `most` connections, and who comes to it."""

    def __init__(self, folder: Path, *, most: int, seconds: float) -> None:
        write_certificate(folder, "here.test")
        served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        served.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        self.gate = Listener(_nobody, _nobody, most=most, most_per_address=most, options={})
        listening = bind("127.0.0.1", 0)
        self.address: tuple[str, int] = listening.getsockname()
        self.door = Door(listening, Echo, tls=Terms(served, self.gate, seconds))
        self._opened: list[asyncio.StreamWriter] = []

    async def connect(self, *, secure: bool = False) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        found = await asyncio.open_connection(*self.address, ssl=context if secure else None)
        self._opened.append(found[1])
        return found

    async def echoes(self) -> bool:
        reader, writer = await self.connect(secure=True)
        writer.write(b"hello")
        return await reader.readexactly(5) == b"hello"

    async def counts(self, count: int) -> None:
        async with asyncio.timeout(10):
            while self.gate.open != count:
                await asyncio.sleep(0.005)

    def close(self) -> None:
        self.door.close()
        for each in self._opened:
            each.transport.abort()


#: What starts an event loop with a coroutine.
Run = Callable[[Any], None]
Told = Callable[[Place], Awaitable[None]]


@pytest.fixture(params=[uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])
def at(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., None]:
    """Runs what is told at a place of its own."""

    def run(told: Told, *, most: int = 2, seconds: float = 60.0) -> None:
        async def main() -> None:
            place = Place(tmp_path, most=most, seconds=seconds)
            await place.door.open()
            try:
                await told(place)
            finally:
                place.close()

        request.param(main())

    return run


def test_who_speaks_before_it_is_accepted_and_asks_with_its_last_word_of_the_agreement_is_heard(at: Callable[..., None]):
    async def told(place: Place) -> None:
        with socket.create_connection(place.address, 10) as connection:
            coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = trusting().wrap_bio(coming, going)
            with suppress(ssl.SSLWantReadError):
                client.do_handshake()
            connection.sendall(going.read())

            def ask() -> int:
                client.do_handshake()
                return client.write(b"hello")

            await asyncio.to_thread(passed_on, connection, coming, going, ask)
            connection.sendall(going.read())
            assert await asyncio.to_thread(passed_on, connection, coming, going, lambda: client.read(5)) == b"hello"

    at(told)


def test_who_never_says_a_word_takes_a_place_and_those_beyond_are_cut(at: Callable[..., None]):
    async def told(place: Place) -> None:
        for _ in range(2):
            await place.connect()
        await place.counts(2)
        reader, _ = await place.connect()
        await cut(reader)
        assert place.gate.open == 2

    at(told)


def test_who_leaves_before_the_end_gives_the_place_back(at: Callable[..., None]):
    async def told(place: Place) -> None:
        for _ in range(4):
            _, writer = await place.connect()
            await place.counts(1)
            writer.close()
            await place.counts(0)

    at(told)


def test_so_does_who_speaks_something_else(at: Callable[..., None]):
    async def told(place: Place) -> None:
        reader, writer = await place.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: here.test\r\n\r\n")
        assert not (await reader.read()).startswith(b"HTTP")
        await place.counts(0)

    at(told)


def test_and_who_is_late(at: Callable[..., None]):
    async def told(place: Place) -> None:
        reader, _ = await place.connect()
        await place.counts(1)
        await cut(reader)
        await place.counts(0)

    at(told, seconds=0.2)


def test_whoever_agrees_is_served_on_the_last_place(at: Callable[..., None]):
    """The place of who agrees is handed over to its connection: what counts that then is the connection's own affair."""

    async def told(place: Place) -> None:
        await place.connect()
        await place.counts(1)
        for _ in range(3):
            assert await place.echoes()
            await place.counts(1)

    at(told)


def test_when_nothing_more_is_accepted_they_have_a_moment(at: Callable[..., None]):
    async def told(place: Place) -> None:
        reader, _ = await place.connect()
        await place.counts(1)
        place.door.close()
        assert place.gate.open == 1
        await cut(reader)
        await place.counts(0)

    at(told)
