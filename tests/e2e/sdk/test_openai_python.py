"""The official Python SDK, unmodified but for `base_url`, against an upstream that speaks OpenAI."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import threading
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.e2e.sdk.conftest import CLIENT_KEY, UPSTREAM_KEYS, Sdk, recorded
from tests.e2e.sdk.openai_answers import EMBEDDING, UNKNOWN, chat_frames
from tests.support.gateway import Gateway
from tests.support.provider_double import ProviderDouble, stream

MODEL = "gpt-4.1"
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "Olá, how do you do?"}]
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


class Weather(BaseModel):
    city: str
    celsius: int


@pytest.fixture
def client(sdk: Sdk, gateway: Gateway) -> Any:
    return sdk.client(gateway)


def text_of(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


# -- chat ---------------------------------------------------------------------------------------------------------------------------


def test_a_chat_passes_byte_for_byte_both_ways(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    raw = sdk.do(client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO, temperature=0.7))
    assert raw.http_request.content == double.last.body
    assert raw.content == double.last.answer
    completion = raw.parse()
    assert completion.choices[0].message.content == "You said: Olá, how do you do?"
    assert completion.usage.total_tokens == 14
    assert completion.model_extra["x_double"] == UNKNOWN


def test_a_chat_reports_the_request_id_and_is_recorded_under_it(sdk: Sdk, client: Any, double: ProviderDouble, gateway: Gateway) -> None:
    completion = sdk.do(client.chat.completions.create(model=MODEL, messages=HELLO))
    record = recorded(gateway, completion._request_id)
    expected = {"operation": "chat", "status": 200, "outcome": "ok", "provider": "double", "stream": False, "usage": "reported"}
    assert {key: record[key] for key in expected} == expected
    assert (record["prompt_tokens"], record["completion_tokens"]) == (9, 5)


def test_the_clients_credentials_stay_here_and_the_gateways_go_up(sdk: Sdk, gateway: Gateway, double: ProviderDouble) -> None:
    client = sdk.client(gateway, organization="org-client", project="proj-client")
    sdk.do(client.chat.completions.create(model=MODEL, messages=HELLO))
    sent = {name.lower(): value for name, value in double.last.headers.items()}
    assert sent["authorization"] == f"Bearer {UPSTREAM_KEYS['DOUBLE_KEY']}"
    assert (sent["openai-organization"], sent["openai-project"], sent["x-team"]) == ("org-gateway", "proj-gateway", "search")
    assert not any(CLIENT_KEY in value or value.endswith("-client") for value in sent.values())


@pytest.mark.parametrize("path", ["", "/v1", "/v1/"])
def test_a_base_url_works_with_and_without_v1(sdk: Sdk, gateway: Gateway, double: ProviderDouble, path: str) -> None:
    client = sdk.client(gateway, path)
    assert sdk.do(client.chat.completions.create(model=MODEL, messages=HELLO)).choices
    assert double.last.path == "/v1/chat/completions"


def test_unknown_fields_reach_the_upstream_byte_identical(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    extra = {
        "x_new": {"float": 1.0, "small": 1e-7, "big": 2**70, "text": "\u2028 caf\u00e9 \U0001f642", "empty": {}, "null": None},
        "seed": 3,
    }
    raw = sdk.do(client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO, extra_body=extra))
    assert raw.http_request.content == double.last.body
    assert double.last.json["x_new"] == extra["x_new"]


def test_a_models_prefix_is_the_only_thing_taken_out(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    extra = {"x_new": {"model": "double/gpt-4.1", "big": 2**70, "float": 1.0}}
    asked = client.chat.completions.with_raw_response.create(model="double/gpt-4.1", messages=HELLO, extra_body=extra)
    raw = sdk.do(asked)
    sent = raw.http_request.content
    assert double.last.json["model"] == "gpt-4.1"
    assert sent.replace(b'"double/gpt-4.1"', b'"gpt-4.1"', 1) == double.last.body
    assert raw.headers["x-comporta-provider"] == "double"


def test_a_public_name_is_replaced_by_the_upstreams(sdk: Sdk, routed: Gateway, double: ProviderDouble) -> None:
    raw = sdk.do(sdk.client(routed).chat.completions.with_raw_response.create(model="fast", messages=HELLO))
    assert raw.http_request.content.replace(b'"fast"', b'"gpt-4.1-mini"', 1) == double.last.body
    assert raw.parse().model == "gpt-4.1-mini"
    assert raw.headers["x-comporta-model"] == "fast"


def test_an_image_goes_through_as_it_is(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    url = "data:image/png;base64," + base64.b64encode(bytes(range(256)) * 6000).decode()
    content = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url, "detail": "low"}}]
    ask = client.chat.completions.with_raw_response.create(model=MODEL, messages=[{"role": "user", "content": content}])
    raw = sdk.do(ask)
    assert raw.http_request.content == double.last.body
    assert raw.parse().choices[0].message.content == f"You said: What is this? (images: 1, {len(url)} characters)"


def test_tools_are_called(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    completion = sdk.do(client.chat.completions.create(model=MODEL, messages=HELLO, tools=[WEATHER], tool_choice="required"))
    choice = completion.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls[0].function.name == "weather"
    assert json.loads(choice.message.tool_calls[0].function.arguments) == {"city": "Lisbon"}
    assert double.last.json["tools"] == [WEATHER]


def test_a_json_schema_is_asked_for_and_parsed(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    completion = sdk.do(client.chat.completions.parse(model=MODEL, messages=HELLO, response_format=Weather))
    assert completion.choices[0].message.parsed == Weather(city="Lisbon", celsius=21)
    assert double.last.json["response_format"]["json_schema"]["name"] == "Weather"


def test_many_calls_at_once_keep_their_own_answers(gateway: Gateway, double: ProviderDouble) -> None:
    async def ask() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=CLIENT_KEY, max_retries=0) as client:
            calls = [client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": str(n)}]) for n in range(40)]
            return [answer.choices[0].message.content for answer in await asyncio.gather(*calls)]

    assert asyncio.run(ask()) == [f"You said: {n}" for n in range(40)]


# -- streams ------------------------------------------------------------------------------------------------------------------------


def test_a_stream_arrives_whole(sdk: Sdk, client: Any, double: ProviderDouble, gateway: Gateway) -> None:
    raw = sdk.do(client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO, stream=True))
    chunks = sdk.each(raw.parse())
    assert text_of(chunks) == "You said: Olá, how do you do?"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert {(chunk.id, chunk.created, chunk.model) for chunk in chunks} == {("chatcmpl-1", 1_700_000_000, MODEL)}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.model_extra["x_double"] == UNKNOWN for chunk in chunks)
    record = recorded(gateway, raw.headers["x-request-id"])
    assert (record["outcome"], record["stream"], record["usage"], record["completion_tokens"]) == ("ok", True, "reported", 5)


def test_usage_is_asked_for_upstream_and_kept_from_a_client_that_did_not_ask(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    chunks = sdk.each(sdk.do(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)))
    assert double.last.json["stream_options"]["include_usage"] is True
    assert all(chunk.choices and not chunk.usage for chunk in chunks)


def test_a_client_that_asks_for_usage_gets_it_last(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    options = {"include_usage": True, "include_obfuscation": False}
    ask = client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO, stream=True, stream_options=options)
    raw = sdk.do(ask)
    chunks = sdk.each(raw.parse())
    assert raw.http_request.content == double.last.body
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == 14
    assert not any(chunk.usage for chunk in chunks[:-1])


@pytest.mark.parametrize("asked", [{}, {"stream_options": {"include_usage": True}}], ids=["plain", "with usage"])
def test_an_event_is_delivered_before_the_next_one_exists(sdk: Sdk, client: Any, double: ProviderDouble, asked: dict[str, Any]) -> None:
    gate = threading.Event()
    role, first, *rest = chat_frames({"model": MODEL, "messages": HELLO, "stream_options": {"include_usage": True}})
    double.answer_next(stream([role + first, *rest], gate=gate))  # nothing is handed on before content has begun
    chunks = sdk.do(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True, **asked))
    assert text_of([sdk.next(chunks), sdk.next(chunks)]) == "You "
    gate.set()
    assert text_of(sdk.each(chunks)) == "said: Olá, how do you do?"


def test_a_pause_longer_than_the_ping_goes_unnoticed(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    frames = chat_frames({"model": MODEL, "messages": [{"role": "user", "content": "x"}], "stream_options": {"include_usage": True}})
    double.answer_next(stream([b"", b"".join(frames[:2]), b"".join(frames[2:])], gap=0.7))
    chunks = sdk.each(sdk.do(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)))
    assert text_of(chunks) == "You said: x"


def test_tool_calls_are_assembled_from_a_stream(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    chunks = sdk.each(sdk.do(client.chat.completions.create(model=MODEL, messages=HELLO, tools=[WEATHER], stream=True)))
    calls = [chunk.choices[0].delta.tool_calls[0] for chunk in chunks if chunk.choices[0].delta.tool_calls]
    assert (calls[0].index, calls[0].id, calls[0].function.name) == (0, "call_1", "weather")
    assert not any(call.id or call.function.name for call in calls[1:])
    assert json.loads("".join(call.function.arguments for call in calls)) == {"city": "Lisbon"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_the_stream_helper_parses_a_schema(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    def final(events: Any) -> Any:
        names = [event.type for event in sdk.each(events)]
        assert "content.delta" in names
        return sdk.do(events.get_final_completion())

    completion = sdk.within(client.chat.completions.stream(model=MODEL, messages=HELLO, response_format=Weather), final)
    assert completion.choices[0].message.parsed == Weather(city="Lisbon", celsius=21)


def test_streamed_lines_can_be_read_raw(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    ask = client.chat.completions.with_streaming_response.create(
        model=MODEL, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    lines = sdk.within(ask, lambda response: sdk.each(response.iter_lines()))
    assert lines == double.last.answer.decode().splitlines()


# -- raw responses, embeddings, completions, models -----------------------------------------------------------------------------------


def test_raw_headers_name_the_provider_and_the_model(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    raw = sdk.do(client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO))
    assert raw.headers["x-request-id"]
    assert raw.headers["content-type"].startswith("application/json")
    assert (raw.headers["x-comporta-provider"], raw.headers["x-comporta-model"]) == ("double", MODEL)
    assert raw.headers["openai-version"] == "2020-10-01"
    assert float(raw.headers["openai-processing-ms"]) >= 0
    assert float(raw.headers["x-comporta-overhead-ms"]) >= 0


def test_a_response_can_be_read_as_it_streams_in(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    ask = client.chat.completions.with_streaming_response.create(model=MODEL, messages=HELLO)
    assert b"".join(sdk.within(ask, lambda response: sdk.each(response.iter_bytes()))) == double.last.answer


def test_embeddings_come_as_floats(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    ask = client.embeddings.with_raw_response.create(model="text-embedding-3-small", input=["a", "b"], encoding_format="float")
    raw = sdk.do(ask)
    assert (raw.http_request.content, raw.content) == (double.last.body, double.last.answer)
    assert [tuple(row.embedding) for row in raw.parse().data] == [EMBEDDING, EMBEDDING]


def test_embeddings_come_as_base64(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    ask = client.embeddings.with_raw_response.create(model="text-embedding-3-small", input="a", encoding_format="base64")
    packed = json.loads(sdk.do(ask).content)["data"][0]["embedding"]
    assert struct.unpack("<3f", base64.b64decode(packed)) == EMBEDDING


def test_the_sdk_decodes_the_embeddings_that_it_asks_for_by_default(sdk: Sdk, gateway: Gateway, double: ProviderDouble) -> None:
    client = sdk.client(gateway, _strict_response_validation=False)  # its own base64 does not pass its own check
    answer = sdk.do(client.embeddings.create(model="text-embedding-3-small", input="a"))
    assert double.last.json["encoding_format"] == "base64"
    assert tuple(answer.data[0].embedding) == EMBEDDING


def test_legacy_completions_answer_whole_and_streamed(sdk: Sdk, gateway: Gateway, double: ProviderDouble) -> None:
    client = sdk.client(gateway, _strict_response_validation=False)  # its types have no chunk without a finish reason
    assert sdk.do(client.completions.create(model=MODEL, prompt="Once")).choices[0].text == "Once upon"
    chunks = sdk.each(sdk.do(client.completions.create(model=MODEL, prompt="Once", stream=True)))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "Once upon"


def test_models_are_listed_and_retrieved_by_their_public_names(sdk: Sdk, routed: Gateway, double: ProviderDouble) -> None:
    client = sdk.client(routed)
    names = {model.id for model in sdk.each(client.models.list())}
    assert {"gpt-4.1", "fast", "text-embedding-3-small"} <= names
    assert sdk.do(client.models.retrieve("fast")).id == "fast"
