"""Connections before both sides have agreed on TLS. Each counts from its beginning: else whoever never agrees has any number of them."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

#: The longest that the other side may take to read the rest and to say goodbye in TLS, in seconds. Who closes is to cut it long before
#: that: here nobody knows whether it still reads.
_GOODBYE = 3600.0

#: How long they have left once nothing more is accepted, in seconds.
_LAST_MOMENT = 1.0

#: As many are accepted in a turn of the event loop.
_AT_ONCE = 64

#: How long nobody is accepted where accepting fails, for want of file descriptors most often; in seconds.
_PAUSE = 0.25


class Gate(Protocol):
    """Who may connect; `hand_over` is `leave` for one whose connection is admitted in the same breath."""

    def admit(self, address: str) -> bool: ...
    def hand_over(self, address: str) -> None: ...
    def leave(self, address: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Terms:
    """On what connections come to agree, by whose leave, and within how many seconds."""

    context: ssl.SSLContext
    gate: Gate
    seconds: float


class Agreeing:
    """Accepts on `listening`, which it takes over. `factory` makes a protocol for each connection on which both sides have agreed.

    It gets the transport below TLS as its `below`: of what was written, all that TLS has handed down waits there.
    """

    def __init__(self, listening: socket.socket, terms: Terms, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        self._listening = listening
        self._terms = terms
        self._factory = factory
        self._loop = asyncio.get_running_loop()
        self._there: dict[asyncio.Task[None], _Newcomer] = {}
        self._pause: asyncio.TimerHandle | None = None
        self._listen()

    def close(self) -> None:
        """Accept nothing more. Those that are there have a moment."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listening)
        self._listening.close()
        if self._there:
            self._loop.call_later(_LAST_MOMENT, self._cut)

    def _cut(self) -> None:
        for task, newcomer in self._there.items():
            if not newcomer.has_agreed:
                task.cancel()

    def _listen(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        try:
            for _ in range(_AT_ONCE):
                self._begin(*self._listening.accept())
        except (BlockingIOError, ConnectionError, InterruptedError):
            return  # that was all, or one has left the queue
        except OSError:
            self._loop.remove_reader(self._listening)
            self._pause = self._loop.call_later(_PAUSE, self._listen)

    def _begin(self, connection: socket.socket, peer: Any) -> None:
        address = address_of(peer)
        if not self._terms.gate.admit(address):
            connection.close()
            return
        newcomer = _Newcomer(self._terms.gate, address)
        task = self._loop.create_task(self._agree(connection, newcomer))
        self._there[task] = newcomer
        task.add_done_callback(self._there.__delitem__)

    async def _agree(self, connection: socket.socket, newcomer: _Newcomer) -> None:
        connection.setblocking(False)
        try:
            below, _ = await self._loop.connect_accepted_socket(lambda: newcomer, connection)
            if below.is_closing():
                return
            self._loop.call_soon(newcomer.hand_down, below)  # once TLS is there, before it begins
            transport = await self._loop.start_tls(
                below,
                newcomer,
                self._terms.context,
                server_side=True,
                ssl_handshake_timeout=self._terms.seconds,
                ssl_shutdown_timeout=_GOODBYE,
            )
            if transport is not None:
                newcomer.hand_over(transport, below, self._factory())
        except (OSError, asyncio.CancelledError):
            pass  # it speaks something else, has left, is late, or was cut
        finally:
            newcomer.leave()


class _Newcomer(asyncio.Protocol):
    """Holds a place until both sides have agreed, and hands it over then, with whatever has come meanwhile."""

    def __init__(self, gate: Gate, address: str) -> None:
        self._gate = gate
        self._address = address
        self._early = b""
        self._is_lost = False
        self._protocol: Any = None

    @property
    def has_agreed(self) -> bool:
        return self._protocol is not None

    def data_received(self, data: bytes) -> None:
        self._early += data

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        if self._protocol is not None:
            self._protocol.connection_lost(exc)

    def hand_down(self, below: asyncio.Transport) -> None:
        """What has come before TLS was there is for TLS."""
        early, self._early = self._early, b""
        if early:
            tls = cast(asyncio.BufferedProtocol, below.get_protocol())
            memoryview(tls.get_buffer(len(early)))[: len(early)] = early
            tls.buffer_updated(len(early))

    def hand_over(self, transport: asyncio.Transport, below: asyncio.Transport, protocol: Any) -> None:
        if self._is_lost:
            return
        self._gate.hand_over(self._address)
        self._protocol = protocol
        protocol.below = below
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if self._early:
            protocol.data_received(self._early)

    def leave(self) -> None:
        if not self.has_agreed:
            self._gate.leave(self._address)


def address_of(peer: Any) -> str:
    """Who is at the other end, given its socket's address: `local` over a Unix socket."""
    return str(peer[0]) if isinstance(peer, tuple) else "local"
