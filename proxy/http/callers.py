"""Who may connect to the admin plane: so many at once, and each with a request's whole head in time."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.web_protocol import RequestHandler

from proxy.core import events
from proxy.handshake import address_of
from proxy.http import errors
from proxy.http.backstop import answer, new_id

#: Connections at once, in all and from one address: administrators and those that collect numbers are few.
MOST = 512
MOST_PER_ADDRESS = 128


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds for which a head may be on its way, and a connection idle."""

    head: float = 10.0
    idle: float = 75.0


class Callers:
    """Makes the connections of `server`. A `patience` may be changed: open ones keep what they began with."""

    def __init__(self, server: web.Server, *, most: int = MOST, most_per_address: int = MOST_PER_ADDRESS) -> None:
        self.patience = Patience()
        self._server = server
        self._most = most
        self._most_per_address = most_per_address
        self._addresses: Counter[str] = Counter()

    def __call__(self) -> _Caller:
        return _Caller(self, self._server)

    def admit(self, address: str) -> bool:
        if self._addresses.total() >= self._most or self._addresses[address] >= self._most_per_address:
            return False
        self._addresses[address] += 1
        return True

    def leave(self, address: str) -> None:
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]


class _Caller(RequestHandler):
    __slots__ = ("_address", "_callers", "_head", "_late")

    def __init__(self, callers: Callers, server: web.Server) -> None:
        loop = asyncio.get_running_loop()
        options: dict[str, Any] = {"keepalive_timeout": callers.patience.idle, "access_log": None}
        super().__init__(server, loop=loop, **options)
        self._callers = callers
        self._head = callers.patience.head
        self._address = ""
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        address = address_of(transport.get_extra_info("peername"))
        if not self._callers.admit(address):
            transport.close()
            return
        self._address = address
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._address:
            self._callers.leave(self._address)
            self._address = ""
            self._stop_waiting()
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._address:
            return
        seen = self._request_count
        super().data_received(data)
        if self._request_count != seen:
            self._stop_waiting()
        elif self._late is None and self._waiter is not None and not self._waiter.done():
            self._await_head()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What is no HTTP is answered in our shape, and has a line: aiohttp's own words repeat the bytes that came."""
        if not isinstance(exc, HttpProcessingError) or request.writer.output_size:
            return super().handle_error(request, status, exc, message)
        error, id = errors.no_http(431 if isinstance(exc, LineTooLong) else 400), new_id()
        events.info("admin_request_refused", id=id, status=error.status, error=error.code)
        found = answer(error, id)
        found.force_close()
        return found

    def _await_head(self) -> None:
        self._late = self._loop.call_later(self._head, self.force_close)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
