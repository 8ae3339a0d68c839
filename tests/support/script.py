"""What a scripted upstream is told to send: steps, and the answers that are made of them.

Answers are bytes on purpose: half a header, a chunk size of letters and a reset in the middle of a word are answers here too.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

Headers = Sequence[tuple[str, str]]
DONE = b"data: [DONE]\n\n"


# ------------------------------------------------------------------------------------------------------------------------------- steps
@dataclass(frozen=True, slots=True)
class Send:
    """These bytes; in slices of `size` with a moment between them where `size` is not 0."""

    data: bytes
    size: int = 0


@dataclass(frozen=True, slots=True)
class Pour:
    """These bytes `times` times, at the pace at which the gateway takes them; `Connection.poured` counts."""

    data: bytes
    times: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing for so many seconds; ends early if the gateway closes."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Stall:
    """Nothing more, until the gateway closes."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Nothing until the test calls `set()` on `event` (or the gateway closes)."""

    event: threading.Event


@dataclass(frozen=True, slots=True)
class Reset:
    """RST."""


@dataclass(frozen=True, slots=True)
class Fin:
    """An orderly close."""


Step = Send | Pour | Wait | Stall | Gate | Reset | Fin


@dataclass(frozen=True, slots=True)
class Script:
    """What to do with one request. With `at_head` it starts when the request's head is in, else when its body is."""

    steps: tuple[Step, ...]
    at_head: bool = False


def script(*steps: Step | bytes, at_head: bool = False) -> Script:
    return Script(tuple(Send(step) if isinstance(step, bytes) else step for step in steps), at_head)


def sliced(answer: Script, size: int = 1) -> Script:
    """The same, with every byte on its own."""
    return replace(answer, steps=tuple(Send(step.data, size) if isinstance(step, Send) else step for step in answer.steps))


# --------------------------------------------------------------------------------------------------------------------------- responses
def head(status: int, headers: Headers = (), reason: str = "Whatever") -> bytes:
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def response(status: int, body: bytes, content_type: str = "application/json", headers: Headers = ()) -> bytes:
    return head(status, [("Content-Type", content_type), ("Content-Length", str(len(body))), *headers]) + body


def json_response(status: int, value: Any, headers: Headers = ()) -> bytes:
    return response(status, json.dumps(value).encode(), headers=headers)


def error_response(status: int, message: str = "upstream says no", headers: Headers = (), **error: Any) -> bytes:
    return json_response(status, {"error": {"message": message, "type": "some_error", "param": None, "code": None, **error}}, headers)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


def stream_head(headers: Headers = (), content_type: str = "text/event-stream; charset=utf-8") -> bytes:
    return head(200, [("Content-Type", content_type), ("Transfer-Encoding", "chunked"), *headers], "OK")


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def sse(events: Iterable[bytes], *, done: bool = True, headers: Headers = ()) -> bytes:
    """A whole streamed answer: each event a chunk of its own, ended as HTTP wants it."""
    frames = [*events, *([DONE] if done else [])]
    return stream_head(headers) + b"".join(map(chunk, frames)) + LAST_CHUNK


def usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def delta(text: str | None = None, *, finish: str | None = None, model: str = "served-model", **extra: Any) -> dict[str, Any]:
    content = {} if text is None else {"content": text}
    return {
        "id": "chatcmpl-raw",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": model,
        "choices": [{"index": 0, "delta": content, "finish_reason": finish}],
        **extra,
    }


def usage_chunk(prompt: int, completion: int) -> dict[str, Any]:
    return {**delta(), "choices": [], "usage": usage(prompt, completion)}


def role_chunk() -> dict[str, Any]:
    first = delta("")
    first["choices"][0]["delta"]["role"] = "assistant"
    return first


def chat_chunks(text: str = "Hello there you", *, finish: str | None = "stop", used: tuple[int, int] | None = (7, 3)) -> list[bytes]:
    """The events of a chat stream, one word each, without `[DONE]`."""
    words = text.split(" ")
    values = [role_chunk(), *(delta(word if not place else f" {word}") for place, word in enumerate(words))]
    if finish is not None:
        values.append(delta(finish=finish))
    if used is not None:
        values.append(usage_chunk(*used))
    return [event(value) for value in values]


def completion(text: str = "Hello there you", used: tuple[int, int] | None = (7, 3)) -> dict[str, Any]:
    value: dict[str, Any] = {
        "id": "chatcmpl-raw",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "served-model",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
    }
    if used is not None:
        value["usage"] = usage(*used)
    return value


CHAT = json_response(200, completion())
CHAT_STREAM = sse(chat_chunks())
