"""An upstream that answers by chance, and keeps what it sent for each question, so that answers can be held against it byte for byte."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from tests.support.script import (
    DONE,
    chat_chunks,
    chunk,
    completion,
    error_response,
    head,
    json_response,
    response,
    role_chunk,
    stream_head,
)
from tests.support.script import event as sse_event

_RESET = struct.pack("ii", 1, 0)
ERROR_EVENT = sse_event({"error": {"message": "broken", "type": "server_error", "param": None, "code": None}})

#: A request's body and the text to answer with -> what is sent, and whether the connection is reset after it.
Behaviour = Callable[[dict[str, Any], str], tuple[bytes, bool]]


def _good(body: dict[str, Any], text: str) -> tuple[bytes, bool]:
    if not body.get("stream"):
        return json_response(200, completion(text)), False
    return stream_head() + b"".join(map(chunk, _events(text))) + b"0\r\n\r\n", False


def _events(text: str) -> list[bytes]:
    return [*chat_chunks(text), DONE]


def _failing(status: int, **more: Any) -> Behaviour:
    answer = error_response(status, **more)
    return lambda _body, _text: (answer, False)


def _cut(body: dict[str, Any], text: str) -> tuple[bytes, bool]:
    whole = _good(body, text)[0]
    return whole[: len(whole) * 2 // 3], True


def _error_event(body: dict[str, Any], text: str) -> tuple[bytes, bool]:
    if not body.get("stream"):
        return json_response(200, {"error": {"message": "no", "type": "server_error", "code": None, "param": None}}), False
    return stream_head() + b"".join(map(chunk, (sse_event(role_chunk()), ERROR_EVENT))) + b"0\r\n\r\n", False


BEHAVIOURS: dict[str, tuple[int, Behaviour]] = {
    "good": (60, _good),
    "server_error": (6, _failing(500)),
    "unavailable": (5, _failing(503)),
    "overloaded": (5, _failing(529)),
    "limited": (5, _failing(429, headers=[("retry-after", "0")])),
    "quota": (2, _failing(429, code="insufficient_quota")),
    "rejected": (3, _failing(400, code="bad_thing")),
    "too_long": (3, _failing(400, code="context_length_exceeded")),
    "page": (3, lambda _body, _text: (response(200, b"<html>hello</html>", "text/html"), False)),
    "reset": (3, lambda _body, _text: (b"", True)),
    "half_head": (2, lambda _body, _text: (head(200)[:9], True)),
    "cut": (3, _cut),
    "error_event": (3, _error_event),
}


class ChaoticUpstream:
    """`sent` has, by question, what whole good answers held; `calls` counts requests, `open` connections. Runs in a thread of its own."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.calls = 0
        self.open = 0
        self.sent: dict[str, list[bytes]] = defaultdict(list)
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, name=f"chaos-{name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self._listener))
        self._loop.run_forever()
        server.close()
        pending = asyncio.all_tasks(self._loop)
        for task in pending:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while await self._answer(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        raw = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(raw.partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        self.calls += 1
        names = list(BEHAVIOURS)
        chosen = self._random.choices(names, [BEHAVIOURS[name][0] for name in names])[0]
        question = body["messages"][0]["content"]
        text = f"{self.name} {self.calls} answers {body['model']} {question}"
        data, resets = BEHAVIOURS[chosen][1](body, text)
        if chosen in ("good", "cut"):
            self.sent[question].append(b"".join(_events(text)) if body.get("stream") else json.dumps(completion(text)).encode())
        writer.write(data)
        await writer.drain()
        if resets:
            await asyncio.sleep(0.005)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        return not resets
