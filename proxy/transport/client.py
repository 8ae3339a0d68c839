"""Bytes to and from providers over aiohttp's client. Its exceptions become ours here and nowhere else."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import aiohttp
from aiohttp import hdrs

from proxy.coding import Decoder, decoder_for
from proxy.core.call import Content, Timeouts
from proxy.core.errors import CONNECT, START, TOTAL, UpstreamError
from proxy.core.protocols import UNSENT, ShortCut, UpstreamRequest
from proxy.transport.addresses import PinnedResolver
from proxy.transport.connector import Connector
from proxy.transport.framing import is_chunked_at_most

REFUSES = "The provider does not accept connections."
NO_PLACE = "All of the gateway's connections to the provider are in use."

_CONNECTION_LOST = "The connection to the provider was lost."
_NOT_HTTP = "The provider's answer is not valid HTTP."

#: aiohttp's exception -> kind and message; the first match in this order counts. A test holds every class of aiohttp's against it.
TRANSLATIONS: tuple[tuple[type[BaseException], str, str], ...] = (
    (aiohttp.ClientConnectorDNSError, "dns", "The provider's host name cannot be resolved."),
    (aiohttp.ClientConnectorCertificateError, "tls", "The provider's certificate is not valid."),
    (aiohttp.ClientConnectorSSLError, "tls", "A TLS connection to the provider cannot be made."),
    (aiohttp.ServerFingerprintMismatch, "tls", "The provider's certificate is not the pinned one."),
    (ssl.SSLError, "tls", "A TLS connection to the provider cannot be made."),
    (aiohttp.ConnectionTimeoutError, "connect_timeout", "The provider did not accept a connection in time."),
    (aiohttp.ClientConnectorError, "connect_failed", REFUSES),
    (aiohttp.ServerTimeoutError, "upstream_timeout", "The provider did not answer in time."),
    (aiohttp.ServerDisconnectedError, "reset", _CONNECTION_LOST),
    (aiohttp.ClientConnectionResetError, "reset", _CONNECTION_LOST),
    (aiohttp.ClientOSError, "reset", _CONNECTION_LOST),
    (aiohttp.ServerConnectionError, "reset", _CONNECTION_LOST),
    (aiohttp.ClientConnectionError, "reset", _CONNECTION_LOST),
    (aiohttp.ClientPayloadError, "bad_upstream", "The provider's answer broke off."),
    (aiohttp.InvalidURL, "connect_failed", "The provider's address is not valid."),
    (aiohttp.ClientHttpProxyError, "connect_failed", "The proxy does not connect to the provider."),
    (aiohttp.ClientError, "bad_upstream", _NOT_HTTP),
    (aiohttp.http_exceptions.LineTooLong, "response_too_large", "The provider's headers are larger than the limit."),
    (aiohttp.http_exceptions.HttpProcessingError, "bad_upstream", _NOT_HTTP),
    (TimeoutError, "upstream_timeout", "The provider did not answer in time."),
    (OSError, "reset", _CONNECTION_LOST),
    (ValueError, "bad_upstream", _NOT_HTTP),
)

#: A server that had closed a kept connection says so within a round trip of what is sent on it, which takes at most some 0.4 s on earth. In
#: seconds.
AT_ONCE = 0.5

#: Methods with which doing it twice is doing it once, whatever was done; see `policies.retry`, and RFC 9110, 9.2.2.
_IDEMPOTENT = frozenset({"GET", "HEAD"})

#: Kinds that none but our own limits are the reason of.
_BOUNDS = {"connect_timeout": CONNECT, "upstream_timeout": START}

#: So many headers an answer may have; each is no larger than their limit in all.
_MOST_HEADERS = 1024

#: Failures after which the provider cannot have begun to work on the request.
_NOT_REACHED = frozenset({"dns", "tls", "connect_failed", "connect_timeout"})


def translate(error: BaseException) -> UpstreamError:
    """Our error for a foreign one. The foreign message goes to the log only."""
    if isinstance(error, UpstreamError):
        return error
    if "Got more than" in str(error):
        return UpstreamError("response_too_large", "The provider's headers are larger than the limit.")
    for foreign, kind, message in TRANSLATIONS:
        if isinstance(error, foreign):
            found = UpstreamError(kind, message, detail=f"{type(error).__name__}: {error}"[:300], reached=kind not in _NOT_REACHED)
            found.bound = _BOUNDS.get(kind)
            return found
    raise error


def may_be_sent_again(method: str, after: float) -> bool:
    """Whether a request may be sent once more whose kept connection was lost `after` so many seconds without a byte of an answer.

    Lost at once, the connection had most likely been closed while it lay idle. Later, its server has taken the request, and may have done
    (and charged for) what it asks; then that is for the retry policy to say, except of what may be done twice. By default nginx, Go's
    net/http and urllib3 never repeat a POST that was sent, and so show their callers each connection that was closed while it lay idle.
    """
    return after < AT_ONCE or method in _IDEMPOTENT


class ClientResponse:
    """An answer whose head has arrived; see `proxy.core.protocols.UpstreamResponse`."""

    __slots__ = ("_decoder", "_lost", "_response", "_whole", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse, decoder: Decoder | None, headers: dict[str, str]) -> None:
        self.status = response.status
        self.headers = headers
        self._response = response
        self._decoder = decoder
        self._whole = False
        connection = response.connection
        #: Done when the connection is lost; None where all had come by then.
        self._lost = None if connection is None or connection.protocol is None else connection.protocol.closed
        if self._lost is not None:
            self._lost.remove_done_callback(_note_loss)  # of the answer before
            self._lost.add_done_callback(_note_loss)
            self._lost.add_done_callback(self._end_with)

    def _end_with(self, lost: asyncio.Future[None]) -> None:
        """aiohttp tells nobody of bytes in a body that are no HTTP, and takes a reset for the end of a body that only the close ends."""
        content = self._response.content
        if not content.is_eof():
            if content.exception() is None:
                content.set_exception(UpstreamError("bad_upstream", _NOT_HTTP))
        elif lost.exception() is not None and not {"content-length", "transfer-encoding"} & self.headers.keys():
            content.set_exception(UpstreamError("reset", _CONNECTION_LOST))

    def ready(self) -> bytes | None:
        return None

    def attach(self, take: Callable[[bytes], bool], short_cut: ShortCut | None = None) -> None:
        return None

    async def receive(self) -> bytes:
        content = self._response.content
        while True:
            try:
                data = await content.readany()
            except Exception as error:
                raise translate(error) from error
            if not data:
                if (broken := content.exception()) is not None:
                    raise translate(broken)
                self._whole = True
                if self._decoder is not None:
                    self._decoder.eof()
                return b""
            if self._decoder is None:
                return data
            decoded = self._decoder.feed(data)
            if decoded:
                return decoded

    def fail(self, error: UpstreamError) -> None:
        self._response.content.set_exception(error)
        self._response.close()

    def close(self, *, reuse: bool = False) -> None:
        if self._lost is not None:
            self._lost.remove_done_callback(self._end_with)
        # At the end of the body the connection has gone back already; before it, it carries somebody else's bytes.
        if reuse and (self._whole or self._response.content.at_eof()):
            self._response.release()
        else:
            self._response.close()


class _Progress:
    """How far a request has come, as aiohttp's traces tell it."""

    __slots__ = ("is_queued", "is_sent", "reused")

    def __init__(self) -> None:
        self.is_queued = False  # it waits for a place among the connections
        self.is_sent = False  # some of it, at some time
        self.reused: float | None = None  # when it was given a kept connection, by the monotonic clock

    def translate(self, error: Exception) -> UpstreamError:
        """`translate`, for a request that has come so far."""
        if self.is_queued:
            return UpstreamError("overloaded", NO_PLACE, reached=False)
        found = translate(error)
        if self.is_sent or not found.reached:
            return found
        # Such as a proxy that ends the connection, or answers nonsense, when it is asked for the provider.
        kind, message = ("connect_failed", REFUSES) if found.kind in ("reset", "bad_upstream") else (found.kind, found.message)
        unsent = UpstreamError(kind, message, detail=found.detail, reached=False)
        unsent.bound = found.bound
        return unsent


class _SentContent:
    """A body on its way; at its end `limit` is drawn in to the seconds that the answer's first byte may take. A total that nobody has set
    begins anew with each piece.

    `failure` is what ended it instead: aiohttp makes a lost connection of that. `bound` is the limit that ends it or its answer.
    """

    def __init__(self, content: Content, limit: asyncio.Timeout, timeouts: Timeouts) -> None:
        self.length = content.length
        self.is_answered = False
        self.bound = TOTAL
        self.failure: Exception | None = None
        self._content = content
        self._limit = limit
        self._timeouts = timeouts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        now, limits = asyncio.get_running_loop().time, self._timeouts
        pause = limits.total if "total" in limits.defaults else None
        end = float("inf") if limits.left is None else now() + limits.left
        try:
            async for piece in self._content:
                yield piece
                if pause is not None and not self.is_answered and not self._limit.expired():
                    self._limit.reschedule(min(now() + pause, end))
        except Exception as error:
            self.failure = error
            raise
        if limits.first_token is not None and not self.is_answered and not self._limit.expired():
            due, ends = now() + limits.first_token, self._limit.when()
            if ends is None or due < ends:
                self._limit.reschedule(due)
                self.bound = START

    def named(self, model: str) -> _SentContent:
        return _SentContent(self._content.named(model), self._limit, self._timeouts)


class ClientTransport:
    """One provider's pool of connections. Limits are bytes of headers and of a decoded body. `tls` says whom it trusts."""

    def __init__(
        self,
        *,
        connections: int,
        keep_alive: float,
        header_limit: int = 64 * 2**10,
        body_limit: int = 64 * 2**20,
        resolver: PinnedResolver,
        proxy: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._header_limit = header_limit
        self._body_limit = body_limit
        self._keep_alive = keep_alive
        self._connections = connections
        self._resolver = resolver
        self._proxy = proxy
        self._tls = tls or ssl.create_default_context()
        self._pooled: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None
        self.stale: Callable[[], None] = uncounted

    async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> ClientResponse:
        progress = _Progress()
        try:
            return await self._within(self._session(), request, timeouts, progress)
        except UpstreamError as error:
            # A connection that its server had closed while it lay idle says nothing of the server: once more, on a fresh one.
            if error.kind != "reset" or progress.reused is None or not isinstance(request.body, bytes):
                raise
            if not may_be_sent_again(request.method, time.monotonic() - progress.reused):
                raise
            self.stale()
        return await self._within(self._fresh_session(), request, timeouts, progress)

    async def _within(
        self, session: aiohttp.ClientSession, request: UpstreamRequest, timeouts: Timeouts, progress: _Progress
    ) -> ClientResponse:
        body: _SentContent | None = None
        try:
            if isinstance(request.body, bytes):
                async with asyncio.timeout(_least(timeouts.first_token, timeouts.total)):
                    return await self._exchange(session, request, timeouts, progress)
            # Until the client's body has been sent, it is the client who is waited for.
            async with asyncio.timeout(timeouts.total) as limit:
                body = _SentContent(request.body, limit, timeouts)
                try:
                    return await self._exchange(session, replace(request, body=body), timeouts, progress)
                finally:
                    body.is_answered = True
        except asyncio.CancelledError:
            if progress.is_sent:
                raise
            raise asyncio.CancelledError(UNSENT) from None
        except UpstreamError:
            raise
        except Exception as error:
            if body is not None and body.failure is not None:
                raise body.failure from None
            found = progress.translate(error)
            if body is not None and found.bound == START and progress.is_sent:
                found.bound = body.bound
            raise found from error

    async def _exchange(
        self, session: aiohttp.ClientSession, request: UpstreamRequest, timeouts: Timeouts, progress: _Progress
    ) -> ClientResponse:
        headers = request.headers
        data: Any = request.body
        if isinstance(request.body, bytes):
            data = request.body or None
        elif request.body.length is not None:
            headers = {**headers, "content-length": str(request.body.length)}
        response = await session.request(
            request.method,
            request.url,
            data=data,
            headers=headers,
            skip_auto_headers=(hdrs.USER_AGENT, hdrs.CONTENT_TYPE, hdrs.ACCEPT),
            allow_redirects=False,
            proxy=self._proxy,
            timeout=aiohttp.ClientTimeout(total=None, connect=timeouts.connect, sock_connect=timeouts.connect, sock_read=None),
            trace_request_ctx=progress,
        )
        try:
            received = flatten(response.raw_headers)
            if sum(len(name) + len(value) for name, value in response.raw_headers) > self._header_limit:
                raise UpstreamError("response_too_large", "The provider's headers are larger than the limit.")
            if not is_chunked_at_most(received.get("transfer-encoding", "chunked")):
                raise UpstreamError("bad_upstream", _NOT_HTTP)
            decoder = decoder_for(received.get("content-encoding", ""), self._body_limit, response.status)
            return ClientResponse(response, decoder, received)
        except BaseException:
            response.close()
            raise

    def _session(self) -> aiohttp.ClientSession:
        if self._pooled is None:
            self._pooled = self._open(keepalive_timeout=self._keep_alive)
        return self._pooled

    def _fresh_session(self) -> aiohttp.ClientSession:
        if self._fresh is None:
            self._fresh = self._open(force_close=True)
        return self._fresh

    def _open(self, **options: Any) -> aiohttp.ClientSession:
        trace = aiohttp.TraceConfig()
        trace.on_connection_queued_start.append(_note_queue)
        trace.on_connection_queued_end.append(_note_place)
        trace.on_connection_reuseconn.append(_note_reuse)
        trace.on_request_headers_sent.append(_note_sending)
        return aiohttp.ClientSession(
            connector=Connector(
                limit=self._connections, resolver=self._resolver, ssl=self._tls, use_dns_cache=True, ttl_dns_cache=10, **options
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            max_line_size=self._header_limit,
            max_field_size=self._header_limit,
            max_headers=_MOST_HEADERS,
            trace_configs=[trace],
        )

    async def close(self) -> None:
        for session in (self._pooled, self._fresh):
            if session is not None:
                await session.close()


async def _note_queue(_session: aiohttp.ClientSession, context: Any, _params: aiohttp.TraceConnectionQueuedStartParams) -> None:
    context.trace_request_ctx.is_queued = True


async def _note_place(_session: aiohttp.ClientSession, context: Any, _params: aiohttp.TraceConnectionQueuedEndParams) -> None:
    context.trace_request_ctx.is_queued = False


async def _note_reuse(_session: aiohttp.ClientSession, context: Any, _params: aiohttp.TraceConnectionReuseconnParams) -> None:
    context.trace_request_ctx.reused = time.monotonic()


async def _note_sending(_session: aiohttp.ClientSession, context: Any, _params: aiohttp.TraceRequestHeadersSentParams) -> None:
    context.trace_request_ctx.is_sent = True


def _note_loss(lost: asyncio.Future[None]) -> None:
    """A connection that is lost while it lies idle is nobody's failure: asyncio would log one that nobody asks for."""
    lost.exception()


def uncounted() -> None:
    """Nobody counts."""


def flatten(raw: tuple[tuple[bytes, bytes], ...]) -> dict[str, str]:
    """Headers by lower-case name; repeated ones joined, as RFC 9110, 5.3 allows."""
    headers: dict[str, str] = {}
    for name, value in raw:
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _least(one: float | None, other: float | None) -> float | None:
    return one if other is None else other if one is None else min(one, other)
