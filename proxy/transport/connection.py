"""One connection to a provider: HTTP/1.1 by httptools' parser (llhttp), one exchange at a time.

What comes as nearly all servers send it is not shown to the parser: a plain head, a body of known length in one read, whole chunks.
What is in doubt is never used again: bytes that nobody asked for, a broken head, a body that was not read to its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import httptools

from proxy.core.errors import START, UpstreamError, late
from proxy.core.protocols import ShortCut
from proxy.core.recast import NO_CHUNK, chunk_of
from proxy.outbox import Outbox
from proxy.transport.answer import ASKED, BEGUN, FRAMING_TOO_LARGE, HEAD, LOST, NOT_HTTP, WHOLE, Answer
from proxy.transport.framing import IN_CHUNKS, LINE_END, OF_LENGTH, TAIL, Refused, read_chunks
from proxy.transport.sending import has_left
from proxy.transport.shortened import shortened

#: A body of which more than this lies unread stops the reading, so that a slow client slows the provider down.
HIGH_WATER = 256 * 1024

#: A request of more than this may not have left the process when its answer comes, in bytes.
_LARGE = 16 * 1024


class Connection(Answer, asyncio.Protocol):
    """A connection, and the answer that it is carrying; see `proxy.core.protocols.UpstreamResponse`.

    `released` is called with it when an exchange is over and the connection is fit for the next, `lost` when it has gone. `outbox`:
    what requests go out by, beside those of other connections; alone where there is none.
    """

    __slots__ = (
        "_loop",
        "_lost",
        "_outbox",
        "_outgoing",
        "_released",
        "_take_piece",
        "_transport",
        "_waiter",
        "_writable",
        "busy",
        "closed",
        "draining",
        "due",
        "idle_since",
        "served",
    )

    def __init__(
        self,
        released: Callable[[Connection], None],
        lost: Callable[[Connection], None],
        *,
        header_limit: int,
        body_limit: int,
        outbox: Outbox | None = None,
    ) -> None:
        super().__init__(header_limit, body_limit)
        self._released = released
        self._lost = lost
        self._outbox = outbox
        self._outgoing = 0  # bytes of the request
        self._transport: asyncio.Transport | None = None
        self._writable: asyncio.Future[None] | None = None
        self.closed = self.busy = self.draining = False
        self.served = 0
        self.idle_since = 0.0
        self.due = float("inf")
        self._waiter: asyncio.Future[None] | None = None
        self._take_piece: Callable[[bytes], bool] | None = None

    # -- the exchange, from the pool's and the dispatch's side --

    @property
    def is_usable(self) -> bool:
        return not self.closed and not self.busy

    @property
    def descriptor(self) -> int:
        """Its socket's; negative where it has none."""
        found = None if self._transport is None else self._transport.get_extra_info("socket")
        return -1 if found is None else found.fileno()

    def begin(self, data: bytes) -> asyncio.Future[None]:
        """Send a request's head, and its body if that is whole. The future is done with the answer's head, or its failure: `check`."""
        # What the last exchange left is clean or comes anew: it was whole, without an error, and nothing of it lies unread (`close`).
        self.stage = ASKED
        self._take_piece = None
        self.busy = True
        self.served += 1
        transport = self._transport
        if transport is None:
            raise UpstreamError("reset", LOST)
        self._waiter = waiter = self._loop.create_future()
        self._outgoing = len(data)
        if self._outbox is None:
            transport.write(data)
        else:
            self._outbox.send(transport, data)
        return waiter

    def check(self) -> None:
        """Raise what went wrong before the head was there, if `stage` is less than `HEAD`."""
        if self.stage < HEAD:
            raise self._error or UpstreamError("reset", LOST)

    async def write(self, data: bytes) -> None:
        """Send a piece of the request's body, at the provider's pace. Raises UpstreamError."""
        if self.closed or self._transport is None:
            raise self._error or UpstreamError("reset", LOST)
        if self._outbox is not None:
            self._outbox.flush()
        self._outgoing += len(data)
        self._transport.write(data)
        if self._writable is not None:
            await self._writable

    def ready(self) -> bytes | None:
        return self._take() if self.stage == WHOLE and self._decoder is None else None

    async def receive(self) -> bytes:
        while True:
            if self._parts:
                data = self._take()
                if self._decoder is not None:
                    data = self._decoder.feed(data)
                if data:
                    return data
                continue
            if self._error is not None:
                raise self._error
            if self.stage == WHOLE:
                if self._decoder is not None:
                    self._decoder.eof()
                return b""
            self._waiter = waiter = self._loop.create_future()
            await waiter

    def _take(self) -> bytes:
        parts = self._parts
        if len(parts) == 1:
            data = parts.pop()
        else:
            data = b"".join(parts)
            parts.clear()
        self._size = 0
        if self._paused:
            self._paused = False
            if self._transport is not None and not self.closed:
                self._transport.resume_reading()
        return data

    def attach(self, take: Callable[[bytes], bool], short_cut: ShortCut | None = None) -> Awaitable[None] | None:
        if self._decoder is not None or self._parts or self.stage == WHOLE or self._error is not None:
            return None
        return self._attached(take, short_cut)

    async def _attached(self, take: Callable[[bytes], bool], short_cut: ShortCut | None) -> None:
        self._take_piece, transport = take, self._transport
        self._waiter = waiter = self._loop.create_future()
        if transport is not None and short_cut is not None:
            transport.set_protocol(shortened(self, short_cut(self._hand_on, self._detach)))
        try:
            await waiter
        finally:
            self._take_piece = None
            if transport is not None and short_cut is not None and not transport.is_closing():
                transport.set_protocol(self)

    def _hand_on(self, data: bytes) -> bool:
        self.data_received(data)
        return self._between_chunks and self._take_piece is not None

    def fail(self, error: UpstreamError) -> None:
        if self._error is None:
            self._error = error
        self.abort()
        self._wake()

    def expire(self) -> None:
        """The pool's sweeper found it late: for its head, or for the end of an answer that nobody reads any more."""
        self.fail(late(START))

    def close(self, *, reuse: bool = False) -> None:
        if not self.busy:
            return
        # A failure has closed the connection; see `fail` and `connection_lost`.
        fit = reuse and self.keep_alive and not self.closed and (self._outgoing <= _LARGE or has_left(self._transport, self.status))
        if fit and self.stage == WHOLE and not self._parts:
            self.busy = self.draining = False
            self._released(self)
        elif fit and self.stage == HEAD:
            # All that matters has been read: what is left is the end of the body, which is on its way.
            self.draining = True
            self._released(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Close at once. Nothing is sent any more, nothing read."""
        self.busy = self.draining = self._between_chunks = False
        if not self.closed:
            self.closed = True
            if self._transport is not None:
                self._transport.abort()
            self._lost(self)

    def _detach(self) -> None:
        self._take_piece = None
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # -- asyncio.Protocol --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        if self._between_chunks:
            # The parser stands between two chunks, or has seen nothing of this answer: it need not see whole ones.
            has_room = self._take_chunks(data)
            if has_room is not None:
                if not has_room:
                    self._detach()
                return
        if not self.busy:
            # Bytes that nobody asked for: whatever they are, they must not become the next answer.
            self.abort()
        elif self.stage == ASKED:
            self._begun(data)
        elif self._unshown and len(data) == self._length:
            self._end(data)
        else:
            self._parse(data)

    def _begun(self, data: bytes) -> None:
        """The first bytes of an answer. The parser stands where a message begins: all before was whole, or was not shown to it."""
        body = self._read_head(data)
        if body is None:
            self._bare = -1
            self._parse(data)
        elif self._length == len(body):
            self.stage = WHOLE
            if body:
                self._parts.append(body)
            self._wake()
        else:
            self._between_chunks = self._length < 0
            self._unshown = IN_CHUNKS if self._between_chunks else OF_LENGTH % self._length
            self._bare = -1 if body else 0
            if body:
                self.data_received(body)
            else:
                self._wake()

    def _take_chunks(self, data: bytes) -> bool | None:
        """Take whole chunks, and the end if the parser has seen no beginning: whether there is room; None if `data` is anything else."""
        line, size = chunk_of(len(data), NO_CHUNK)
        piece = data.removeprefix(line).removesuffix(LINE_END)
        if len(piece) != size:
            found = read_chunks(data)
            if found is None or (found[1] and not self._unshown):
                return None
            piece, ended = found
            if ended:
                self._end(piece)
                return True
        take = self._take_piece
        if take is not None:
            return take(piece)
        self._keep(piece)
        return True

    def _keep(self, piece: bytes) -> None:
        """A piece of a body that nobody takes as it comes; not the last."""
        self._bare = 0
        if not self.draining:
            self._parts.append(piece)
            self._size += len(piece)
            self._hold_back()
            self._wake()

    def _end(self, piece: bytes) -> None:
        """The last piece of a body whose end the parser was not shown; it stands where it stood before the answer."""
        self.stage = WHOLE
        self._between_chunks = False
        self._unshown = b""
        if piece:
            self._parts.append(piece)
        take = self._take_piece
        if self.draining:
            self._drain(0)
            return
        if take is not None and piece:
            take(self._take())
        self._detach()

    def _hold_back(self) -> None:
        if self._size > HIGH_WATER and not self._paused and self.stage != WHOLE and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _parse(self, data: bytes) -> None:
        size = self._size
        arrived = len(data)
        if self._unshown:
            data, self._unshown = self._unshown + data, b""
        try:
            (self._show if self.stage < HEAD else self._parser.feed_data)(data)
        except (UpstreamError, httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail_parsing(error)
            return
        if self._between_chunks and data[TAIL] != LINE_END:
            self._between_chunks = False  # the first bytes of a chunk's line were among them: the parser tells of it at its end
        self._hold_back()
        if self.draining:
            self._drain(arrived)
        elif (take := self._take_piece) is not None and self._parts:
            self._bare = 0
            if not take(self._take()) or self.stage == WHOLE:
                self._detach()
        elif self._size != size:
            self._bare = 0
            self._wake()
        elif self.stage >= HEAD:
            self._count_bare(arrived)
            self._wake()

    def _count_bare(self, size: int) -> None:
        """Bytes that brought nothing of a body: the parser keeps a trailer until its end, and chunks may have extensions without one.

        They count from the last piece of the body on; the read that ended the head does not.
        """
        self._bare = 0 if self._bare < 0 else self._bare + size
        if self._bare > self._header_limit and self.stage != WHOLE:
            self.fail(UpstreamError("response_too_large", FRAMING_TOO_LARGE))

    def _drain(self, size: int) -> None:
        if self._parts:
            self._bare = 0
        else:
            self._count_bare(size)
        self._parts.clear()
        self._size = 0
        if self.stage == WHOLE:
            self.close(reuse=True)

    def _fail_parsing(self, error: Exception) -> None:
        if self.stage == WHOLE:
            # The answer is whole; what follows it is nobody's. It is delivered, and the connection is not used again.
            self.keep_alive = False
            if self.draining:
                self.abort()
            self._wake()
        elif isinstance(error, UpstreamError):
            self.fail(error)
        elif isinstance(error.__context__, Refused):
            self.fail(error.__context__.reason)
        else:
            self.fail(UpstreamError("bad_upstream", NOT_HTTP, detail=str(error)[:200]))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._outbox is not None and self._transport is not None:
            self._outbox.drop(self._transport)
        self._transport = None
        self.resume_writing()
        if self.busy and self.stage != WHOLE and self._error is None:
            if self.stage == HEAD and self._until_close and exc is None:
                self.stage = WHOLE
                self.keep_alive = False
            else:
                self._error = UpstreamError("bad_upstream", NOT_HTTP) if self.stage == BEGUN else UpstreamError("reset", LOST)
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
