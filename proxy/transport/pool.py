"""One provider's connections: kept while they are good, bounded in number, opened to addresses that were checked."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable
from urllib.parse import urlsplit

from proxy.core.call import Content, Timeouts
from proxy.core.errors import CONNECT, START, UpstreamError, late
from proxy.core.protocols import UNSENT, UpstreamRequest
from proxy.outbox import Outbox
from proxy.ticks import on_tick
from proxy.transport.addresses import PinnedResolver
from proxy.transport.answer import HEAD
from proxy.transport.client import NO_PLACE, may_be_sent_again, uncounted
from proxy.transport.connection import Connection
from proxy.transport.dialler import Dialler
from proxy.transport.sending import FOREVER, Sending, least

#: How long the end of an answer that has been read may take before its connection is given up, in seconds.
_DRAIN = 1.0


class PooledTransport:
    """A `proxy.core.protocols.Transport` to one origin.

    `connections` bounds how many are open; who finds none free waits as long as a connection may take. `keep_alive` is in seconds.
    `trust` makes the context of an `https` origin: whom it shows a client's bytes to.
    """

    def __init__(
        self,
        base_url: str,
        *,
        connections: int,
        keep_alive: float,
        header_limit: int = 64 * 2**10,
        body_limit: int = 64 * 2**20,
        resolver: PinnedResolver,
        trust: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:
        parts = urlsplit(base_url)
        is_secure = parts.scheme == "https"
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._host = parts.netloc
        self._most = connections
        self._keep_alive = keep_alive
        self._outbox = Outbox()
        self._limits: dict[str, int] = {"header_limit": header_limit, "body_limit": body_limit}
        self._dialler = Dialler(
            parts.hostname or "",
            parts.port or (443 if is_secure else 80),
            tls=trust() if is_secure else None,
            resolver=resolver,
            make=self._made,
        )
        self._idle: list[Connection] = []
        self._open = 0
        self._live: set[Connection] = set()
        # Each is given a connection, or None: a place, which counts as `_open` then. Nothing is free while somebody waits.
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._sweeping: asyncio.TimerHandle | None = None
        self._reaper: asyncio.TimerHandle | None = None
        self._closed = False
        self.stale: Callable[[], None] = uncounted

    # -- sending --

    async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> Connection:
        data = self._message(request)
        asked = begun = time.monotonic()
        due = begun + least(timeouts.first_token, timeouts.total)
        connection = self._take_idle(begun)
        if connection is None:
            try:
                connection = await self._connect(timeouts, due)
            except asyncio.CancelledError:
                raise asyncio.CancelledError(UNSENT) from None
            begun = time.monotonic()
        while True:
            connection.due = due
            if self._sweeping is None:
                self._sweep_soon()
            try:
                head = connection.begin(data)
                if isinstance(request.body, bytes):
                    await head
                else:
                    # Until the client's body has been sent, it is the client who is waited for.
                    connection.due = asked + least(timeouts.total, None)
                    await self._send_content(connection, request.body, head, timeouts)
                if connection.stage < HEAD:
                    connection.check()
                connection.due = FOREVER
                return connection
            except BaseException as error:
                connection.abort()
                # A connection that its server had closed while it lay idle says nothing of the server: once more, on a fresh one.
                lost = isinstance(error, UpstreamError) and error.kind == "reset" and connection.is_untouched
                if not (lost and connection.served > 1 and isinstance(request.body, bytes)) or self._closed:
                    raise
                if not may_be_sent_again(request.method, time.monotonic() - begun):
                    raise
            self.stale()
            connection = await self._connect(timeouts, due, fresh=True)

    def _message(self, request: UpstreamRequest) -> bytes:
        """The request's head, and its body if that is bytes."""
        kept, body = request.kept, request.body
        head = kept.get(self) if kept is not None else None
        if head is None:
            head = self._head(request)
            if kept is not None:
                kept[self] = head
        if not isinstance(body, bytes):
            return head + (b"transfer-encoding: chunked\r\n\r\n" if body.length is None else b"content-length: %d\r\n\r\n" % body.length)
        if body or request.method in ("POST", "PUT", "PATCH"):
            return b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)
        return head + b"\r\n"

    def _head(self, request: UpstreamRequest) -> bytes:
        """All of a head that does not speak of the body."""
        target = request.url[len(self._origin) :]
        headers = {"host": self._host, **request.headers}
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
        return f"{request.method} {target or '/'} HTTP/1.1\r\n{''.join(lines)}".encode("utf-8", "surrogateescape")

    async def _send_content(self, connection: Connection, content: Content, head: asyncio.Future[None], timeouts: Timeouts) -> None:
        """Pass a body on as it arrives. An answer that comes before the body's end ends the sending, and the connection's use."""
        body = Sending(connection, content, timeouts)

        async def pump() -> None:
            await body.run()
            if self._sweeping is None:
                self._sweep_soon()

        sending = asyncio.ensure_future(pump())
        try:
            await asyncio.wait((sending, head), return_when=asyncio.FIRST_COMPLETED)
            if not head.done():
                sending.result()
                await head
            elif not sending.done() or sending.cancelled() or sending.exception() is not None:
                # What was announced has not been sent: the next request would become part of this one's body.
                connection.keep_alive = False
            if connection.stage < HEAD:
                connection.check()
        except UpstreamError as error:
            if error.bound == START:
                error.bound = body.bound
            raise
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    # -- connections --

    def _take_idle(self, now: float) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and connection.idle_since > now - self._keep_alive:
                return connection
            connection.abort()
        return None

    async def _connect(self, timeouts: Timeouts, due: float, *, fresh: bool = False) -> Connection:
        """A connection that nobody uses, once there is one; with `fresh`, one that nobody has used."""
        left = due - time.monotonic()
        patience = least(timeouts.connect, left)
        by_connect = timeouts.connect is not None and timeouts.connect <= left
        has_place = False
        try:
            async with asyncio.timeout(None if patience == FOREVER else max(patience, 0.0)):
                idle = await self._place(fresh)
                if idle is not None:
                    return idle
                has_place = True
                try:
                    connection = await self._dialler.dial()
                except BaseException:
                    self._leave_place()
                    raise
                self._live.add(connection)
                return connection
        except TimeoutError:
            if not has_place:
                raise UpstreamError("overloaded", NO_PLACE, reached=False) from None
            message = "The provider did not accept a connection in time."
            if by_connect:
                raise late(CONNECT, message, kind="connect_timeout", reached=False) from None
            raise late(START, message, reached=False) from None

    async def _place(self, fresh: bool) -> Connection | None:
        """A connection that nobody uses, or None: a place for one, which is counted. With `fresh`, a place only."""
        is_first = False
        while True:
            found = self._take_idle(time.monotonic()) if fresh and self._open >= self._most else None
            if found is None:
                if self._open < self._most:  # also since what lay idle was too old
                    self._open += 1
                    return None
                found = await self._turn(first=is_first)
                if found is None:
                    return None
            if not found.closed:
                if not fresh:
                    return found
                self._live.remove(found)  # so that it leaves its place to us
                found.abort()
                return None
            # It was lost before we could go on, and its place has gone to the next: ours is still the first turn.
            is_first = True

    async def _turn(self, *, first: bool) -> Connection | None:
        """Wait for a connection or a place, behind all who wait already or `first` of them."""
        turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        if first:
            self._waiting.appendleft(turn)
        else:
            self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                if turn in self._waiting:
                    self._waiting.remove(turn)
            elif (found := turn.result()) is None:
                self._leave_place()
            elif not found.closed:
                self._released(found)
            raise

    def _hand(self, found: Connection | None) -> bool:
        """Give a connection, or a place, to who has waited longest; whether anybody has."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(found)
                return True
        return False

    def _leave_place(self) -> None:
        if not self._hand(None):
            self._open -= 1

    def _made(self) -> Connection:
        return Connection(self._released, self._lost, outbox=self._outbox, **self._limits)

    # -- what connections tell --

    def _released(self, connection: Connection) -> None:
        if self._closed:
            connection.abort()
        elif connection.draining:
            connection.due = time.monotonic() + _DRAIN
            if self._sweeping is None:
                self._sweep_soon()
        else:
            connection.due = FOREVER
            connection.idle_since = time.monotonic()
            if self._waiting and self._hand(connection):
                return
            self._idle.append(connection)
            if self._reaper is None:
                self._reaper = asyncio.get_running_loop().call_later(self._keep_alive, self._reap)

    def _lost(self, connection: Connection) -> None:
        if connection in self._live:
            self._live.remove(connection)
            self._leave_place()

    def _sweep_soon(self) -> None:
        self._sweeping = on_tick(self._sweep)

    def _sweep(self) -> None:
        """End what is late, as `proxy.sweeper` does, and go on while anything has an end: no request is noted down for it."""
        now = time.monotonic()
        mortal = [connection for connection in self._live if connection.due != FOREVER]
        for connection in mortal:
            if connection.due <= now:
                connection.expire()
        self._sweeping = None
        if mortal:
            self._sweep_soon()

    def _reap(self) -> None:
        """Close what has lain idle for too long; the stack's bottom is the oldest."""
        oldest = time.monotonic() - self._keep_alive
        kept = [connection for connection in self._idle if connection.is_usable and connection.idle_since > oldest]
        for connection in self._idle:
            if connection.is_usable and connection.idle_since <= oldest:
                connection.abort()
        self._idle = kept
        self._reaper = asyncio.get_running_loop().call_later(self._keep_alive, self._reap) if kept else None

    async def close(self) -> None:
        """Close every connection, and tell who waits on one. Who waits for an address or a place goes on, and nothing is kept of it."""
        self._closed = True
        if self._reaper is not None:
            self._reaper.cancel()
        for connection in tuple(self._live):
            if connection.busy:
                connection.fail(UpstreamError("reset", "The gateway has closed the connection to the provider."))
            else:
                connection.abort()
        self._idle.clear()
