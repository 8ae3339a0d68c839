"""A real llama.cpp server asked twice, directly and through the gateway: the same bytes but for what differs between any two answers.

The second answer of llama.cpp to one request differs from the first in `id`, `created` and `timings`; `cache_prompt: false`, a field
that only llama.cpp knows, keeps its prompt cache out of the usage.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any, Literal

import httpx2
import openai
import pytest
from pydantic import BaseModel

from tests.e2e.sdk.conftest import CLIENT_KEY, Sdk, recorded
from tests.support.engine import MODEL, SLOTS, Engine
from tests.support.gateway import Gateway

FREED_WITHIN = 0.5
PROMPTLY = 1.0
VOLATILE = re.compile(rb'"(id|created|created_at|completed_at)":("[^"]*"|\d+)|,"timings":\{[^}]*\}')
HELLO: list[dict[str, Any]] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Olá ☕, who are you?"}]
SURE = {"temperature": 0, "seed": 11, "cache_prompt": False}
LONG: dict[str, Any] = {"max_tokens": 7000, "temperature": 1, "seed": 5, "extra_body": {"ignore_eos": True}}  # about ten seconds
SCHEMA = {
    "type": "object",
    "properties": {"open": {"type": "boolean"}, "level": {"enum": ["low", "high"]}},
    "required": ["open", "level"],
    "additionalProperties": False,
}
SHAPED = {"type": "json_schema", "json_schema": {"name": "gate", "strict": True, "schema": SCHEMA}}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}

CHATS: dict[str, dict[str, Any]] = {
    "greedy": {"max_tokens": 12},
    "sampled": {"max_tokens": 12, "temperature": 1.3, "top_p": 0.9},
    "stopped": {"max_tokens": 40, "stop": ["1", "J"]},
    "logprobs": {"max_tokens": 4, "logprobs": True, "top_logprobs": 2},
    "schema": {"max_tokens": 200, "response_format": SHAPED},
    "tools": {"max_tokens": 12, "tools": [WEATHER]},
    "a grammar, which OpenAI does not know": {"max_tokens": 12, "grammar": 'root ::= "open" | "shut"'},
    "a nested unknown field": {"max_tokens": 4, "logit_bias": [[52, 100.0]], "x_new": {"big": 2**70, "float": 1.0}},
}
COMPLETIONS: dict[str, dict[str, Any]] = {
    "greedy": {"max_tokens": 8},
    "probabilities by llama.cpp's own name": {"max_tokens": 3, "n_probs": 2},
    "a prompt of tokens": {"prompt": [1, 75, 108], "max_tokens": 4},
}
EMBEDDINGS: dict[str, dict[str, Any]] = {
    "one": {"input": "a gate", "encoding_format": "float"},
    "several": {"input": ["a gate", "a door", "☕"], "encoding_format": "float"},
    "packed": {"input": ["a gate"], "encoding_format": "base64"},
}


class Gate(BaseModel):
    open: bool
    level: Literal["low", "high"]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(tmp_path_factory.mktemp("engine")) as running:
        yield running


@pytest.fixture(scope="module")
def before_engine(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    config = {"default_provider": "engine", "providers": {"engine": {"kind": "openai", "base_url": engine.url}}}
    with Gateway(config, tmp_path_factory.mktemp("before-engine")) as running:
        yield running


def asked(url: str, path: str, body: dict[str, Any]) -> httpx2.Response:
    """The raw answer to the SDK's request, read to its end."""
    with openai.OpenAI(base_url=url, api_key=CLIENT_KEY, max_retries=0, timeout=20) as client:
        return client.post(path, body=body, cast_to=httpx2.Response)


def both(engine: Engine, gateway: Gateway, path: str, body: dict[str, Any]) -> tuple[httpx2.Response, httpx2.Response]:
    return asked(engine.url, path, body), asked(f"{gateway.url}/v1", path, body)


def settled(body: bytes) -> bytes:
    return VOLATILE.sub(b"", body)


def assert_same(direct: httpx2.Response, through: httpx2.Response) -> None:
    assert through.status_code == direct.status_code == 200
    assert settled(through.content) == settled(direct.content)
    assert through.headers["content-type"].partition(";")[0] == direct.headers["content-type"].partition(";")[0]


def usage_of(answer: httpx2.Response) -> tuple[int, int]:
    """Prompt and completion tokens as the engine reported them, in the body or in the stream's last event."""
    found = re.findall(rb'"usage":\{"completion_tokens":(\d+),"prompt_tokens":(\d+)', answer.content)
    return int(found[-1][1]), int(found[-1][0])


# -- the same answers ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", CHATS.values(), ids=CHATS)
def test_a_chat_answers_the_same(engine: Engine, before_engine: Gateway, body: dict[str, Any]) -> None:
    direct, through = both(engine, before_engine, "/chat/completions", {"model": MODEL, "messages": HELLO, **SURE, **body})
    assert_same(direct, through)
    record = recorded(before_engine, through.headers["x-request-id"])
    assert (record["prompt_tokens"], record["completion_tokens"], record["usage"]) == (*usage_of(direct), "reported")


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": True}}], ids=["plain", "with usage"])
@pytest.mark.parametrize("body", CHATS.values(), ids=CHATS)
def test_a_streamed_chat_answers_the_same(engine: Engine, before_engine: Gateway, body: dict[str, Any], options: dict[str, Any]) -> None:
    asked_for = {"model": MODEL, "messages": HELLO, "stream": True, **SURE, **body, **options}
    direct, through = both(engine, before_engine, "/chat/completions", asked_for)
    assert_same(direct, through)
    assert through.content.endswith(b"data: [DONE]\n\n")
    record = recorded(before_engine, through.headers["x-request-id"])
    assert (record["stream"], record["usage"], record["outcome"]) == (True, "reported", "ok")
    if options:
        assert (record["prompt_tokens"], record["completion_tokens"]) == usage_of(direct)


@pytest.mark.parametrize("options", [{}, {"stream": True, "stream_options": {"include_usage": True}}], ids=["whole", "streamed"])
@pytest.mark.parametrize("body", COMPLETIONS.values(), ids=COMPLETIONS)
def test_a_completion_answers_the_same(engine: Engine, before_engine: Gateway, body: dict[str, Any], options: dict[str, Any]) -> None:
    assert_same(*both(engine, before_engine, "/completions", {"model": MODEL, "prompt": "Once", **SURE, **body, **options}))


def test_usage_that_the_engine_sends_unasked_stays(engine: Engine, before_engine: Gateway) -> None:
    """llama.cpp puts it into a completion's last chunk, beside a choice."""
    body = {"model": MODEL, "prompt": "Once", "stream": True, "max_tokens": 4, **SURE}
    direct, through = both(engine, before_engine, "/completions", body)
    assert_same(direct, through)
    assert b'"usage":{' in through.content


@pytest.mark.parametrize("body", EMBEDDINGS.values(), ids=EMBEDDINGS)
def test_an_embedding_answers_the_same(engine: Engine, before_engine: Gateway, body: dict[str, Any]) -> None:
    direct, through = both(engine, before_engine, "/embeddings", {"model": MODEL, **body})
    assert_same(direct, through)
    assert through.content == direct.content


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_response_answers_the_same(engine: Engine, before_engine: Gateway, streamed: bool) -> None:
    body = {"model": MODEL, "input": "Hello", "max_output_tokens": 6, "stream": streamed, **SURE}
    direct, through = both(engine, before_engine, "/responses", body)
    names = re.compile(rb'"(item_id|id)":"[^"]*"')
    assert through.status_code == 200
    assert names.sub(b"", settled(through.content)) == names.sub(b"", settled(direct.content))


# -- through the SDK ----------------------------------------------------------------------------------------------------------------


def test_noise_is_parsed_into_the_shape_that_was_asked_for(sdk: Sdk, before_engine: Gateway) -> None:
    client = sdk.client(before_engine, _strict_response_validation=False)
    completion = sdk.do(client.chat.completions.parse(model=MODEL, messages=HELLO, response_format=Gate, max_tokens=200, extra_body=SURE))
    assert isinstance(completion.choices[0].message.parsed, Gate)


def test_floats_and_packed_embeddings_agree(sdk: Sdk, before_engine: Gateway) -> None:
    client = sdk.client(before_engine, _strict_response_validation=False)
    packed = sdk.do(client.embeddings.create(model=MODEL, input="a gate")).data[0].embedding
    floats = sdk.do(client.embeddings.create(model=MODEL, input="a gate", encoding_format="float")).data[0].embedding
    assert packed == pytest.approx(floats, rel=1e-6)


def test_every_model_that_is_listed_for_the_engine_can_be_used_as_it_is_named(sdk: Sdk, before_engine: Gateway) -> None:
    client = sdk.client(before_engine, _strict_response_validation=False)
    names = [model.id for model in sdk.each(client.models.list()) if MODEL in model.id]
    assert names, "the engine's model is not listed"
    for name in names:
        assert sdk.do(client.models.retrieve(name)).id == name
        completion = sdk.do(client.chat.completions.create(model=name, messages=HELLO, max_tokens=2))
        assert completion.usage.completion_tokens == 2


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_the_engines_refusal_is_shown_in_openais_shape(sdk: Sdk, engine: Engine, before_engine: Gateway, streamed: bool) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x" * 20_000}], "stream": streamed}
    with pytest.raises(openai.BadRequestError) as direct:
        asked(engine.url, "/chat/completions", body)
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.do(sdk.client(before_engine).post("/chat/completions", body=body, cast_to=object))
    assert caught.value.message == direct.value.message
    error = json.loads(caught.value.response.content)["error"]
    assert {"message", "type", "param", "code"} <= error.keys()
    assert error["code"] is None or isinstance(error["code"], str)


# -- leaving ------------------------------------------------------------------------------------------------------------------------


def assert_serves_promptly(gateway: Gateway) -> None:
    started = time.monotonic()
    assert asked(f"{gateway.url}/v1", "/chat/completions", {"model": MODEL, "messages": HELLO, "max_tokens": 4}).status_code == 200
    assert time.monotonic() - started < PROMPTLY


def test_streams_that_are_closed_free_their_slots(sdk: Sdk, engine: Engine, before_engine: Gateway) -> None:
    client = sdk.client(before_engine, _strict_response_validation=False)
    engine.await_busy(0, 10)
    streams = [sdk.do(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True, **LONG)) for _ in range(SLOTS)]
    for stream in streams:
        sdk.next(stream)
        sdk.next(stream)
    assert engine.busy() == SLOTS
    before = before_engine.mark()
    for stream in streams:
        sdk.do(stream.close())
    engine.await_busy(0, FREED_WITHIN)
    assert_serves_promptly(before_engine)
    before_engine.mark()  # waits for the records that are due
    left = [record for record in before_engine.records[before:] if record["status"] == 499]
    assert [(record["outcome"], record["usage"]) for record in left] == [("cancelled", "estimated")] * SLOTS


def test_a_whole_answer_that_nobody_waits_for_is_recorded_as_left(sdk: Sdk, before_engine: Gateway) -> None:
    """llama.cpp works on, for it looks at the connection only when it writes; the gateway does not wait for it."""
    before = before_engine.mark()
    client = sdk.client(before_engine, timeout=0.3)
    with pytest.raises(openai.APITimeoutError):
        sdk.do(
            client.chat.completions.create(
                model=MODEL, messages=HELLO, **{**LONG, "max_tokens": 2000}, extra_headers={"x-stainless-read-timeout": "30"}
            )
        )
    record = before_engine.record_since(before)
    assert (record["status"], record["outcome"], record["usage"]) == (499, "cancelled", "estimated")
    assert_serves_promptly(before_engine)
