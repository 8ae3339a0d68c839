"""Who may connect: as many connections as are allowed, in all and from one address."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, cast

from aiohttp import web

from proxy.http.departures import Departures
from proxy.http.forwarded import Proxies
from proxy.http.known_head import Payload
from proxy.http.lingering import Lingering
from proxy.http.server import Answer, Connection
from proxy.outbox import Outbox

#: Makes what answers the requests of a connection, which come one after the other.
Handle: TypeAlias = Callable[[Connection], Answer]

#: Answers bytes that are no request, given the status that they earn.
Refuse: TypeAlias = Callable[[Connection, int], None]

#: As many connections are told that they are too many; those beyond are cut.
_MOST_TOLD = 64
_TELLING = 0.5


class Listener(web.Server):
    """Accepts connections, as many as are allowed in all and from one address. Called by the event loop for each.

    `too_many` makes what those get that are too many in all: a whole response. The bounds, `options` and `proxies` (None: nobody is
    trusted) may be changed; open connections keep what they began with.
    """

    def __init__(
        self,
        handle: Handle,
        refuse: Refuse,
        *,
        most: int,
        most_per_address: int,
        options: dict[str, Any],
        too_many: Callable[[], bytes] = bytes,
    ) -> None:
        super().__init__(_never, handler_cancellation=True)
        self.handle = handle
        self.refuse = refuse
        self.most = most
        self.most_per_address = most_per_address
        self.options = options
        self.proxies: Proxies | None = None
        self.outbox = Outbox()
        self.departures = Departures()
        self._lingering = Lingering()
        self.turned_away = 0
        self._too_many = too_many
        self._told: set[asyncio.Transport] = set()
        self._open = 0
        self._addresses: Counter[str] = Counter()
        self._empty: asyncio.Event | None = None

    def admit(self, address: str) -> bool:
        if self._open >= self.most or (self._addresses[address] >= self.most_per_address and not self._is_proxy(address)):
            return False
        self._open += 1
        self._addresses[address] += 1
        return True

    def _is_proxy(self, address: str) -> bool:
        """Whether many clients come from that address."""
        return self.proxies is not None and self.proxies.trust(address)

    def hand_over(self, address: str) -> None:
        """The place is another's, who is admitted at once."""
        self._open -= 1
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]

    def leave(self, address: str) -> None:
        self.hand_over(address)
        if self._empty is not None and not self._open:
            self._empty.set()

    def turn_away(self, transport: asyncio.Transport, address: str) -> None:
        """Say that there are too many, where there is room for saying it. Too many from one address are cut: that is one client's doing."""
        self.turned_away += 1
        if self._open < self.most or len(self._told) >= _MOST_TOLD or not transport.can_write_eof():
            transport.abort()
            return
        self._told.add(transport)
        transport.write(self._too_many())
        transport.write_eof()
        self._loop.call_later(_TELLING, self._cut, transport)

    def _cut(self, transport: asyncio.Transport) -> None:
        self._told.discard(transport)
        transport.abort()

    @property
    def open(self) -> int:
        """Connections that are open."""
        return self._open

    @property
    def is_draining(self) -> bool:
        """Whether no connection waits for a request any more."""
        return self._empty is not None

    def take_in(self, payload: Payload) -> Awaitable[bool]:
        """Read the rest of a body for nobody; says whether its end came. A quarter of all connections may take long for it."""
        return self._lingering.take_in(payload, self.most // 4)

    def drain(self) -> asyncio.Event:
        """Have every connection closed once its request is answered, at once where there is none. The event is set when all are."""
        if self._empty is None:
            self._empty = asyncio.Event()
        if not self._open:
            self._empty.set()
        self._lingering.hurry()
        for connection in self.connections:
            cast(Connection, connection).retire()
        return self._empty

    def abort(self) -> None:
        """Cut what is still open."""
        for connection in self.connections:
            cast(Connection, connection).abort_body()

    def __call__(self) -> Connection:
        return Connection(self, loop=self._loop, **self.options)


async def _never(_request: web.BaseRequest) -> web.StreamResponse:
    """aiohttp's server wants a handler; our connections have their own loop and never call it."""
    raise AssertionError
