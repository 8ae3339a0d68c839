"""aiohttp's HTTP server: its parser, its connections and their clean-up, with our own loop over the requests of a connection.

aiohttp's loop makes a task, a request, a writer and a response object for each request. Ours hands the parsed head and the body's reader to
one coroutine. And the defaults are corrected: heads have a time limit, malformed requests get our error shape.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from aiohttp import StreamReader
from aiohttp.http import RawRequestMessage
from aiohttp.web_protocol import _ErrInfo

from proxy.core.errors import ClientError
from proxy.handshake import address_of
from proxy.http.doubt import is_doubtful, origin_in, status_of
from proxy.http.forwarded import Behind
from proxy.http.known_head import KnownHead, Payload, WholeBody, end_of, learnt
from proxy.http.lingering import PAUSE
from proxy.http.outgoing import Outgoing, taken
from proxy.http.salvage import requests_before

if TYPE_CHECKING:
    from proxy.http.listener import Listener

#: Answers one request; says whether its connection may carry another.
Answer = Callable[[RawRequestMessage, Payload], Awaitable[bool]]

#: How long a connection without a request stays open once the gateway takes no more of them, in seconds.
_LAST_MOMENT = 1.0

#: How long a connection stays open after a stream that broke, in seconds. Clients ask again at once or, after a pause, on another.
_MOMENT = 0.5

_UNREAD = "The client does not read its answers."

#: So many bytes of a body that nobody reads are taken in, so that its connection goes on.
_SMALL = 64 * 1024

#: So many heads of a connection are learnt, one after the other, before it is clear that its client never says one twice.
_MOST_LEARNT = 16


class Connection(Outgoing):
    """One client's connection. It must have sent a request's whole head within `header_timeout` seconds of that head's first byte."""

    __slots__ = (
        "_header_handle",
        "_header_timeout",
        "_known",
        "_learnt",
        "_missing",
        "_whole",
        "behind",
        "body",
        "origin",
        "peer",
    )

    def __init__(self, listener: Listener, *, header_timeout: float, **options: Any) -> None:
        super().__init__(listener, **options)
        self._header_timeout = header_timeout
        self._header_handle: asyncio.TimerHandle | None = None
        #: Of the running request's, where it had not all come by then.
        self.body: StreamReader | None = None
        self._known: KnownHead | None = None
        self._whole: WholeBody | None = None
        self._learnt = 0
        #: Bytes until the message ends that is being read: 0 between two, negative once that is not known.
        self._missing = 0
        self.peer = ""
        #: Of a request that is refused as none: the origin of the page that sent it, as far as it can be read.
        self.origin: str | None = None
        #: Says who asks, where the peer is a proxy that is trusted.
        self.behind: Behind | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = address_of(transport.get_extra_info("peername"))
        if not self._listener.admit(peer):
            self._listener.turn_away(cast(asyncio.Transport, transport), peer)
            return
        self.peer = peer
        if self._listener.proxies is not None:
            self.behind = self._listener.proxies.behind(peer)
        super().connection_made(transport)
        self._await_head()
        if self._listener.is_draining:
            self._loop.call_soon(self.retire)  # it was accepted before, and has agreed on TLS since

    def connection_lost(self, exc: BaseException | None) -> None:
        if self.peer:
            self._listener.leave(self.peer)
            self.peer = ""
        self._stop_waiting()
        if self.transport is not None:
            self._listener.outbox.drop(self.transport)
        self._listener.departures.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.peer:
            return  # turned away: nothing that it sends is read
        known, waiter = self._known, self._waiter
        # Whoever closes the connection cancels the waiter; where the beginning of a head has come, `_missing` says so.
        if known is not None and not self._missing and waiter is not None and not waiter.done():
            whole = known.match(data)
            if whole is not None:
                self._request_count += 1
                self._whole = whole
                waiter.set_result(None)
                return
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        """Hand `data` to aiohttp's parser, and keep account of what came of it."""
        seen = self._request_count
        super().data_received(data)
        self._follow(data, self._request_count - seen)
        if self._request_count != seen:
            if self._header_handle is not None:
                self._stop_waiting()
            if isinstance(self._messages[-1][0], _ErrInfo):
                self.origin = origin_in(data)
                self._break_body()
        elif self._header_handle is None and self._waiter is not None and not self._waiter.done() and data:
            self._await_head()

    def _follow(self, data: bytes, fresh: int) -> None:
        """Keep account of where the parser stands, after it was fed `data` with `fresh` new messages; and learn a head that came whole."""
        if self._missing < 0:
            return
        if fresh != 1 or self._missing:
            self._missing = self._missing - len(data) if not fresh else -1
            return
        message, payload = self._messages[-1]
        if isinstance(message, _ErrInfo):
            self._missing = -1
            self._salvage(data)
            return
        self._missing = end_of(message, payload, data)
        if not self._missing and self._request_count > 1 and self._learnt < _MOST_LEARNT and not is_doubtful(message):
            self._learnt += 1
            self._known = learnt(message, payload, data)

    def reads_on(self, message: RawRequestMessage) -> bool:
        """Whether the parser reads what follows `message`, which has an `Upgrade`.

        After `websocket` it takes that for another protocol. Every other offer, such as Java's client's of HTTP/2 (`h2c`), is passed over;
        but what follows in the same piece is lost.
        """
        return self._missing >= 0 and message.method != "CONNECT" and message.headers.get("upgrade", "").lower() != "websocket"

    def _salvage(self, data: bytes) -> None:
        """What came is no HTTP, but began where a request may: those that stand before what is wrong are answered first."""
        limits = {"max_line_size": self.max_line_size, "max_headers": self.max_headers, "max_field_size": self.max_field_size}
        found = requests_before(data, {**limits, "max_msg_queue_size": self._max_msg_queue_size})
        messages: Any = self._messages
        messages.extend((*found, messages.pop()))
        self._request_count += len(found)

    def resume_reading(self, resume_parser: bool = True) -> None:
        # aiohttp's body reader asks for this after every read. Where nothing was paused there is nothing to parse again.
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def _pause_transport_reading(self) -> None:
        super()._pause_transport_reading()
        if self.transport is not None:
            self._listener.departures.watch(self, self.transport)

    def _resume_transport_reading(self) -> None:
        super()._resume_transport_reading()
        self._listener.departures.forget(self)

    def ends_after(self, unread: int) -> bool:
        """Whether the client has left, where it sends no more than `unread` bytes: nothing, or less than its request still needs.

        Who has sent all of a request and only ends its own side may still read; that is judged where its end is read.
        """
        return not unread or unread < self._missing

    def _break_body(self) -> None:
        """What came is no HTTP. Where it stands inside a body, aiohttp's parser forgets that body: whoever reads it would wait for ever."""
        for payload in (self.body, *(payload for _, payload in self._messages)):
            if payload is not None and not payload.is_eof():
                payload.set_exception(ClientError("The request's body is not valid HTTP.", code="bad_request"))

    def _await_head(self) -> None:
        self._header_handle = self._loop.call_later(self._header_timeout, self._head_is_late)

    def _stop_waiting(self) -> None:
        if self._header_handle is not None:
            self._header_handle.cancel()
            self._header_handle = None

    def _head_is_late(self) -> None:
        self._header_handle = None
        self.force_close()

    def _process_keepalive(self) -> None:
        if self._header_handle is None:
            super()._process_keepalive()
        else:
            self._keepalive_handle = None  # it is not idle: a head is on its way, which has its own time

    async def start(self) -> None:
        """Answer this connection's requests, one after the other."""
        answer, messages = self._listener.handle(self), self._messages
        message: RawRequestMessage | _ErrInfo
        payload: Payload
        try:
            while not self._force_close:
                if not messages:
                    self._waiter = self._loop.create_future()
                    await self._waiter
                    self._waiter = None
                whole = self._whole
                if whole is not None:
                    self._whole = None
                    message, payload = whole.message, whole
                else:
                    message, payload = await self._queued()
                    if isinstance(message, _ErrInfo) or is_doubtful(message):
                        self._refuse(message)
                        await self._take_leave()
                        break
                    self.body = None if payload.is_eof() else payload
                keep = await answer(message, payload)
                self.body = None
                if whole is None and not payload.is_eof() and not (keep and await self._take_in(payload)):
                    await self._linger(payload)
                    break
                if not keep or self._close or (message.upgrade and not self.reads_on(message)):
                    break
                if self.lags and not await self._catch_up():
                    break
                del whole, message, payload  # who waits for the next request keeps no body
                # Closed when it has lain idle for the keep-alive time. The timer looks when it was last used: it is rarely made.
                self._next_keepalive_close_time = close_time = self._loop.time() + self._keepalive_timeout
                if self._keepalive_handle is None:
                    self._keepalive_handle = self._loop.call_at(close_time, self._process_keepalive)
        except ConnectionError:
            pass
        finally:
            self._task_handler = None
            self._close_transport()

    def _refuse(self, message: RawRequestMessage | _ErrInfo) -> None:
        if not isinstance(message, _ErrInfo):
            self.origin = message.headers.get("Origin")
        self._listener.refuse(self, status_of(message))

    async def _queued(self) -> tuple[RawRequestMessage | _ErrInfo, StreamReader]:
        """The first of the requests that have come. Who asks for much at once lets others go in between."""
        found = self._messages.popleft()
        self._made_room()
        if self._messages:
            await asyncio.sleep(0)
        return found

    def _made_room(self) -> None:
        """A request has left the queue of pipelined ones: the parser may go on where it had stopped."""
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()

    async def _catch_up(self) -> bool:
        """Wait until the client has read: what it only asks for would fill memory. Says whether it may go on. Raises ConnectionError."""
        try:
            await taken(self)
        except TimeoutError:
            self.abort_body()
            raise ConnectionError(_UNREAD) from None
        return self._is_awaited()

    def _is_awaited(self) -> bool:
        """Whether this connection goes on: once the gateway takes no more requests, only while some have come."""
        return bool(self._messages) or not self._listener.is_draining

    def leaves_rest(self) -> bool:
        """Whether more of the running request's body is to come than is taken in where nobody reads it: then the connection closes."""
        return self.body is not None and not self.body.is_eof() and not 0 < self._missing <= _SMALL

    async def _take_in(self, payload: Payload) -> bool:
        """The rest of a body that nobody reads, where it is small; says whether the connection goes on."""
        return await self._listener.take_in(payload) and self._is_awaited()

    async def _linger(self, payload: Payload) -> None:
        """Closing while the client still sends would reset the connection, and take the answer with it."""
        if payload.exception() is None:
            self._say_no_more()
            await self._listener.take_in(payload)
        if payload.exception() is not None:
            await self._take_leave()

    async def _take_leave(self) -> None:
        """The same after bytes that are no HTTP: nothing is read out of what still comes, until the client closes."""
        self._close = True
        self._say_no_more()
        await asyncio.sleep(PAUSE)  # ends early: a connection that is lost cancels its task

    def retire(self) -> None:
        """Take no further request. One that is on its way is answered; where none has begun, the client has a moment to send it."""
        if self._waiter is None or self._waiter.done() or self.transport is None:
            return
        if self._header_handle is None:
            self._close_transport()
        elif self._request_count == 0:
            self._stop_waiting()
            self._header_handle = self._loop.call_later(min(_LAST_MOMENT, self._header_timeout), self._head_is_late)

    def leave_soon(self) -> None:
        """Close in a moment, unless the client begins another request.

        What it has read said nothing of a close, so it may be sending one just now: it would be lost, though the client did all right.
        """
        self._loop.call_later(_MOMENT, self._leave, self._request_count - len(self._messages))

    def _leave(self, begun: int) -> None:
        is_idle = self._waiter is not None and not self._waiter.done() and self._header_handle is None
        if is_idle and self._request_count - len(self._messages) == begun:
            self._close_transport()

    def cancel(self) -> None:
        """Cancel the task that answers the running request."""
        if self._task_handler is not None:
            self._task_handler.cancel()

    @property
    def is_secure(self) -> bool:
        return self.transport is not None and self.transport.get_extra_info("sslcontext") is not None
