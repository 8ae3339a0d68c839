from __future__ import annotations

from typing import Any

import orjson
import pytest
from openai.types.responses import Response

TOOL = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def events_of(told):
    found: list[dict[str, Any]] = []
    for part in told.parts:
        kind, data = part.removesuffix(b"\n\n").split(b"\n")
        event = orjson.loads(data.removeprefix(b"data: "))
        assert kind == b"event: " + event["type"].encode()
        assert event["sequence_number"] == len(found)
        found.append(event)
    return found


def test_answer_is_a_response(say):
    told = say("/responses", {"model": "sim", "input": "Say hello", "instructions": "Be brief"})
    response = Response.model_validate(told.json)
    assert response.output_text.startswith("This is a simulated answer")
    assert response.status == "completed"
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens


@pytest.mark.parametrize(
    "fields", [{}, {"max_output_tokens": 3}, {"input": "get_weather", "tools": [TOOL]}, {"tools": [{"type": "web_search"}]}]
)
def test_stream_ends_in_the_whole_response(say, fields):
    body = {"model": "sim", "input": "hello", **fields}
    whole, events = say("/responses", body).json, events_of(say("/responses", {**body, "stream": True}))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1] == {"type": f"response.{whole['status']}", "sequence_number": len(events) - 1, "response": whole}
    deltas = "".join(event["delta"] for event in events if event["type"].endswith(".delta"))
    item = whole["output"][0]
    assert deltas == (item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"])


def test_limit_makes_it_incomplete(say):
    told = say("/responses", {"input": "hello", "max_output_tokens": 3}).json
    assert told["status"] == "incomplete"
    assert told["incomplete_details"] == {"reason": "max_output_tokens"}


def test_tools_are_called_and_their_output_answered_in_text(say):
    asked: dict[str, Any] = {
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "get_weather in Rome"}]}],
        "tools": [TOOL],
    }
    (call,) = say("/responses", asked).json["output"]
    assert (call["type"], call["name"]) == ("function_call", "get_weather")
    assert orjson.loads(call["arguments"]) == {"city": "Rome"}
    asked["input"] += [call, {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"}]
    assert say("/responses", asked).json["output"][0]["type"] == "message"


def test_format_gives_an_instance(say):
    text = {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object", "properties": {"n": {"const": 4}}}}}
    assert orjson.loads(say("/responses", {"input": "hello", "text": text}).json["output"][0]["content"][0]["text"]) == {"n": 4}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": 5}, "input"),
        ({"input": []}, "input"),
        ({"input": ["x"]}, "input[0]"),
        ({"input": "x", "max_output_tokens": 0}, "max_output_tokens"),
        ({"input": "x", "text": {"format": {"type": "json_schema"}}}, "text.format.name"),
        ({"input": "x", "tools": [{"type": "function", "name": 3}]}, "tools[0].name"),
    ],
)
def test_what_is_wrong_is_named(say, body, param):
    told = say("/responses", body)
    assert told.status == 400
    assert told.json["error"]["param"] == param
