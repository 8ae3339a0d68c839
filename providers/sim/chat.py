"""`/chat/completions`: choices, in OpenAI's words.

https://platform.openai.com/docs/api-reference/chat/object and /chat-streaming
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import orjson

from providers.sim.answer import Choice, ToolCall
from providers.sim.request import Ask
from providers.sim.wire import (
    DONE,
    FINGERPRINT,
    Answer,
    Part,
    Stamp,
    document,
    duration_of,
    event_stream,
    frame,
    logprob_of,
    model_name,
    usage_of,
)


def chat_answer(ask: Ask, choices: list[Choice], stamp: Stamp) -> Answer:
    tokens = duration_of(choices)
    if ask.stream:
        return event_stream(_events(ask, choices, stamp), tokens)
    head = _head(ask, stamp, "chat.completion")
    body = {
        **head,
        "choices": [_whole(ask, choice, index) for index, choice in enumerate(choices)],
        "usage": _usage(ask, choices),
    }
    return document(body, tokens)


def _head(ask: Ask, stamp: Stamp, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-sim-{stamp.serial}",
        "object": kind,
        "created": stamp.created,
        "model": model_name(ask.model),
        "service_tier": "default",
        "system_fingerprint": FINGERPRINT,
    }


def _usage(ask: Ask, choices: list[Choice]) -> dict[str, Any]:
    return usage_of(ask.prompt_tokens, sum(choice.tokens for choice in choices))


def _whole(ask: Ask, choice: Choice, index: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None, "annotations": []}
    if choice.calls:
        message["content"] = None
        if ask.tools.legacy:
            message["function_call"] = {"name": choice.calls[0].name, "arguments": choice.calls[0].arguments}
        else:
            message["tool_calls"] = [{"id": call.id, **_call(call, call.name, call.arguments)} for call in choice.calls]
    logprobs = None
    if ask.top_logprobs is not None and not choice.calls:
        logprobs = {"content": [logprob_of(piece, ask.top_logprobs) for piece in choice.pieces], "refusal": None}
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": choice.finish_reason}


def _call(call: ToolCall, name: str | None, arguments: str) -> dict[str, Any]:
    """The part of a call that the stream repeats; only its first delta bears the name."""
    inner = {} if name is None else {"name": name}
    if call.custom:
        return ({"type": "custom"} if name else {}) | {"custom": {**inner, "input": arguments}}
    return ({"type": "function"} if name else {}) | {"function": {**inner, "arguments": arguments}}


def _events(ask: Ask, choices: list[Choice], stamp: Stamp) -> Iterator[Part]:
    head = _head(ask, stamp, "chat.completion.chunk")
    # All chunks but for the choice are the same bytes: they are made once.
    before = b"data: " + orjson.dumps(head)[:-1] + b',"choices":['
    after = b'],"usage":null}\n\n' if ask.include_usage else b"]}\n\n"
    for index, choice in enumerate(choices):
        role = {"role": "assistant", "content": None if choice.calls else "", "refusal": None}
        yield before + _chunk(index, role) + after, 0
    streams = [_deltas(ask, choice, index) for index, choice in enumerate(choices)]
    if len(streams) == 1:
        for delta, tokens in streams[0]:
            yield before + delta + after, tokens
    else:
        for together in zip_longest(*streams):
            first = True
            for part in together:
                if part is not None:
                    yield before + part[0] + after, part[1] if first else 0
                    first = False
    if ask.include_usage:
        yield frame({**head, "choices": [], "usage": _usage(ask, choices)}), 0
    yield DONE, 0


def _chunk(index: int, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    return orjson.dumps({"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason})


def _deltas(ask: Ask, choice: Choice, index: int) -> Iterator[Part]:
    if choice.calls:
        yield from _legacy_deltas(choice, index) if ask.tools.legacy else _call_deltas(choice, index)
    elif ask.top_logprobs is not None:
        for piece in choice.pieces:
            logprobs = {"content": [logprob_of(piece, ask.top_logprobs)], "refusal": None}
            yield orjson.dumps({"index": index, "delta": {"content": piece}, "logprobs": logprobs, "finish_reason": None}), 1
    else:
        before = b'{"index":%d,"delta":{"content":' % index
        dumps = orjson.dumps
        for piece in choice.pieces:
            yield before + dumps(piece) + b'},"logprobs":null,"finish_reason":null}', 1
    yield _chunk(index, {}, choice.finish_reason), 0


def _call_deltas(choice: Choice, index: int) -> Iterator[Part]:
    for place, call in enumerate(choice.calls):
        yield _chunk(index, {"tool_calls": [{"index": place, "id": call.id, **_call(call, call.name, "")}]}), 1
        for piece in call.pieces:
            yield _chunk(index, {"tool_calls": [{"index": place, **_call(call, None, piece)}]}), 1


def _legacy_deltas(choice: Choice, index: int) -> Iterator[Part]:
    call = choice.calls[0]
    yield _chunk(index, {"function_call": {"name": call.name, "arguments": ""}}), 1
    for piece in call.pieces:
        yield _chunk(index, {"function_call": {"arguments": piece}}), 1
