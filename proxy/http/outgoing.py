"""The writing half of a client's connection: what has not gone out yet, how long that is waited for, and how it closes over it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp.web_protocol import RequestHandler

from proxy.core.errors import ClientDisconnected
from proxy.http.lingering import be_reset

if TYPE_CHECKING:
    from proxy.http.listener import Listener

#: How long a client may take none of what was written, where nobody has said, in seconds.
_STALL = 30.0

#: How long it may take to say goodbye in TLS once it all has gone out: nobody waits for clients that lie idle, a shutdown least of all.
_GOODBYE = 0.5

#: A transport with more than this unsent says that it is full, by the defaults of asyncio and of uvloop.
_FULL = 64 * 1024

_GONE = "The client has closed the connection."


class Reader(Protocol):
    """A client's connection."""

    #: How many seconds the client may take nothing.
    stall: float

    def unsent(self) -> int: ...
    async def drained(self) -> None: ...


async def taken(reader: Reader) -> None:
    """Wait until the client has read. Who reads slowly is waited for; raises TimeoutError once it takes nothing for `stall` seconds.

    It is looked at in turns of so long: whoever stops within one has what is left of it, and another.
    """
    left = reader.unsent()
    while True:
        try:
            async with asyncio.timeout(reader.stall):
                await reader.drained()
            return
        except TimeoutError:
            before, left = left, reader.unsent()
            if left >= before:
                raise


class Outgoing(RequestHandler):
    """A connection as what is written to it. Who closes it sees it off: some clients never read the rest, and it would stay for ever."""

    __slots__ = ("_farewell", "_listener", "below", "ends_by_close", "is_whole", "lags", "stall")

    def __init__(self, listener: Listener, **options: Any) -> None:
        super().__init__(listener, **options)
        self._listener = listener
        #: What carries TLS, where this connection speaks it.
        self.below: asyncio.Transport | None = None
        #: Whether the client reads more slowly than is written to it.
        self.lags = False
        #: How many seconds it may take nothing.
        self.stall = _STALL
        #: Whether nothing but the close says where the body ends that is written, and whether all of it is: until then no close may say so.
        self.ends_by_close = False
        self.is_whole = True
        self._farewell: Farewell | None = None

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._farewell is not None:
            self._farewell.end()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        if not self.lags:
            super().pause_writing()
            self.lags = True

    def resume_writing(self) -> None:
        below = self.below
        if below is not None and self.transport is not None:
            if below.get_write_buffer_size() > _FULL:
                self._tell_of_below(self.transport)
                return
            self.transport.set_write_buffer_limits()
        super().resume_writing()
        self.lags = False

    def _look_below(self, below: asyncio.Transport) -> None:
        """TLS hands a large write down as a whole, and knows nothing of it any more: it would not say that the client reads slowly."""
        if not self.lags and self.transport is not None and below.get_write_buffer_size() > _FULL:
            self._tell_of_below(self.transport)

    def _tell_of_below(self, transport: asyncio.Transport) -> None:
        """Whatever waits is too much, nothing is: so TLS says `pause_writing` now, and `resume_writing` once it may hand down again."""
        transport.set_write_buffer_limits(0)

    def send(self, data: bytes) -> None:
        """Write an answer that is whole, with others of the same turn of the loop. Raises ClientDisconnected."""
        transport = self.transport
        if transport is None:
            raise ClientDisconnected(_GONE)
        self._listener.outbox.send(transport, data)
        if self.below is not None:
            self._look_below(self.below)

    def write(self, data: bytes) -> None:
        """Write at once what is not whole; what goes on may be written to the transport itself. Raises ClientDisconnected."""
        self._listener.outbox.flush()
        if self.transport is None:
            raise ClientDisconnected(_GONE)
        self.transport.write(data)
        if self.below is not None:
            self._look_below(self.below)

    def unsent(self) -> int:
        """Bytes that were written and have not gone out."""
        return 0 if self.transport is None else unsent(self.transport, self.below)

    async def drained(self) -> None:
        self._drain_waiter = None  # it may be one that was not waited for to the end
        await self._drain_helper()

    def eof_received(self) -> None:
        # The transport closes itself after this.
        self._listener.outbox.flush()
        self._see_off()

    def end(self) -> None:
        """As where the client's end is read."""
        self._close_transport()

    def _close_transport(self) -> None:
        self._listener.outbox.flush()
        if self.transport is not None:
            self._see_off()
            self.transport.close()

    def force_close(self) -> None:
        self._listener.outbox.flush()
        self._see_off()
        super().force_close()

    def _see_off(self) -> None:
        """What closes waits until its client has read the rest. But where a body ends by the close, a part of it would look whole."""
        if not self.is_whole:
            self.abort_body()
        elif self.transport is not None and self._farewell is None:
            self._farewell = Farewell(self.transport, self.below, self.stall, by_reset=self.ends_by_close)

    def abort_body(self) -> None:
        """Close at once, so that a body whose end is missing cannot be taken for a whole one; where its end is the close, by a reset."""
        self._listener.outbox.flush()
        if self.transport is not None:
            if self.ends_by_close and (self.unsent() or not self.is_whole):
                be_reset(self.transport)
            self.transport.abort()

    def _say_no_more(self) -> None:
        self._listener.outbox.flush()
        if self.transport is not None and self.transport.can_write_eof():
            self.transport.write_eof()


class Farewell:
    """Sees a connection to its end that closes, while its client reads the rest; and with TLS, has said goodbye a moment after that.

    `by_reset`: an end like any other would be that of a whole body.
    """

    def __init__(self, transport: asyncio.Transport, below: asyncio.Transport | None, stall: float, *, by_reset: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._below = below
        self._stall = stall
        self._by_reset = by_reset
        self._left = unsent(transport, below)
        self._since = self._loop.time()
        self._handle: asyncio.TimerHandle | None = None
        if self._left or below is not None:
            self._wait()

    def _wait(self) -> None:
        self._handle = self._loop.call_later(self._stall if self._below is None else min(_GOODBYE, self._stall), self._look)

    def _look(self) -> None:
        before, self._left = self._left, unsent(self._transport, self._below)
        if self._left < before:
            self._since = self._loop.time()
        elif not self._left or self._loop.time() - self._since >= self._stall:
            if self._left and self._by_reset:
                be_reset(self._transport)
            self._transport.abort()
            return
        if self._left or self._below is not None:
            self._wait()

    def end(self) -> None:
        """The connection is lost."""
        if self._handle is not None:
            self._handle.cancel()


def unsent(transport: asyncio.Transport, below: asyncio.Transport | None) -> int:
    """Bytes that wait in `transport`, and in what is below it."""
    size = transport.get_write_buffer_size()
    return size if below is None else size + below.get_write_buffer_size()
