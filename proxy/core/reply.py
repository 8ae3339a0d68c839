"""The answer to a `Call`, on its way back up through the policies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

from proxy.core.sse import is_event_type

#: The header of an answer, or of an error, that has the provider's own name of the request: `x-request-id` is ours.
PROVIDER_REQUEST_ID = "x-comporta-provider-request-id"

#: Called exactly once when the reply is over: None if it was delivered whole, else what ended it.
Closer: TypeAlias = Callable[[BaseException | None], None]


class Reply:
    """Status, headers, and either `body` or `stream`.

    `stream` yields bytes that are ready to be written. Of an event stream each item holds one or more whole events, ended by a blank line.
    A streaming reply exists only once its first content is in hand, so whoever awaits it may still retry or fall back.

    Whoever takes a reply must `close` it, on every way out; closing runs what policies and the transport registered by
    `on_close`, once, without awaiting anything, so that no cancellation can come between.
    """

    _error: BaseException | None

    __slots__ = ("_closers", "_error", "body", "closed", "headers", "status", "stream")

    def __init__(
        self,
        status: int = 200,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        stream: AsyncIterator[bytes] | None = None,
    ) -> None:
        self.status = status
        self.headers = {} if headers is None else headers
        self.body = body
        self.stream = stream
        self.closed = False
        self._closers: tuple[Closer, ...] = ()

    @property
    def is_event_stream(self) -> bool:
        return self.stream is not None and is_event_type(self.headers.get("content-type", ""))

    def on_close(self, closer: Closer) -> None:
        """Have `closer` called when the reply is over; at once if it already is."""
        if self.closed:
            closer(self._error)
        else:
            self._closers += (closer,)

    def close(self, error: BaseException | None = None) -> None:
        """Release everything the reply holds, innermost first. Idempotent."""
        if self.closed:
            return
        self.closed = True
        self._error = error
        if self._closers:
            for closer in self._closers:
                closer(error)
            self._closers = ()
