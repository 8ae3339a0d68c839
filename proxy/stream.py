"""Answers while they arrive: watched for stillness, read under a cap, or handed on piece by piece."""

from __future__ import annotations

from asyncio import TimerHandle, get_running_loop
from collections.abc import AsyncIterator, Callable

from proxy.core.call import Call, Timeouts
from proxy.core.errors import StreamError, UpstreamError
from proxy.core.protocols import Clock, StreamDecoder, UpstreamResponse


class Watch:
    """Fails an answer that stands still, or that goes on for too long.

    One timer for an attempt, which looks when it last moved: progress costs a clock reading, not a timer.
    """

    __slots__ = ("_clock", "_end", "_idle", "_last", "_patience", "_response", "_timer")

    def __init__(self, clock: Clock, response: UpstreamResponse, timeouts: Timeouts, started: float) -> None:
        self._clock = clock
        self._response = response
        self._last = started
        self._idle = timeouts.idle
        self._patience = timeouts.first_token
        self._end = None if timeouts.total is None else started + timeouts.total
        self._timer: TimerHandle | None = None
        self._arm()

    def progress(self) -> float:
        """Say that it moved; returns the time of it."""
        self._last = now = self._clock.monotonic()
        return now

    def began(self) -> float:
        """Say that content has begun: from now on silence is measured by `idle`."""
        self._patience = self._idle
        now = self.progress()
        self._arm()
        return now

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self.stop()
        due = self._due()
        if due is not None:
            self._timer = get_running_loop().call_later(max(0.0, due - self._clock.monotonic()), self._look)

    def _due(self) -> float | None:
        still = None if self._patience is None else self._last + self._patience
        if still is None or self._end is None:
            return still if self._end is None else self._end
        return min(still, self._end)

    def _look(self) -> None:
        due = self._due()
        if due is not None and self._clock.monotonic() >= due:
            self._timer = None
            self._response.fail(UpstreamError("upstream_timeout", "The provider did not answer in time."))
        else:
            self._arm()


async def read_whole(response: UpstreamResponse, limit: int, watch: Watch) -> bytes:
    """A body of at most `limit` bytes. Raises UpstreamError."""
    body = await read_some(response, limit + 1, watch)
    if len(body) > limit:
        raise UpstreamError("response_too_large", "The provider's answer is larger than the limit.")
    return body


async def read_some(response: UpstreamResponse, limit: int, watch: Watch) -> bytes:
    """A body as far as `limit` bytes, the rest unread."""
    first = await response.receive()
    if not first:
        return first
    watch.began()
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


async def relayed(response: UpstreamResponse, watch: Watch) -> AsyncIterator[bytes]:
    """A body as it comes. Raises StreamError when it breaks off."""
    try:
        data = await response.receive()
        watch.began()
        while data:
            yield data
            data = await response.receive()
            watch.progress()
    except UpstreamError as error:
        raise broken(error) from error


class EventStream:
    """A provider's events on their way to the client, whole ones at a time; the first of them are in hand already."""

    __slots__ = ("_begun", "_call", "_decoder", "_ended", "_failed", "_response", "_watch")

    def __init__(self, call: Call, response: UpstreamResponse, decoder: StreamDecoder, watch: Watch, begun: bytes) -> None:
        self._call = call
        self._response = response
        self._decoder = decoder
        self._watch = watch
        self._begun = begun
        self._ended = decoder.done
        self._failed: Callable[[UpstreamError], None] | None = None

    def on_failure(self, failed: Callable[[UpstreamError], None]) -> None:
        self._failed = failed

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> bytes:
        if self._begun:
            begun, self._begun = self._begun, b""
            return begun
        decoder = self._decoder
        while not self._ended:
            if decoder.failure is not None:
                raise self._broken(decoder.failure)
            try:
                data = await self._response.receive()
            except UpstreamError as error:
                raise self._broken(error) from error
            events = decoder.feed(data) if data else decoder.eof()
            if decoder.tokens != self._call.tokens_seen:
                self._call.tokens_seen = decoder.tokens
                self._call.last_token = self._watch.progress()
            self._ended = decoder.done or (not data and decoder.failure is None)
            if events:
                return events
        raise StopAsyncIteration

    def _broken(self, error: UpstreamError) -> StreamError:
        self._ended = True
        failure = broken(error)
        if self._failed is not None:
            self._failed(failure)
        return failure

    def close(self, _error: BaseException | None) -> None:
        self._watch.stop()
        call, decoder = self._call, self._decoder
        call.usage = decoder.usage or call.estimated_usage()
        self._response.close()


def broken(error: UpstreamError) -> StreamError:
    """The same failure, after content had gone out: a lost connection is then an interrupted stream."""
    kind = "stream_interrupted" if error.kind in ("reset", "bad_upstream", "invalid_response") else error.kind
    code = None if error.code in (None, error.kind) else error.code
    return StreamError(
        kind,
        error.message,
        status=error.status if kind == error.kind else None,
        type=error.type,
        code=code,
        param=error.param,
        detail=error.detail,
    )
