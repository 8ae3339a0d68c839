"""`/responses`: the same choices in the words of the Responses API, with its typed events.

https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from providers.sim.answer import Choice, ToolCall, choices_of
from providers.sim.refusal import Check, check_fields, empty_array, instance, integer, missing, number, wrong_type
from providers.sim.request import Ask, Conversation, read_content, read_format
from providers.sim.text import count_tokens
from providers.sim.tools import read_tools
from providers.sim.wire import Answer, Part, Stamp, document, duration_of, event_stream, model_name

_CHECKS: dict[str, Check] = {
    "model": instance(str),
    "instructions": instance(str),
    "max_output_tokens": integer(1),
    "temperature": number(0, 2),
    "top_p": number(0, 1),
    "stream": instance(bool),
    "store": instance(bool),
    "tools": instance(list),
    "text": instance(dict),
    "reasoning": instance(dict),
    "metadata": instance(dict),
    "parallel_tool_calls": instance(bool),
}


def responses_answer(body: Mapping[str, Any], stamp: Stamp, length: int, seed: int) -> Answer:
    """The answer to a body for `/responses`. Raises ClientError."""
    ask = _read(body)
    choice = choices_of(ask, length, seed)[0]
    response = _response(body, ask, choice, stamp)
    tokens = duration_of([choice])
    return event_stream(_events(response, choice, stamp), tokens) if ask.stream else document(response, tokens)


def _read(body: Mapping[str, Any]) -> Ask:
    check_fields(body, _CHECKS)
    talk = _read_input(body.get("input"))
    instructions = body.get("instructions") or ""
    tools = read_tools(body, talk.subject, answered=talk.answered)
    return Ask(
        model=body.get("model") or "sim",
        prompt="\x1e".join((instructions, *talk.texts)),
        subject=talk.subject,
        prompt_tokens=talk.tokens + tools.prompt_tokens + count_tokens(instructions),
        seed=body.get("seed"),
        limit=body.get("max_output_tokens"),
        stream=bool(body.get("stream")),
        tools=tools,
        format=read_format((body.get("text") or {}).get("format"), "text.format", ""),
    )


def _read_input(given: Any) -> Conversation:
    if given is None:
        raise missing("input")
    if isinstance(given, str):
        return Conversation([given], 6 + count_tokens(given), given)
    if not isinstance(given, list):
        raise wrong_type("input", "a string or an array of objects", given)
    if not given:
        raise empty_array("input")
    talk = Conversation([])
    for index, item in enumerate(given):
        if not isinstance(item, dict):
            raise wrong_type(f"input[{index}]", "an object", item)
        if "role" in item:
            text, tokens = read_content(item.get("content"), f"input[{index}].content")
            if item["role"] == "user" or not talk.subject:
                talk.subject = text
        else:
            text = orjson.dumps(item).decode()
            tokens = count_tokens(text)
        talk.texts.append(text)
        talk.tokens += tokens + 3
        talk.answered = str(item.get("type", "")).endswith("_call_output")
    return talk


def _response(body: Mapping[str, Any], ask: Ask, choice: Choice, stamp: Stamp) -> dict[str, Any]:
    whole = choice.finish_reason != "length"
    return {
        "id": f"resp_sim_{stamp.serial}",
        "object": "response",
        "created_at": stamp.created,
        "status": "completed" if whole else "incomplete",
        "background": False,
        "error": None,
        "incomplete_details": None if whole else {"reason": "max_output_tokens"},
        "instructions": body.get("instructions"),
        "max_output_tokens": ask.limit,
        "model": model_name(ask.model),
        "output": _output(choice, stamp, "completed" if whole else "incomplete"),
        "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
        "previous_response_id": body.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None, **(body.get("reasoning") or {})},
        "store": False,
        "temperature": body.get("temperature", 1.0),
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "top_p": body.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": {
            "input_tokens": ask.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": choice.tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": ask.prompt_tokens + choice.tokens,
        },
        "metadata": body.get("metadata") or {},
    }


def _output(choice: Choice, stamp: Stamp, status: str) -> list[dict[str, Any]]:
    if choice.calls:
        return [_call_item(call, call.arguments, status) for call in choice.calls]
    content = [_text_part(choice.text)]
    return [{"id": f"msg_sim_{stamp.serial}", "type": "message", "status": status, "role": "assistant", "content": content}]


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _call_item(call: ToolCall, arguments: str, status: str) -> dict[str, Any]:
    kind, member = ("custom_tool_call", "input") if call.custom else ("function_call", "arguments")
    item_id = call.id.replace("call_", "ctc_" if call.custom else "fc_", 1)
    return {"id": item_id, "type": kind, "status": status, "call_id": call.id, "name": call.name, member: arguments}


def _events(response: dict[str, Any], choice: Choice, stamp: Stamp) -> Iterator[Part]:
    started = {**response, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    events = _typed(response, started, choice, stamp)
    for number_, (kind, fields, tokens) in enumerate(events):
        data = orjson.dumps({"type": kind, "sequence_number": number_, **fields})
        yield b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n", tokens


def _typed(response: dict[str, Any], started: dict[str, Any], choice: Choice, stamp: Stamp) -> Iterator[tuple[str, dict[str, Any], int]]:
    yield "response.created", {"response": started}, 0
    yield "response.in_progress", {"response": started}, 0
    if choice.calls:
        for index, (call, item) in enumerate(zip(choice.calls, response["output"], strict=True)):
            yield from _typed_call(call, item, index)
    else:
        yield from _typed_text(choice, response["output"][0])
    yield f"response.{response['status']}", {"response": response}, 0


def _typed_text(choice: Choice, item: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], int]]:
    place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    yield "response.output_item.added", {"output_index": 0, "item": {**item, "status": "in_progress", "content": []}}, 0
    yield "response.content_part.added", {**place, "part": _text_part("")}, 0
    for piece in choice.pieces:
        yield "response.output_text.delta", {**place, "delta": piece, "logprobs": []}, 1
    yield "response.output_text.done", {**place, "text": choice.text, "logprobs": []}, 0
    yield "response.content_part.done", {**place, "part": _text_part(choice.text)}, 0
    yield "response.output_item.done", {"output_index": 0, "item": item}, 0


def _typed_call(call: ToolCall, item: dict[str, Any], index: int) -> Iterator[tuple[str, dict[str, Any], int]]:
    kind, member = ("response.custom_tool_call_input", "input") if call.custom else ("response.function_call_arguments", "arguments")
    place = {"item_id": item["id"], "output_index": index}
    yield "response.output_item.added", {"output_index": index, "item": {**item, "status": "in_progress", member: ""}}, 1
    for piece in call.pieces:
        yield f"{kind}.delta", {**place, "delta": piece}, 1
    yield f"{kind}.done", {**place, member: call.arguments}, 0
    yield "response.output_item.done", {"output_index": index, "item": item}, 0
