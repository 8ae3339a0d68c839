"""A client's request, from its head to the last byte of its answer: parse, run the pipeline, write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from aiohttp.http import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD

from proxy.core.call import Call
from proxy.core.errors import CapacityError, ClientDisconnected, GatewayError
from proxy.core.metrics import Registry
from proxy.core.protocols import Clock
from proxy.core.reply import Reply
from proxy.core.sse import is_event_type
from proxy.http import body, errors, parse
from proxy.http.known_head import Payload, WholeBody
from proxy.http.own_head import OwnHead
from proxy.http.readiness import HEALTH, Readiness, Told
from proxy.http.refusals import Refusals
from proxy.http.request_ids import request_ids
from proxy.http.request_line import RequestLine, read
from proxy.http.server import Answer, Connection
from proxy.http.serving import EdgeLimits, Serving
from proxy.http.write import PING, Writer
from proxy.stream import EventStream, numbered
from proxy.sweeper import Sweeper

EVENT_STREAM = "text/event-stream; charset=utf-8"

#: Operations whose body is one JSON object that is read whole, whatever its content type says.
WHOLE = frozenset({"chat", "completion", "embedding"})

#: What clients send that have nothing to say. The second is that of clients in C#.
_NO_BODY = (b"", b"null")

#: Operations whose streams are kept alive by comments before they have begun, too: who asked for one expects events and nothing else.
PINGED = frozenset({"chat", "completion", "responses"})

#: Operations of whose streams each event says what it is, an error too.
_TYPED = frozenset({"responses", "stored_response", "agents"})

_NEVER = float("inf")

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

#: What is remembered of a head: where it goes, and that its body is plain JSON.
_LINE = "request line"
_PLAIN = "plain"


class DataPlane:
    """Everything under `/v1`, and the two health checks. `serving` may be replaced at any time."""

    def __init__(
        self,
        serving: Serving,
        *,
        clock: Clock,
        metrics: Registry,
        state: Callable[[], str],
        report: Callable[[BaseException, str], None],
        told: Told | None = None,
    ) -> None:
        self.serving = serving
        self._running: set[_Exchange] = set()
        self._draining = False
        self._shedding: str | None = None
        self._clock = clock
        self._report = report
        self._ids = request_ids()
        refusals = Refusals(self._ids, clock, metrics, lambda: self.serving)
        self.refuse, self.turn_away = refusals.refuse, refusals.turn_away
        own_head = OwnHead(clock)
        self.own_lines, self.early_lines = own_head.lines, own_head.early_lines
        self._pings = Sweeper(clock.monotonic)
        self._health = Readiness(state, told, self._ids)

    def __call__(self, connection: Connection) -> Answer:
        """What answers a connection's requests."""
        return _Exchange(self, connection).answer

    # -- what the process around it says --

    @property
    def in_flight(self) -> int:
        return len(self._running)

    def serves(self, serving: Serving) -> bool:
        """Whether requests are still answered by `serving`."""
        return serving is self.serving or any(exchange.serving is serving for exchange in self._running)

    def shed(self, reason: str | None) -> None:
        """Refuse what comes from now on, saying why; None: take it again."""
        self._shedding = reason

    def drain(self) -> None:
        """Every answer from now on is its connection's last."""
        self._draining = True
        for exchange in self._running:
            exchange.close_after()

    def interrupt(self, error: GatewayError) -> int:
        """Give up what is running: each request gets `error`, as its answer or as its stream's last event. Returns how many there were."""
        return sum(exchange.interrupt(error) for exchange in list(self._running))


def _received(_call: Call) -> None:
    """The body of a call that is over has been read."""


class _Exchange:
    """A connection's requests and their answers, one after the other: what is a request's alone is there only while that one runs.

    Whatever way a request ends, its call is ended: its reply is closed, and its record written.
    """

    __slots__ = (
        "_allowed",
        "_call",
        "_connection",
        "_is_written",
        "_payload",
        "_plane",
        "_writer",
        "due",
        "serving",
    )

    _allowed: tuple[str, ...] | None
    _call: Call
    _payload: Payload
    serving: Serving

    def __init__(self, plane: DataPlane, connection: Connection) -> None:
        self._plane = plane
        self._connection = connection
        self._writer = Writer(connection)
        self.due = _NEVER  # when a ping is, if nothing is said until then
        self._is_written = False

    def answer(self, message: RawRequestMessage, payload: Payload) -> Awaitable[bool]:
        """Answer one request; says whether its connection may carry another. Raises ConnectionError when the client has gone."""
        plane, connection, writer = self._plane, self._connection, self._writer
        serving = plane.serving
        writer.renew(serving.limits.write_timeout, keep_alive=not plane._draining)
        cors = serving.cors
        if cors is not None:
            writer.cors = cors.lines(message.headers.get("Origin"))
        memo: dict[Any, Any] = payload.memo if isinstance(payload, WholeBody) else {}
        line: RequestLine | None = memo.get(_LINE)
        if line is None:
            # A head whose line is remembered is a POST of HTTP/1.1 that keeps its connection: of that nothing need be asked again.
            writer.fit(message)
            if cors is not None and cors.is_preflight(message):
                return cors.preflight(message, writer, next(plane._ids))
            line = read(message)
            if line.path in HEALTH:
                return plane._health(line, writer)
            memo[_LINE] = line
        self.serving = serving
        self._allowed = line.allowed
        self._payload = payload
        self._is_written = False
        # By position: names cost half as much again, and making what is empty elsewhere more than here.
        self._call = Call(
            next(plane._ids),
            line.operation,
            line.method,
            line.path,
            line.query,
            message.headers,
            plane._clock.monotonic(),
            self._receive if line.model is None else partial(self._receive_for, line.model),
            memo,
            connection.peer if connection.behind is None else connection.behind(message.headers),
            {},
            [],
            {},
        )
        return self._run()

    async def _run(self) -> bool:
        call, plane, writer = self._call, self._plane, self._writer
        reply: Reply | None = None
        ended: BaseException | None = None
        plane._running.add(self)
        try:
            handler = self.serving.local.get(call.operation, self.serving.gateway)
            try:
                reply = await handler(call)
            except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer and the log a line
                ended = error
                self._stop_pings()
                self._refuse(error)
            else:
                if reply.stream is not None:
                    await self._answer(reply, reply.stream)
                elif writer.begun:
                    self._go_on(reply, reply.body)
                    writer.end()
                else:
                    writer.whole(reply.status, reply.headers, reply.body, plane.own_lines(call, reply.headers))
                    if self._connection.lags:
                        self._is_written = True
                        await writer.drain()
        except asyncio.CancelledError:
            ended = call.interrupted or ClientDisconnected("The client has closed the connection.")
            if call.interrupted is None:
                raise
            self._stop_pings()
            with suppress(ClientDisconnected):
                self._refuse(numbered(call.interrupted, reply))
        except Exception as error:  # noqa: BLE001 - as above
            ended = ended or error
            self._break_off(error)
        except BaseException as error:
            ended = error
            raise
        finally:
            self._finish(reply, ended)
            ended = None  # its traceback knows this frame: a circle
        return writer.keep_alive

    def _finish(self, reply: Reply | None, ended: BaseException | None) -> None:
        call = self._call
        self._plane._running.discard(self)
        if self.due != _NEVER:
            self._stop_pings()
        if reply is not None:
            call.bytes_out = self._writer.bytes_out
        call.end(reply, ended)
        # The call knows this exchange by `receive`, and what counts its bytes by `content`: circles, kept until the collector comes by.
        call.receive = _received
        call.content = None
        # A connection that waits for its next request keeps nothing of this one, nor what has been replaced since.
        del self._call, self._payload, self.serving

    def close_after(self) -> None:
        self._writer.close_after()

    def interrupt(self, error: GatewayError) -> bool:
        """Give up, and say whether there was anything to: a whole answer is on its way as it is, its client has only to read it."""
        self._writer.close_after()
        if self._is_written:
            return False
        self._call.interrupted = error
        self._connection.cancel()
        return True

    # -- the request --

    def _receive(self, call: Call) -> Awaitable[None] | None:
        if self._allowed is not None:
            raise errors.unknown_route(call.path, self._allowed)
        plane, limits = self._plane, self.serving.limits
        if plane._shedding is not None or len(plane._running) > limits.max_in_flight:
            raise CapacityError(plane._shedding or "The gateway has as many requests in flight as it may have.", retry_after=1.0)
        payload = self._payload
        if isinstance(payload, WholeBody) and _PLAIN in payload.memo:
            raw = payload.data
            if len(raw) > limits.max_body:
                raise body.too_large(limits.max_body)
            self._take_json(call, raw)
            return None
        return self._receive_arriving(call, limits)

    async def _receive_for(self, model: str, call: Call) -> None:
        """A request whose path says its model."""
        call.model = parse.checked_model(model)
        arriving = self._receive(call)
        if arriving is not None:
            await arriving
        parse.ask_for(call, model)

    async def _receive_arriving(self, call: Call, limits: EdgeLimits) -> None:
        headers, payload = call.headers, self._payload
        if payload is EMPTY_PAYLOAD:
            if call.operation in WHOLE:
                raise parse.invalid_json("The request has no body.")
            return
        length = body.length_of(headers, payload)
        content_type = headers.get("Content-Type", "")
        is_json = call.operation in WHOLE or parse.is_json(call.operation, content_type)
        most = limits.max_body if is_json else limits.max_upload
        if length is not None and length > most:
            raise body.too_large(most)
        coding = headers.get("Content-Encoding")
        if coding and coding.lower() != "identity":
            raise body.unsupported_coding(coding)
        waits = headers.get("Expect", "").lower() == "100-continue" and not self._writer.http10
        if waits and not payload.is_eof():
            self._connection.write(_CONTINUE)
        if is_json:
            call.memo[_PLAIN] = True
            self._take_json(call, await body.read_body(call, payload, limit=limits.max_body, patience=limits.body_timeout))
        else:
            arrival = body.Arrival(call, payload, limit=limits.max_upload, patience=limits.body_timeout)
            call.content = await body.read_content(call, arrival, content_type, length, most=limits.max_body)

    def _take_json(self, call: Call, raw: bytes) -> None:
        call.bytes_in = len(raw)
        if call.operation in WHOLE or raw not in _NO_BODY:
            call.raw = raw
            parse.read_members(call, parse.parse_object(raw))
        if call.stream and call.operation in PINGED:
            self._start_pings()

    # -- the answer --

    async def _answer(self, reply: Reply, stream: AsyncIterator[bytes]) -> None:
        writer = self._writer
        own = self._plane.own_lines(self._call, reply.headers)
        first = stream.take_begun() if isinstance(stream, EventStream) else await anext(stream, b"")
        if writer.begun:
            self._go_on(reply, first)
        else:
            writer.start(reply.status, reply.headers, first, own)
            if writer.head_only:
                return
        if isinstance(stream, EventStream):
            if self.due == _NEVER:
                self._start_pings()
            await stream.pipe(writer)
        else:
            async for piece in stream:
                if not writer.piece(piece):
                    await writer.drain()
        writer.end()

    def _go_on(self, reply: Reply, piece: bytes) -> None:
        """A ping has begun a stream of events: only events may follow it, and above all no second head."""
        if not is_event_type(reply.headers.get("content-type", "")):
            raise TypeError("the answer to a call that streams is no stream of events")
        self._writer.piece(piece)

    def _refuse(self, error: Exception) -> None:
        """Answer with an error's status; or, where a ping has begun the stream already, with its event."""
        if isinstance(error, ClientDisconnected):
            raise error
        shown = self._shown(error)
        writer = self._writer
        if writer.begun:
            self._tell(shown)
            return
        if shown.status == 413 or not self._payload.is_eof():
            # Bytes of this request may still be on their way: they must not be taken for the next one.
            writer.close_after()
        headers = errors.headers(shown)
        writer.whole(shown.status, headers, errors.body(shown), self._plane.own_lines(self._call, headers))

    def _tell(self, error: GatewayError) -> None:
        """The stream has begun and cannot be finished: one error event, no `[DONE]`, close."""
        writer = self._writer
        if writer.is_event_stream:
            writer.piece(errors.event(error, typed=self._call.operation in _TYPED))
        writer.end_broken()

    def _break_off(self, error: Exception) -> None:
        """The answer cannot be finished."""
        if isinstance(error, ClientDisconnected):
            self._writer.close_after()
            return
        with suppress(ClientDisconnected):
            self._refuse(error)

    def _shown(self, error: BaseException) -> GatewayError:
        if not isinstance(error, GatewayError):
            self._plane._report(error, self._call.id)
        return errors.shown(error)

    def expire(self) -> None:
        """Say that we are still there, after `ping` seconds in which nothing was said."""
        call, writer, plane, ping = self._call, self._writer, self._plane, self.serving.limits.ping
        now = plane._clock.monotonic()
        self.due = max(call.last_token or call.started, call.pinged) + ping
        if self.due <= now:
            self.due = now + ping
            if not writer.is_full and (writer.is_event_stream or not writer.begun):  # nothing may follow a whole body
                call.pinged = now
                with suppress(ClientDisconnected):
                    if writer.begun:
                        writer.piece(PING)
                    else:
                        headers = {"content-type": EVENT_STREAM}
                        writer.start(200, headers, PING, plane.early_lines(call, headers))
        plane._pings.add(self)

    def _start_pings(self) -> None:
        if (ping := self.serving.limits.ping) != _NEVER:
            self.due = self._plane._clock.monotonic() + ping
            self._plane._pings.add(self)

    def _stop_pings(self) -> None:
        self.due = _NEVER
        self._plane._pings.remove(self)
