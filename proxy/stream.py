"""Answers while they arrive: read under a cap, or handed on piece by piece."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy as copied
from functools import partial

from proxy.core.call import Call
from proxy.core.errors import ClientDisconnected, GatewayError, StreamError, UpstreamError
from proxy.core.protocols import Sink, StreamDecoder, UpstreamResponse
from proxy.core.reply import Reply
from proxy.core.unpaid import READ
from proxy.pace import Pace
from proxy.short_cut import short_cut
from proxy.watch import Watch

TOO_LARGE = "The provider's answer is larger than the limit."

#: Operations whose streams bring contents in events that are all of one kind, many of them empty: there, contents alone are progress. In
#: all others each event says what it is, and is progress (`response.in_progress`, a partial image): the next one may take minutes.
_OF_CONTENTS = frozenset({"chat", "completion"})


async def read_whole(response: UpstreamResponse, limit: int, watch: Watch) -> bytes:
    """A body of at most `limit` bytes. Raises UpstreamError."""
    body = await read_some(response, limit + 1, watch)
    if len(body) > limit:
        raise UpstreamError("response_too_large", TOO_LARGE)
    return body


async def read_some(response: UpstreamResponse, limit: int, watch: Watch) -> bytes:
    """A body as far as `limit` bytes, the rest unread."""
    first = await response.receive()
    if not first:
        return first
    watch.progress()
    parts = [first]
    size = len(first)
    while size < limit:
        data = await response.receive()
        if not data:
            break
        watch.progress()
        parts.append(data)
        size += len(data)
    return b"".join(parts)[:limit] if len(parts) > 1 or size > limit else first


async def read_begun(call: Call, response: UpstreamResponse, decoder: StreamDecoder, limit: int, watch: Watch) -> bytes:
    """A stream's events as far as its first content. Raises UpstreamError for one that fails before it, with the usage it had reported."""
    begun: list[bytes] = []
    left = limit
    by_event = call.operation not in _OF_CONTENTS
    try:
        while not (decoder.started or decoder.done):
            data = await response.receive()
            events = decoder.feed(data) if data else decoder.eof()
            begun.append(events)
            left -= len(events)
            if decoder.failure is not None and not decoder.started:
                raise decoder.failure
            if left < 0 and not decoder.started:
                raise UpstreamError("response_too_large", TOO_LARGE)
            if events and by_event:
                watch.opening()
            else:
                watch.heard()
            if not data:
                break
    except UpstreamError as error:
        error.usage = decoder.usage
        raise
    return b"".join(begun)


class EventStream:
    """A provider's events on their way to the client, whole ones at a time; the first of them are in hand already."""

    __slots__ = (
        "_begun",
        "_by_event",
        "_call",
        "_counted",
        "_decoder",
        "_ended",
        "_failed",
        "_left",
        "_pace",
        "_response",
        "_sink",
        "_watch",
    )

    def __init__(self, call: Call, response: UpstreamResponse, decoder: StreamDecoder, watch: Watch, begun: bytes) -> None:
        self._call = call
        self._response = response
        self._decoder = decoder
        self._watch = watch
        self._begun = begun
        self._by_event = call.operation not in _OF_CONTENTS
        self._ended = decoder.done
        self._sink: Sink
        self._left: ClientDisconnected | None = None
        self._failed: Callable[[UpstreamError], None] | None = None
        self._counted: Callable[[str], None] | None = None
        self._pace: Pace | None = None

    def report(self, failed: Callable[[UpstreamError], None], counted: Callable[[str], None]) -> None:
        """Who is told when the stream breaks, and who counts what was mended on the way."""
        self._failed = failed
        self._counted = counted

    def hold_to(self, pace: Pace) -> None:
        """The provider must keep this pace."""
        self._pace = pace

    def serve(self, call: Call) -> None:
        """What is told of the stream's progress and of its usage goes to `call` from now on."""
        call.tokens_seen, call.first_token, call.last_token = self._call.tokens_seen, self._call.first_token, self._call.last_token
        self._call = call

    def __aiter__(self) -> EventStream:
        return self

    def take_begun(self) -> bytes:
        """The first events, if nobody has had them."""
        begun, self._begun = self._begun, b""
        return begun

    async def __anext__(self) -> bytes:
        if self._begun:
            return self.take_begun()
        while not self._ended:
            events = await self._next()
            if events:
                return events
        raise StopAsyncIteration

    async def _next(self) -> bytes:
        """The events of the next bytes, if these completed any; none once the stream has ended."""
        decoder, watch = self._decoder, self._watch
        if self._ended:
            return b""
        if decoder.failure is not None:
            raise self._broken(decoder.failure)
        try:
            data = await self._response.receive()
        except UpstreamError as error:
            raise self._broken(error) from error
        seen = decoder.tokens
        events = decoder.feed(data) if data else decoder.eof()
        if decoder.tokens != seen:
            self._call.tokens_seen = decoder.tokens
            self._call.last_token = watch.progress()
        elif events and self._by_event:
            watch.progress()
        else:
            watch.heard()
        self._ended = decoder.done or (not data and decoder.failure is None)
        return events

    async def pipe(self, sink: Sink) -> None:
        """Write what iterating would yield. Plain pieces go from the provider's read to the client's write, with no task in between."""
        self._sink = sink
        is_known = sink.outlet is not None and hasattr(self._decoder, "frame")
        shortened = partial(short_cut, self._decoder, self._call, self._watch, sink) if is_known else None
        if self._begun:
            sink.piece(self.take_begun())
        while not self._ended:
            if sink.is_full:
                await self._drain(sink)
            attached = self._response.attach(self._pass, shortened) if self._decoder.failure is None else None
            if attached is not None:
                await attached
                if self._left is not None:
                    raise self._left
                if sink.is_full:
                    continue
            events = await self._next()
            if events:
                sink.piece(events)

    async def _drain(self, sink: Sink) -> None:
        """Wait for the client. That is not the provider's time."""
        self._watch.pause()
        if self._pace is not None:
            self._pace.stop()
        await sink.drain()
        self._watch.progress()
        if self._pace is not None:
            self._pace.resume()

    def _pass(self, data: bytes) -> bool:
        decoder, call = self._decoder, self._call
        seen = decoder.tokens
        events = decoder.feed(data)
        tokens = decoder.tokens
        if tokens != seen:
            call.tokens_seen = tokens
            call.last_token = self._watch.last = self._watch.monotonic()
        elif events and self._by_event:
            self._watch.progress()
        else:
            self._watch.heard()
        try:
            has_room = not events or self._sink.piece(events)
        except ClientDisconnected as error:
            self._left = error.with_traceback(None)  # whose frames know this stream
            self._ended = True
            return False
        if decoder.done:
            self._ended = True
            return False
        return has_room and decoder.failure is None

    @property
    def following(self) -> int:
        """The number that an event of the gateway's own would have, where they are numbered; else 0."""
        return getattr(self._decoder, "following", 0)

    @property
    def made(self) -> str | None:
        """The id of what the stream is about, where it has one of its own, and has told it."""
        return getattr(self._decoder, "made", None)

    def _broken(self, error: UpstreamError) -> StreamError:
        self._ended = True
        self._call.tokens_seen = self._decoder.tokens  # what is told of the failure estimates by it
        failure = broken(error)
        failure.sequence_number = self.following
        if self._failed is not None:
            self._failed(failure)
        return failure

    def close(self, error: BaseException | None) -> None:
        self._watch.stop()
        if self._pace is not None:
            self._pace.stop()
        call, decoder = self._call, self._decoder
        if decoder.mended and self._counted is not None:
            self._counted("missing_done")
        call.tokens_seen = decoder.tokens
        # What is read again was charged when it was made, or is now.
        again = call.method == "GET"
        call.usage = (decoder.usage if READ in call.notes else None) if again else call.accounted(decoder.usage)
        self._response.close(reuse=error is None and self._ended)


def numbered(error: GatewayError, reply: Reply | None) -> GatewayError:
    """`error`, which may be that of many, with the number of its event at the end of this reply's stream."""
    number = reply.stream.following if reply is not None and isinstance(reply.stream, EventStream) else 0
    if number:
        error = copied(error)
        error.sequence_number = number
    return error


def broken(error: UpstreamError) -> StreamError:
    """The same failure, after content had gone out: a lost connection is then an interrupted stream."""
    kind = "stream_interrupted" if error.kind in ("reset", "bad_upstream", "invalid_response") else error.kind
    code = error.code if kind == error.kind else None
    failure = StreamError(
        kind,
        error.message,
        status=error.status if kind == error.kind else None,
        type=error.type,
        code=code,
        param=error.param,
        detail=error.detail,
    )
    failure.bound = error.bound
    failure.is_impatience = error.is_impatience
    failure.fault = error.fault
    failure.event, failure.more = error.event, error.more
    return failure
