"""An upstream on loopback that speaks HTTP properly, for tests that drive the gateway with official clients.

It records every request as the bytes that came, answers by the table that it is given, and answers anything else once it was told to
(`answer_next`, or `POST /_double/next` from another language). Its JSON has blanks where no encoder puts any, so that an answer which
was parsed and written again cannot pass for one that was passed through.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

from aiohttp import web

PREFIX = "/v1"
DONE = b"data: [DONE]\n\n"
GATE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back: `body`, or `frames` one write each. `gate` holds back all frames but the first until it is set."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    frames: tuple[bytes, ...] = ()
    gap: float = 0.0
    gate: threading.Event | None = None
    ending: str = "clean"  # or "cut" (connection reset) or "hang" (silence)


@dataclass(slots=True)
class Seen:
    """One request as it arrived. `arrived` is set at the first body byte, `cancelled` when the caller left before the answer's end."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes = b""
    answer: bytes = b""
    arrived: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)
    cancelled_at: float | None = None

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def parts(self) -> dict[str, Message]:
        """The parts of a multipart body by field name."""
        head = b"Content-Type: " + self.headers["content-type"].encode() + b"\r\n\r\n"
        message = BytesParser(policy=HTTP).parsebytes(head + self.body)
        return {str(part.get_param("name", header="content-disposition")): part for part in message.walk() if not part.is_multipart()}

    def part(self, name: str) -> bytes:
        payload = self.parts()[name].get_payload(decode=True)
        assert isinstance(payload, bytes)
        return payload


def spaced(value: Any) -> bytes:
    """JSON as no encoder in this project writes it."""
    return json.dumps(value, separators=(" ,", " : "), ensure_ascii=False).encode()


def event(value: Any, name: str = "") -> bytes:
    return (b"event: " + name.encode() + b"\n" if name else b"") + b"data: " + spaced(value) + b"\n\n"


def refusal(status: int, message: str, kind: str, code: str | None = None, param: str | None = None, **headers: str) -> Answer:
    """An error answer in OpenAI's shape; header names are given with underscores."""
    body = spaced({"error": {"message": message, "type": kind, "param": param, "code": code}})
    return Answer(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


def stream(frames: Iterable[bytes], **options: Any) -> Answer:
    return Answer(frames=tuple(frames), content_type="text/event-stream", **options)


class ProviderDouble:
    """Serves until the `with` block ends, on a thread and loop of its own. `url` is what a client takes as its base URL."""

    def __init__(self, answer_for: Callable[[Seen], Answer]) -> None:
        self._answer_for = answer_for
        self.seen: list[Seen] = []
        self.url = self.origin = ""
        self._scripted: deque[Answer] = deque()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="provider-double", daemon=True)

    def __enter__(self) -> ProviderDouble:
        self._thread.start()
        self._runner, port = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        self.origin = f"http://127.0.0.1:{port}"
        self.url = self.origin + PREFIX
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def answer_next(self, answer: Answer) -> None:
        """The next request, whatever it is, gets this answer."""
        self._scripted.append(answer)

    def reset(self) -> None:
        self.seen.clear()
        self._scripted.clear()

    @property
    def last(self) -> Seen:
        assert self.seen, "nothing reached the upstream"
        return self.seen[-1]

    def await_request(self, seconds: float = 5.0) -> Seen:
        """The latest request, waited for."""
        deadline = time.monotonic() + seconds
        while not self.seen and time.monotonic() < deadline:
            time.sleep(0.005)
        return self.last

    async def _start(self) -> tuple[web.AppRunner, int]:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/_double/next", self._script)
        app.router.add_get("/_double/last", self._report)
        app.router.add_route("*", "/{path:.*}", self._serve)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner, runner.addresses[0][1]

    async def _script(self, request: web.Request) -> web.Response:
        told = await request.json()
        frames = tuple(frame.encode() for frame in told.pop("frames", ()))
        self.answer_next(Answer(body=told.pop("body", "").encode(), frames=frames, **told))
        return web.json_response({})

    async def _report(self, _: web.Request) -> web.Response:
        seen = self.last
        shown = {"method": seen.method, "path": seen.path, "body": seen.body.decode("latin-1"), "cancelled": seen.cancelled.is_set()}
        return web.json_response({**shown, "headers": dict(seen.headers)})

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        seen = Seen(request.method, request.rel_url.raw_path, request.query_string, request.headers.copy())
        self.seen.append(seen)
        try:
            async for piece in request.content.iter_any():
                seen.body += piece
                seen.arrived.set()
            answer = self._scripted.popleft() if self._scripted else self._answer_for(seen)
            return await self._write(request, seen, answer)
        except (asyncio.CancelledError, ConnectionError):
            seen.cancelled_at = time.monotonic()
            seen.cancelled.set()
            raise

    async def _write(self, request: web.Request, seen: Seen, answer: Answer) -> web.StreamResponse:
        headers = {"Content-Type": answer.content_type, "x-request-id": "req_double", "openai-version": "2020-10-01", **answer.headers}
        if answer.ending == "hang" and not answer.frames:
            await asyncio.Event().wait()
        if not answer.frames:
            seen.answer = answer.body
            return web.Response(status=answer.status, body=answer.body, headers=headers)
        reply = web.StreamResponse(status=answer.status, headers=headers)
        await reply.prepare(request)
        for index, frame in enumerate(answer.frames):
            if index:
                await self._pause(answer)
            seen.answer += frame
            await reply.write(frame)
        if answer.ending == "hang":
            await asyncio.Event().wait()
        if answer.ending == "cut" and request.transport is not None:
            request.transport.abort()
        return reply

    async def _pause(self, answer: Answer) -> None:
        if answer.gate is not None and not await asyncio.to_thread(answer.gate.wait, GATE_SECONDS):
            raise ConnectionResetError("nobody opened the gate")
        await asyncio.sleep(answer.gap)
