from __future__ import annotations

import orjson
import pytest
from jsonschema import Draft202012Validator

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "unit": {"enum": ["celsius", "fahrenheit"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
    },
    "required": ["city", "unit"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "send-mail", "parameters": {"type": "object", "properties": {"to": {"format": "email"}}}}},
    {"type": "function", "function": {"name": "now"}},
]
RESULT = [
    {"role": "user", "content": "Please get_weather in Paris."},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c", "content": "sunny"},
]


def calls_of(told):
    return told.json["choices"][0]["message"].get("tool_calls")


def names_of(told):
    return [call["function"]["name"] for call in calls_of(told) or []]


def gathered(told, index=0):
    """Tool calls put together from deltas as clients do it."""
    calls: list[dict[str, str]] = []
    for chunk in told.chunks:
        for choice in chunk["choices"]:
            for delta in choice["delta"].get("tool_calls", []) if choice["index"] == index else []:
                if delta["index"] == len(calls):
                    assert delta["id"] and delta["type"] == "function"
                    calls.append({"id": delta["id"], "name": delta["function"]["name"], "arguments": ""})
                else:
                    assert delta["index"] == len(calls) - 1
                    assert "id" not in delta and "type" not in delta and "name" not in delta["function"]
                calls[-1]["arguments"] += delta["function"]["arguments"]
    return calls


def test_required_choice_is_answered_by_a_call_that_satisfies_the_schema(chat):
    told = chat("What is it like in Paris?", tools=TOOLS, tool_choice="required")
    (call,) = calls_of(told)
    assert call["type"] == "function"
    assert call["id"].startswith("call_sim_")
    Draft202012Validator(WEATHER).validate(orjson.loads(call["function"]["arguments"]))
    assert orjson.loads(call["function"]["arguments"])["city"] == "Paris"
    choice = told.json["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None


def test_named_tool_is_called(chat):
    assert names_of(chat(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "now"}})) == ["now"]


@pytest.mark.parametrize("prompt", ["call get_weather now please", "Get weather!", "GET-WEATHER"])
def test_mentioned_tools_are_called(chat, prompt):
    assert names_of(chat(prompt, tools=TOOLS))[0] == "get_weather"


def test_unmentioned_tools_are_not(chat):
    told = chat("Forget weathering, I know it is nowhere.", tools=TOOLS)
    assert calls_of(told) is None
    assert told.json["choices"][0]["finish_reason"] == "stop"
    assert calls_of(chat("get_weather", tools=TOOLS, tool_choice="none")) is None


def test_parallel_calls_can_be_forbidden(chat):
    assert names_of(chat("get_weather and now", tools=TOOLS)) == ["get_weather", "now"]
    assert names_of(chat("get_weather and now", tools=TOOLS, parallel_tool_calls=False)) == ["get_weather"]


def test_allowed_tools_are_the_only_ones(chat):
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "now"}}]}
    assert names_of(chat("get_weather", tools=TOOLS, tool_choice={"type": "allowed_tools", "allowed_tools": allowed})) == ["now"]


def test_result_of_a_tool_is_answered_in_text(chat):
    told = chat(messages=RESULT, tools=TOOLS)
    assert calls_of(told) is None
    assert "simulated" in told.json["choices"][0]["message"]["content"]


@pytest.mark.parametrize("fields", [{}, {"n": 2}, {"max_tokens": 6}])
def test_streamed_calls_are_those_of_the_whole_answer(chat, fields):
    asked = {"tools": TOOLS, "tool_choice": "auto", **fields}
    whole, streamed = chat("get_weather and now", **asked), chat("get_weather and now", **asked, stream=True)
    for index, choice in enumerate(whole.json["choices"]):
        expected = [{"id": call["id"], **call["function"]} for call in choice["message"]["tool_calls"]]
        assert gathered(streamed, index) == expected
    assert streamed.chunks[-1]["choices"][0]["finish_reason"] == whole.json["choices"][0]["finish_reason"]


def test_limit_cuts_arguments(chat):
    told = chat("get_weather and now", tools=TOOLS, max_tokens=6)
    assert told.json["choices"][0]["finish_reason"] == "length"
    assert told.json["usage"]["completion_tokens"] == 6
    assert names_of(told) == ["get_weather"]


def test_legacy_functions(chat):
    functions = [{"name": "get_weather", "parameters": WEATHER}]
    told = chat(functions=functions, function_call={"name": "get_weather"})
    call = told.json["choices"][0]["message"]["function_call"]
    Draft202012Validator(WEATHER).validate(orjson.loads(call["arguments"]))
    assert told.json["choices"][0]["finish_reason"] == "function_call"
    deltas = [
        chunk["choices"][0]["delta"].get("function_call") for chunk in chat(functions=functions, function_call="auto", stream=True).chunks
    ]
    assert not any(deltas)
    deltas = [
        delta
        for chunk in chat(functions=functions, function_call={"name": "get_weather"}, stream=True).chunks
        if (delta := chunk["choices"][0]["delta"].get("function_call"))
    ]
    assert deltas[0]["name"] == "get_weather"
    assert "".join(delta["arguments"] for delta in deltas) == call["arguments"]


def test_custom_tools_take_text(chat):
    (call,) = calls_of(chat(tools=[{"type": "custom", "custom": {"name": "poem"}}], tool_choice="required"))
    assert call["type"] == "custom"
    assert call["custom"]["name"] == "poem"
    assert "simulated" in call["custom"]["input"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": {}}, "tools"),
        ({"tools": ["x"]}, "tools[0]"),
        ({"tools": [{}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": 3}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": 3}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "x", "parameters": 3}}]}, "tools[0].function.parameters"),
        ({"tools": [{"type": "magic", "function": {"name": "x"}}]}, "tools[0].type"),
        ({"tools": TOOLS, "tool_choice": "always"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": 3}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function"}}, "tool_choice.function.name"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "nobody"}}}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools.tools"),
        ({"tool_choice": "required"}, "tool_choice"),
    ],
)
def test_what_is_wrong_with_tools_is_named(chat, fields, param):
    told = chat(**fields)
    assert told.status == 400
    assert told.json["error"]["param"] == param
