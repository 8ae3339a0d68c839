"""The traffic of a measurement: request bodies, the upstream's JSON answer, and its stream's events.

Upstream and client build the same events from the same numbers, so the client can check every chunk without being told.
The shapes and sizes follow OpenAI's chat completions API (https://platform.openai.com/docs/api-reference/chat).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

MODEL = "gpt-4.1-mini"
PATH = "/v1/chat/completions"

_CREATED = 1_750_000_000
_PROSE = (
    'The sluice opens slowly, and the river says "not yet";\nwater takes its time. Über den Fluss führt eine Brücke, '
    "from which one sees how high it stands: 3.2 m at noon, 3.4 m by night. What does the gate bear, and for how long?"
)
_WORDS = _PROSE.split(" ")
_ANSWER = (
    "A floodgate regulates the level of the water behind it. It is opened before the level becomes dangerous and is closed again when "
    "the reservoir has fallen enough; in between, the keeper reads the gauge once an hour and writes down what it shows."
)


@dataclass(frozen=True, slots=True)
class Pace:
    """How a stream comes: how many chunks (content events), and milliseconds from one write to the next."""

    chunks: int
    interval_ms: int

    @property
    def seconds(self) -> float:
        """Nominal length of one stream."""
        return self.chunks * self.interval_ms / 1000


def chat_body(size: int) -> bytes:
    """A non-streaming chat request of about `size` bytes: a system prompt and a dialogue."""
    return _encode(_chat(size))


def stream_body(size: int, pace: Pace, *, usage: bool) -> bytes:
    """The same as a stream. The pace travels in `metadata`, which any pass-through leaves alone; `usage` asks for the usage event."""
    body = _chat(size) | {"stream": True, "metadata": {"bench_chunks": str(pace.chunks), "bench_interval_ms": str(pace.interval_ms)}}
    if usage:
        body["stream_options"] = {"include_usage": True}
    return _encode(body)


def token(index: int) -> str:
    """The text of chunk `index`; the first chunk carries the role and no text."""
    return "" if index == 0 else " " + _WORDS[index % len(_WORDS)]


@lru_cache
def answer() -> bytes:
    """The upstream's JSON completion, about 600 bytes."""
    message: dict[str, Any] = {"role": "assistant", "content": _ANSWER, "refusal": None, "annotations": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return _encode(_head("chat.completion") | {"choices": [choice], "usage": _usage(64)})


@lru_cache(maxsize=16)
def events(chunks: int, usage: bool) -> tuple[bytes, ...]:
    """The content events of one stream as SSE frames, about 230 bytes each; with `usage` each says `"usage":null`, as OpenAI's do."""
    head = _head("chat.completion.chunk")
    blank = {"usage": None} if usage else {}
    frames = []
    for index in range(chunks):
        delta = {"role": "assistant", "content": ""} if index == 0 else {"content": token(index)}
        finish = "stop" if index == chunks - 1 else None
        frames.append(_frame(head | {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]} | blank))
    return tuple(frames)


def usage_event(chunks: int) -> bytes:
    """The event that follows the last chunk when usage was asked for."""
    return _frame(_head("chat.completion.chunk") | {"choices": [], "usage": _usage(chunks)})


def _chat(size: int) -> dict[str, Any]:
    messages: list[dict[str, str]] = [{"role": "system", "content": "You answer briefly, and you say so when you do not know."}]
    body: dict[str, Any] = {"model": MODEL, "messages": messages, "temperature": 0.7, "max_completion_tokens": 512, "user": "bench"}
    while (missing := size - len(_encode(body))) > 0:
        role = "user" if len(messages) % 2 else "assistant"
        messages.append({"role": role, "content": _text(min(missing, 700))})
    return body


def _text(size: int) -> str:
    return (_PROSE * (size // len(_PROSE) + 1))[:size]


def _head(kind: str) -> dict[str, Any]:
    name = "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT"
    return {"id": name, "object": kind, "created": _CREATED, "model": MODEL, "system_fingerprint": "fp_50cad350e4"}


def _usage(completion: int) -> dict[str, int]:
    return {"prompt_tokens": 220, "completion_tokens": completion, "total_tokens": 220 + completion}


def _frame(event: dict[str, Any]) -> bytes:
    return b"data: " + _encode(event) + b"\n\n"


def _encode(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
