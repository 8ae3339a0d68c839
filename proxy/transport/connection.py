"""One connection to a provider: HTTP/1.1 by httptools' parser (llhttp), one exchange at a time.

What is in doubt is never used again: bytes that nobody asked for, a broken head, a body that was not read to its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import httptools

from proxy.coding import Decoder, decoder_for
from proxy.core.errors import UpstreamError
from proxy.transport.framing import CHUNK_LINES, NAMES, Refused, spelt

#: A body of which more than this lies unread stops the reading, so that a slow client slows the provider down.
HIGH_WATER = 256 * 1024

_LOST = "The connection to the provider was lost."
_NOT_HTTP = "The provider's answer is not valid HTTP."
_HEAD_TOO_LARGE = "The provider's headers are larger than the limit."
_FRAMING_TOO_LARGE = "What the provider sent around its answer's body is larger than the limit for headers."


class Connection(asyncio.Protocol):
    """A connection, and the answer that it is carrying; see `proxy.core.protocols.UpstreamResponse`.

    `released` is called with it when an exchange is over and the connection is fit for the next, `lost` when it has gone.
    """

    __slots__ = (
        "_bare",
        "_between_chunks",
        "_body_limit",
        "_complete",
        "_decoder",
        "_error",
        "_fresh_bytes",
        "_head_done",
        "_head_size",
        "_header_limit",
        "_header_size",
        "_loop",
        "_lost",
        "_parser",
        "_parts",
        "_paused",
        "_released",
        "_size",
        "_take_piece",
        "_transport",
        "_until_close",
        "_waiter",
        "_writable",
        "busy",
        "closed",
        "draining",
        "due",
        "headers",
        "idle_since",
        "keep_alive",
        "served",
        "status",
    )

    def __init__(
        self,
        released: Callable[[Connection], None],
        lost: Callable[[Connection], None],
        *,
        header_limit: int,
        body_limit: int,
    ) -> None:
        self._released = released
        self._lost = lost
        self._header_limit = header_limit
        self._body_limit = body_limit
        self._transport: asyncio.Transport | None = None
        self._writable: asyncio.Future[None] | None = None
        self.closed = False
        self.busy = False
        self.draining = False
        self.served = 0
        self.idle_since = 0.0
        self.due = float("inf")
        self._parser = httptools.HttpResponseParser(self)
        self._reset()

    def _reset(self) -> None:
        self._waiter: asyncio.Future[None] | None = None
        self._error: UpstreamError | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._take_piece: Callable[[bytes], bool] | None = None
        self._paused = False
        self._decoder: Decoder | None = None
        self._head_done = False
        self._head_size = 0
        self._header_size = 0
        self._bare = -1
        self._between_chunks = False
        self._fresh_bytes = False
        self._complete = False
        self._until_close = False
        self.keep_alive = False
        self.status = 0
        self.headers: dict[str, str] = {}

    # -- the exchange, from the pool's and the dispatch's side --

    @property
    def is_usable(self) -> bool:
        return not self.closed and not self.busy

    @property
    def is_untouched(self) -> bool:
        """Whether not one byte of an answer has come: the provider may have closed the connection while it lay idle."""
        return not self._fresh_bytes

    def begin(self, data: bytes) -> asyncio.Future[None]:
        """Send a request's head, and its body if that is whole. The future is done with the answer's head, or its failure: `check`."""
        if self.served:
            self._reset()
        self.busy = True
        self.served += 1
        transport = self._transport
        if transport is None:
            raise UpstreamError("reset", _LOST)
        self._waiter = waiter = self._loop.create_future()
        transport.write(data)
        return waiter

    def check(self) -> None:
        """Raise what went wrong before the head was there."""
        if self._error is not None and not self._head_done:
            raise self._error
        coding = self.headers.get("content-encoding")
        if coding is not None:
            self._decoder = decoder_for(coding, self._body_limit)

    async def write(self, data: bytes) -> None:
        """Send a piece of the request's body, at the provider's pace. Raises UpstreamError."""
        if self.closed or self._transport is None:
            raise self._error or UpstreamError("reset", _LOST)
        self._transport.write(data)
        if self._writable is not None:
            await self._writable

    def ready(self) -> bytes | None:
        return self._take() if self._complete and self._decoder is None else None

    async def receive(self) -> bytes:
        while True:
            if self._parts:
                data = self._take()
                if self._decoder is None:
                    return data
                data = self._decoder.feed(data)
                if data:
                    return data
                continue
            if self._error is not None:
                raise self._error
            if self._complete:
                if self._decoder is not None:
                    self._decoder.eof()
                return b""
            await self._wait()

    def _take(self) -> bytes:
        parts = self._parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._size = 0
        if self._paused:
            self._paused = False
            if self._transport is not None and not self.closed:
                self._transport.resume_reading()
        return data

    def attach(self, take: Callable[[bytes], bool]) -> Awaitable[None] | None:
        if self._decoder is not None or self._parts or self._complete or self._error is not None:
            return None
        return self._attached(take)

    async def _attached(self, take: Callable[[bytes], bool]) -> None:
        self._take_piece = take
        try:
            await self._wait()
        finally:
            self._take_piece = None

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def fail(self, error: UpstreamError) -> None:
        if self._error is None:
            self._error = error
        self.abort()
        self._wake()

    def expire(self) -> None:
        """The pool's sweeper found it late: for its head, or for the end of an answer that nobody reads any more."""
        self.fail(UpstreamError("upstream_timeout", "The provider did not answer in time."))

    def close(self, *, reuse: bool = False) -> None:
        if not self.busy:
            return
        if reuse and self._complete and self._error is None and self.keep_alive and not self._parts and not self.closed:
            self.busy = self.draining = False
            self._released(self)
        elif reuse and self._head_done and not self._complete and self._error is None and self.keep_alive and not self.closed:
            # All that matters has been read: what is left is the end of the body, which is on its way.
            self.draining = True
            self._released(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Close at once. Nothing is sent any more, nothing read."""
        self.busy = self.draining = False
        if not self.closed:
            self.closed = True
            if self._transport is not None:
                self._transport.abort()
            self._lost(self)

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # -- asyncio.Protocol --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        if not self.busy:
            # Bytes that nobody asked for: whatever they are, they must not become the next answer.
            self.abort()
            return
        take = self._take_piece
        if take is not None and self._between_chunks:
            line = CHUNK_LINES.get(len(data))
            if line is not None and data.startswith(line) and data.endswith(b"\r\n"):
                # One whole chunk, and the parser stands between two: it need not see it.
                if not take(data[len(line) : -2]):
                    self._take_piece = None
                    self._wake()
                return
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        self._fresh_bytes = True
        size = self._size
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail_parsing(error)
            return
        if self._between_chunks and not data.endswith(b"\r\n"):
            self._between_chunks = False  # the first bytes of a chunk's line were among them: the parser tells of it at its end
        if self._size > HIGH_WATER and not self._paused and not self._complete and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        if self.draining:
            self._drain(len(data))
        elif (take := self._take_piece) is not None and self._parts:
            self._bare = 0
            if not take(self._take()) or self._complete:
                self._take_piece = None
                self._wake()
        elif not self._head_done:
            self._head_size += len(data)
            if self._head_size > self._header_limit:
                self.fail(UpstreamError("response_too_large", _HEAD_TOO_LARGE))
        elif self._size != size:
            self._bare = 0
            self._wake()
        else:
            self._count_bare(len(data))
            self._wake()

    def _count_bare(self, size: int) -> None:
        """Bytes that brought nothing of a body: the parser keeps a trailer until its end, and chunks may have extensions without one.

        They count from the last piece of the body on; the read that ended the head does not.
        """
        self._bare = 0 if self._bare < 0 else self._bare + size
        if self._bare > self._header_limit and not self._complete:
            self.fail(UpstreamError("response_too_large", _FRAMING_TOO_LARGE))

    def _drain(self, size: int) -> None:
        if self._parts:
            self._bare = 0
        else:
            self._count_bare(size)
        self._parts.clear()
        self._size = 0
        if self._complete:
            self.close(reuse=True)

    def _fail_parsing(self, error: Exception) -> None:
        if self._complete:
            # The answer is whole; what follows it is nobody's. It is delivered, and the connection is not used again.
            self.keep_alive = False
            if self.draining:
                self.abort()
            self._wake()
        elif isinstance(error.__context__, Refused):
            self.fail(error.__context__.reason)
        else:
            self.fail(UpstreamError("bad_upstream", _NOT_HTTP, detail=str(error)[:200]))

    def eof_received(self) -> None:
        """The transport closes itself, and `connection_lost` follows."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        if self.busy and not self._complete and self._error is None:
            if self._head_done and self._until_close and exc is None:
                self._complete = True
                self.keep_alive = False
            else:
                half_a_head = self._fresh_bytes and not self._head_done
                self._error = UpstreamError("bad_upstream", _NOT_HTTP) if half_a_head else UpstreamError("reset", _LOST)
        if not self.closed:
            self.closed = True
            self._lost(self)
        self._wake()

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # -- httptools' callbacks --

    def on_message_begin(self) -> None:
        if self._complete:
            raise Refused(UpstreamError("bad_upstream", "The provider sent more than one answer."))
        self._header_size = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_done:
            return
        key = NAMES.get(name) or spelt(name)
        text = value.decode("latin-1")
        headers = self.headers
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
        self._header_size += len(name) + len(value)
        if self._header_size > self._header_limit:
            raise Refused(UpstreamError("response_too_large", _HEAD_TOO_LARGE))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            if status < 100:
                raise Refused(UpstreamError("bad_upstream", _NOT_HTTP))
            self.headers = {}
            return
        headers = self.headers
        self.status = status
        self._head_done = True
        self.keep_alive = self._parser.should_keep_alive()
        self._until_close = "content-length" not in headers and "transfer-encoding" not in headers

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)
        self._size += len(body)

    def on_chunk_header(self) -> None:
        self._between_chunks = False

    def on_chunk_complete(self) -> None:
        self._between_chunks = True

    def on_message_complete(self) -> None:
        self._between_chunks = False
        if self._head_done:
            self._complete = True
            if "transfer-encoding" in self.headers and not self._parser.should_keep_alive():
                self.keep_alive = False  # a trailer said so, and the parser reads no further
