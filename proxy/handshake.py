"""Connections before both sides have agreed on TLS. Each counts from its beginning: else whoever never agrees has any number of them."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

#: How long the other side may take to say goodbye in TLS, in seconds: nobody waits for clients that lie idle, a shutdown least of all.
_GOODBYE = 0.5

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
    """Accepts on `listening`, which it takes over. `factory` makes a protocol for each connection on which both sides have agreed."""

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
        newcomer = _Newcomer(self._terms.gate, address, self._factory)
        task = self._loop.create_task(self._agree(connection, newcomer))
        self._there[task] = newcomer
        task.add_done_callback(self._there.__delitem__)

    async def _agree(self, connection: socket.socket, newcomer: _Newcomer) -> None:
        connection.setblocking(False)
        times = {"ssl_handshake_timeout": self._terms.seconds, "ssl_shutdown_timeout": _GOODBYE}
        try:
            await self._loop.connect_accepted_socket(lambda: newcomer, connection, ssl=self._terms.context, **times)
        except (OSError, asyncio.CancelledError):
            pass  # it speaks something else, has left, is late, or was cut
        finally:
            newcomer.leave()


class _Newcomer(asyncio.Protocol):
    """Holds a place until both sides have agreed, and hands it over then."""

    def __init__(self, gate: Gate, address: str, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        self.has_agreed = False
        self._gate = gate
        self._address = address
        self._factory = factory

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.has_agreed = True
        self._gate.hand_over(self._address)
        protocol = self._factory()
        cast(asyncio.Transport, transport).set_protocol(protocol)
        protocol.connection_made(transport)

    def leave(self) -> None:
        if not self.has_agreed:
            self._gate.leave(self._address)


def address_of(peer: Any) -> str:
    """Who is at the other end, given its socket's address: `local` over a Unix socket."""
    return str(peer[0]) if isinstance(peer, tuple) else "local"
