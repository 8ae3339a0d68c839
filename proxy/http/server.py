"""aiohttp's HTTP server with its defaults corrected, and its own error pages replaced by ours."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest

#: Answers a request that could not be parsed: (status, aiohttp's message) -> a response.
Refuse = Callable[[BaseRequest, int, str], Any]


class Connection(RequestHandler):
    """One client's connection. It must have sent a request's whole head within `header_timeout` of that head's first byte."""

    __slots__ = ("_header_handle", "_header_timeout", "_listener", "_peer")

    def __init__(self, listener: Listener, *, header_timeout: float, **options: Any) -> None:
        super().__init__(listener, **options)
        self._listener = listener
        self._header_timeout = header_timeout
        self._header_handle: asyncio.TimerHandle | None = None
        self._peer: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if isinstance(peer, tuple) else "local"
        if not self._listener.admit(self._peer):
            self._peer = None
            cast(asyncio.Transport, transport).abort()
            return
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._peer is not None:
            self._listener.leave(self._peer)
            self._peer = None
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        seen = self._request_count
        super().data_received(data)
        if self._request_count != seen:
            self._stop_waiting()
        elif self._header_handle is None and self._waiter is not None and data:
            self._await_head()

    def _await_head(self) -> None:
        self._header_handle = self._loop.call_later(self._header_timeout, self._head_is_late)

    def _stop_waiting(self) -> None:
        if self._header_handle is not None:
            self._header_handle.cancel()
            self._header_handle = None

    def _head_is_late(self) -> None:
        self._header_handle = None
        self.force_close()

    def handle_error(
        self, request: BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        return cast(web.StreamResponse, self._listener.refuse(request, status, message or ""))

    def abort_body(self) -> None:
        """Close at once, so that a body whose end is missing cannot be taken for a whole one."""
        if self.transport is not None:
            self.transport.abort()

    async def drained(self) -> None:
        await self._drain_helper()


class Listener(web.Server):
    """Accepts connections, as many as are allowed in all and from one address. Called by the event loop for each."""

    def __init__(
        self,
        handler: Callable[[BaseRequest], Awaitable[Any]],
        refuse: Refuse,
        *,
        most: int,
        most_per_address: int,
        options: dict[str, Any],
    ) -> None:
        super().__init__(handler, handler_cancellation=True)
        self.refuse = refuse
        self._most = most
        self._most_per_address = most_per_address
        self._options = options
        self._open = 0
        self._addresses: Counter[str] = Counter()

    def admit(self, address: str) -> bool:
        if self._open >= self._most or self._addresses[address] >= self._most_per_address:
            return False
        self._open += 1
        self._addresses[address] += 1
        return True

    def leave(self, address: str) -> None:
        self._open -= 1
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]

    def __call__(self) -> Connection:
        return Connection(self, loop=self._loop, **self._options)


def bind(host: str, port: int, *, backlog: int = 4096) -> socket.socket:
    """A listening socket. Port 0 takes any free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.setblocking(False)
    found.bind((host, port))
    found.listen(backlog)
    return found
