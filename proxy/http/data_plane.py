"""A client's request, from its head to the last byte of its answer: parse, run the pipeline, write."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiohttp import HttpVersion10
from aiohttp.web_request import BaseRequest

from proxy.core.call import Call
from proxy.core.errors import ClientDisconnected, ClientError, GatewayError
from proxy.core.metrics import Registry
from proxy.core.protocols import Clock, Handler
from proxy.core.reply import Reply
from proxy.http import errors, parse, routes
from proxy.http.write import CLOSED, KEPT, PING, Writer, Written

#: The version of the API that our own answers follow; a provider's own word goes before it.
API_VERSION = "2020-10-01"

EVENT_STREAM = "text/event-stream; charset=utf-8"

#: Operations whose body is one JSON object that is read whole, whatever its content type says.
WHOLE = frozenset({"chat", "completion", "embedding"})

#: Operations whose streams are kept alive by comments; a client that asked for a stream of these expects events and nothing else.
PINGED = frozenset({"chat", "completion", "responses"})

_KEYS = frozenset({"api_key", "api-key", "apikey", "key", "token", "access_token"})

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True, slots=True)
class EdgeLimits:
    """Bytes and seconds of the edge; `server` in the configuration."""

    max_body: int = 32 * 2**20
    body_timeout: float = 15.0
    write_timeout: float = 30.0
    ping: float = 10.0


class DataPlane:
    """Everything under `/v1`, and the two health checks. `gateway` answers what goes to a provider, `local` holds what is answered here."""

    def __init__(  # noqa: PLR0913 - the edge's whole world, given once
        self,
        gateway: Handler,
        local: Mapping[str, Handler],
        *,
        limits: EdgeLimits,
        clock: Clock,
        metrics: Registry,
        is_ready: Callable[[], bool],
        report: Callable[[BaseException, str], None],
    ) -> None:
        self._gateway = gateway
        self._local = local
        self._limits = limits
        self._clock = clock
        self._rejected = metrics.counter("llm_rejected_total", "Requests that the gateway itself refused.", "code")
        self._is_ready = is_ready
        self._report = report
        self._ids = map("req_{}{:08x}".format, itertools.repeat(secrets.token_hex(8)), itertools.count())

    async def __call__(self, request: BaseRequest) -> Written:
        path = request.rel_url.raw_path
        writer = Writer(
            request.protocol,  # type: ignore[arg-type]  # our own subclass, made by Listener
            keep_alive=request.keep_alive,
            http10=request.version == HttpVersion10,
            head_only=request.method == "HEAD",
            stall=self._limits.write_timeout,
        )
        if path in ("/healthz", "/readyz"):
            return self._health(request, path, writer)
        exchange = _Exchange(self, request, path, writer)
        try:
            await exchange.run()
        except ClientDisconnected:
            return CLOSED
        return KEPT if writer.keep_alive else CLOSED

    def refuse(self, request: BaseRequest, status: int, _message: str) -> Written:
        """The answer to bytes that are no HTTP request."""
        code = {413: "request_too_large", 414: "uri_too_long", 431: "headers_too_large"}.get(status, "bad_request")
        self._rejected.labels(code).value += 1
        writer = Writer(request.protocol, keep_alive=False, http10=False, head_only=False, stall=1.0)  # type: ignore[arg-type]
        error: GatewayError = ClientError("The request is not valid HTTP, or its head is too large.", status=status, code=code)
        if status >= 500:  # noqa: PLR2004
            error = errors.shown(RuntimeError())
        writer.whole(error.status, {**errors.headers(error), "x-request-id": next(self._ids)}, errors.body(error))
        return CLOSED

    def _health(self, request: BaseRequest, path: str, writer: Writer) -> Written:
        ready = path == "/healthz" or self._is_ready()
        allowed = request.method in ("GET", "HEAD")
        status = (200 if ready else 503) if allowed else 405
        text = b'{"status":"ok"}' if ready else b'{"status":"draining"}'
        writer.whole(status, {"content-type": "application/json", "x-request-id": next(self._ids)}, text if allowed else b"{}")
        return KEPT if writer.keep_alive else CLOSED


def _onward(query: str) -> str:
    """A query without what may be a key: some clients put theirs there, and it is not for the provider."""
    if not query:
        return query
    return "&".join(part for part in query.split("&") if part.partition("=")[0].lower() not in _KEYS)


class _Exchange:
    """One request and its answer. Whatever way it ends, its reply is closed, and with that its record written."""

    __slots__ = ("_allowed", "_call", "_ping", "_pinged", "_plane", "_request", "_writer")

    def __init__(self, plane: DataPlane, request: BaseRequest, path: str, writer: Writer) -> None:
        found = routes.find(request.method, path)
        self._allowed = found if isinstance(found, tuple) else None
        self._plane = plane
        self._request = request
        self._writer = writer
        self._ping: asyncio.TimerHandle | None = None
        self._pinged = 0.0
        self._call = Call(
            id=next(plane._ids),
            operation="unknown" if isinstance(found, tuple) else found.operation,
            method=request.method,
            path=path if isinstance(found, tuple) else found.path,
            query=_onward(request.rel_url.raw_query_string),
            headers=request.headers,
            started=plane._clock.monotonic(),
            receive=self._receive,
        )

    async def run(self) -> None:
        try:
            await self._run()
        finally:
            self._stop_pings()

    async def _run(self) -> None:
        call = self._call
        handler = self._plane._local.get(call.operation, self._plane._gateway)
        try:
            reply = await handler(call)
        except Exception as error:
            self._stop_pings()
            self._refuse(error)
            return
        ended: BaseException | None = None
        try:
            await self._answer(reply)
        except asyncio.CancelledError:
            ended = ClientDisconnected("The client has closed the connection.")
            raise
        except ClientDisconnected as error:
            ended = error
            raise
        except Exception as error:
            ended = error
            self._tell(self._shown(error))
        finally:
            call.bytes_out = self._writer.bytes_out
            reply.close(ended)

    # -- the request --

    async def _receive(self, call: Call) -> None:
        if self._allowed is not None:
            raise errors.unknown_route(call.path, self._allowed)
        request, limits = self._request, self._plane._limits
        if not request.body_exists:
            if call.operation in WHOLE:
                raise parse.invalid_json("The request has no body.")
            return
        length = request.content_length
        if length is not None and length > limits.max_body:
            raise parse.too_large(limits.max_body)
        if request.headers.get("Expect", "").lower() == "100-continue" and request.protocol.transport is not None:
            request.protocol.transport.write(_CONTINUE)
        content_type = request.headers.get("Content-Type", "")
        if call.operation in WHOLE or content_type in ("", "application/json") or content_type.startswith("application/json;"):
            await self._receive_json(call)
        else:
            await self._receive_content(call, content_type, length)

    async def _receive_json(self, call: Call) -> None:
        limits = self._plane._limits
        call.raw = await parse.read_body(self._request.content, limit=limits.max_body, patience=limits.body_timeout)
        call.bytes_in = len(call.raw)
        if call.raw or call.operation in WHOLE:
            parse.read_members(call, parse.parse_object(call.raw))
        if call.stream and call.operation in PINGED:
            self._ping = asyncio.get_running_loop().call_later(limits.ping, self._send_ping)

    async def _receive_content(self, call: Call, content_type: str, length: int | None) -> None:
        limits, reader = self._plane._limits, self._request.content
        head = b""
        if content_type.startswith("multipart/form-data"):
            head, model = await parse.form_head(reader, patience=limits.body_timeout)
            call.model = None if model is None else parse.checked_model(model)
        rest = parse.body_parts(reader, limit=limits.max_body - len(head), patience=limits.body_timeout)
        call.content = parse.FormContent(head, rest, length)
        call.bytes_in = length or 0

    # -- the answer --

    async def _answer(self, reply: Reply) -> None:
        call, writer = self._call, self._writer
        headers = self._headers(reply)
        if reply.stream is None:
            writer.whole(reply.status, headers, reply.body)
            if writer.is_full:
                await writer.drain()
            return
        async for piece in reply.stream:
            if writer.begun:
                writer.piece(piece)
            else:
                writer.start(reply.status, headers, piece)
            if writer.is_full:
                await writer.drain()
        if not writer.begun:
            writer.start(reply.status, headers)
        writer.end()
        call.bytes_out = writer.bytes_out

    def _headers(self, reply: Reply) -> dict[str, str]:
        call = self._call
        now = self._plane._clock.monotonic()
        call.overhead = max(0.0, now - call.started - call.upstream_seconds)
        headers = reply.headers
        headers["x-request-id"] = call.id
        target = call.target
        if target is not None:
            if target.public is not None:
                headers["x-comporta-model"] = target.public
            headers["x-comporta-provider"] = target.provider
            headers["x-comporta-attempts"] = str(len(call.attempts))
            headers["x-comporta-overhead-ms"] = f"{call.overhead * 1e3:.3f}"
        if "openai-processing-ms" not in headers:
            headers["openai-processing-ms"] = str(int((now - call.started) * 1e3))
        headers.setdefault("openai-version", API_VERSION)
        if reply.is_event_stream:
            headers["cache-control"] = "no-cache"
            headers["x-accel-buffering"] = "no"
        return headers

    def _refuse(self, error: Exception) -> None:
        """Answer with an error's status; or, where a ping has begun the stream already, with its event."""
        if isinstance(error, ClientDisconnected):
            raise error
        shown = self._shown(error)
        writer = self._writer
        if writer.begun:
            self._tell(shown)
            return
        if shown.status == 413 or not self._request.content.is_eof():  # noqa: PLR2004
            # Bytes of this request may still be on their way: they must not be taken for the next one.
            writer.close_after()
        writer.whole(shown.status, self._headers(Reply(shown.status, errors.headers(shown))), errors.body(shown))

    def _tell(self, error: GatewayError) -> None:
        """The stream has begun and cannot be finished: one error event, no `[DONE]`, close."""
        writer = self._writer
        if writer.is_event_stream:
            writer.piece(errors.event(error, typed=self._call.operation == "responses"))
        writer.end_broken()

    def _shown(self, error: BaseException) -> GatewayError:
        if not isinstance(error, GatewayError):
            self._plane._report(error, self._call.id)
        return errors.shown(error)

    def _send_ping(self) -> None:
        """Say that we are still there, after `ping` seconds in which nothing was said."""
        call, writer, limits = self._call, self._writer, self._plane._limits
        now = self._plane._clock.monotonic()
        silence = now - max(call.last_token or call.started, self._pinged)
        wait = limits.ping
        if silence < limits.ping:
            wait -= silence
        elif not writer.is_full:
            self._pinged = now
            if writer.begun:
                writer.piece(PING)
            else:
                writer.start(200, self._headers(Reply(200, {"content-type": EVENT_STREAM})), PING)
        self._ping = asyncio.get_running_loop().call_later(max(wait, 0.001), self._send_ping)

    def _stop_pings(self) -> None:
        if self._ping is not None:
            self._ping.cancel()
            self._ping = None
