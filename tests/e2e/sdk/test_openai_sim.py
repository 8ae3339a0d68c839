"""The core of the official Python SDK with no configuration at all: the simulated provider answers."""

from __future__ import annotations

import math
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel

from tests.e2e.sdk.conftest import Sdk, Unconfigured

HELLO: list[dict[str, Any]] = [{"role": "user", "content": "Write about a gate in a river."}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}


class Part(BaseModel):
    name: str
    size: Literal["small", "big"]
    weight: float


class Gate(BaseModel):
    open: bool
    level: int
    parts: list[Part]


@pytest.fixture
def client(sdk: Sdk, unconfigured: Unconfigured) -> Any:
    return sdk.client(unconfigured)


@pytest.fixture
def lenient(sdk: Sdk, unconfigured: Unconfigured) -> Any:
    """For what the SDK's own types do not describe: packed embeddings, completion chunks without a finish reason."""
    return sdk.client(unconfigured, _strict_response_validation=False)


def text_of(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_a_chat_answers_and_says_that_it_is_simulated(sdk: Sdk, client: Any) -> None:
    raw = sdk.do(client.chat.completions.with_raw_response.create(model="sim", messages=HELLO))
    completion = raw.parse()
    assert completion.choices[0].message.content
    assert completion.choices[0].finish_reason in {"stop", "length"}
    assert "sim" in completion.model
    assert raw.headers["x-comporta-provider"] == "sim"
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens


def test_a_stream_says_what_the_whole_answer_says(sdk: Sdk, client: Any) -> None:
    whole = sdk.do(client.chat.completions.create(model="sim", messages=HELLO))
    chunks = sdk.each(
        sdk.do(client.chat.completions.create(model="sim", messages=HELLO, stream=True, stream_options={"include_usage": True}))
    )
    assert text_of(chunks) == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_any_model_of_sim_answers(sdk: Sdk, client: Any) -> None:
    assert sdk.do(client.chat.completions.create(model="sim/whatever", messages=HELLO)).choices[0].message.content


def test_max_tokens_stop_and_n_are_honoured(sdk: Sdk, client: Any) -> None:
    short = sdk.do(client.chat.completions.create(model="sim", messages=HELLO, max_completion_tokens=3))
    assert (short.choices[0].finish_reason, short.usage.completion_tokens) == ("length", 3)
    full = sdk.do(client.chat.completions.create(model="sim", messages=HELLO)).choices[0].message.content
    word = full.split()[2]
    stopped = sdk.do(client.chat.completions.create(model="sim", messages=HELLO, stop=[word]))
    assert stopped.choices[0].finish_reason == "stop"
    assert stopped.choices[0].message.content == full[: full.index(word)]
    several = sdk.do(client.chat.completions.create(model="sim", messages=HELLO, n=3))
    assert [choice.index for choice in several.choices] == [0, 1, 2]


def test_several_choices_are_streamed_side_by_side(sdk: Sdk, client: Any) -> None:
    chunks = sdk.each(sdk.do(client.chat.completions.create(model="sim", messages=HELLO, n=2, stream=True)))
    finished = [choice.index for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert sorted(finished) == [0, 1]


def test_tools_are_called_with_arguments_of_their_schema(sdk: Sdk, client: Any) -> None:
    class Arguments(BaseModel, extra="forbid"):
        city: str
        unit: Literal["C", "F"]

    completion = sdk.do(client.chat.completions.create(model="sim", messages=HELLO, tools=[WEATHER], tool_choice="required"))
    call = completion.choices[0].message.tool_calls[0]
    assert completion.choices[0].finish_reason == "tool_calls"
    assert Arguments.model_validate_json(call.function.arguments)
    chunks = sdk.each(
        sdk.do(client.chat.completions.create(model="sim", messages=HELLO, tools=[WEATHER], tool_choice="required", stream=True))
    )
    deltas = [delta for chunk in chunks for choice in chunk.choices for delta in choice.delta.tool_calls or ()]
    assert deltas[0].function.name == "weather"
    assert Arguments.model_validate_json("".join(delta.function.arguments or "" for delta in deltas))


def test_a_conversation_goes_on_after_a_tool_has_answered(sdk: Sdk, client: Any) -> None:
    first = sdk.do(client.chat.completions.create(model="sim", messages=HELLO, tools=[WEATHER], tool_choice="required"))
    message = first.choices[0].message
    told = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "21 degrees"}
    messages = [*HELLO, message.model_dump(exclude_none=True), told]
    second = sdk.do(client.chat.completions.create(model="sim", messages=messages, tools=[WEATHER]))
    assert second.choices[0].message.content


def test_a_json_schema_is_filled(sdk: Sdk, client: Any) -> None:
    completion = sdk.do(client.chat.completions.parse(model="sim", messages=HELLO, response_format=Gate))
    assert isinstance(completion.choices[0].message.parsed, Gate)


def test_an_image_is_taken(sdk: Sdk, client: Any) -> None:
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]
    assert sdk.do(client.chat.completions.create(model="sim", messages=[{"role": "user", "content": content}])).choices[0].message.content


def test_embeddings_are_stable_and_follow_the_words(sdk: Sdk, client: Any, lenient: Any) -> None:
    texts = ["a red gate in the river", "a red gate in a river", "quarterly revenue grew"]
    floats = [row.embedding for row in sdk.do(client.embeddings.create(model="sim", input=texts, encoding_format="float")).data]
    packed = [row.embedding for row in sdk.do(lenient.embeddings.create(model="sim", input=texts)).data]
    assert all(one == pytest.approx(other, rel=1e-6) for one, other in zip(floats, packed, strict=True))

    def likeness(one: list[float], other: list[float]) -> float:
        return sum(a * b for a, b in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))

    assert likeness(floats[0], floats[1]) > likeness(floats[0], floats[2]) + 0.2


def test_legacy_completions_answer(sdk: Sdk, lenient: Any) -> None:
    whole = sdk.do(lenient.completions.create(model="sim", prompt="Once upon a time", max_tokens=8)).choices[0].text
    chunks = sdk.each(sdk.do(lenient.completions.create(model="sim", prompt="Once upon a time", max_tokens=8, stream=True)))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole != ""


def test_models_are_listed_and_retrieved(sdk: Sdk, client: Any) -> None:
    assert "sim" in [model.id for model in sdk.each(client.models.list())]
    assert all(type(model.created) is int and model.owned_by and model.object == "model" for model in sdk.each(client.models.list()))
    assert sdk.do(client.models.retrieve("sim")).id == "sim"
    for name in ("sim/sim", "sim/any/name"):
        found = sdk.do(client.models.retrieve(name))
        assert (found.id, found.object, found.owned_by, type(found.created)) == (name, "model", "sim", int)
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.do(client.models.retrieve("simm"))
    assert caught.value.code == "model_not_found"


def test_responses_answer_whole_and_streamed(sdk: Sdk, lenient: Any) -> None:
    whole = sdk.do(lenient.responses.create(model="sim", input="Write about a gate."))
    assert whole.output_text
    events = sdk.each(sdk.do(lenient.responses.create(model="sim", input="Write about a gate.", stream=True)))
    assert events[-1].type == "response.completed"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text


def test_an_unknown_model_is_refused_with_the_names_there_are(sdk: Sdk, client: Any) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.do(client.chat.completions.create(model="gpt-4.1", messages=HELLO))
    assert caught.value.code == "model_not_found"
    assert "sim" in caught.value.message
