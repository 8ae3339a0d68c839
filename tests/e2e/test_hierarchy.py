"""The hierarchy of configurations through a real gateway: what the official client asks, what the provider gets, what comes back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.support.gateway import Gateway, provider
from tests.support.script import error_response, script
from tests.support.upstream import Upstream

ANSWER = json.dumps(
    {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "served",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
).encode()
OK = script(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER))
ASKED: Any = [{"role": "user", "content": "hi"}]

LLM = {
    "default_model": "llama3.2:3b",
    "fallback_model": "llama3.2:1b",
    "timeout": "60s",
    "max_retries": 0,
    "task_types": {
        "TASK_TYPE_INSIGHT_GENERATION": {"model": "llama3.2:3b", "timeout": "45s", "max_retries": 0},
        "TASK_TYPE_WEEKLY_REPORT": {"model": "llama3.2:7b", "timeout": "120s", "max_retries": 0},
    },
    "model_params": {
        "llama3.2:3b": {"temperature": 0.7, "max_tokens": 2048, "context_window": 100},
        "llama3.2:7b": {"temperature": 0.6, "max_tokens": 4096, "context_window": 1000},
    },
    "larger_model": "llama3.2:7b",
    "allowed_models": ["llama3.2:*"],
}


@pytest.fixture(scope="module")
def hierarchy(raw_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    config = {"providers": {"up": provider(raw_upstream.url)}, "llm": LLM}
    with Gateway(config, tmp_path_factory.mktemp("hierarchy")) as running:
        yield running


@pytest.fixture
def client(hierarchy: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=hierarchy.url + "/v1", api_key="none", max_retries=0, timeout=10) as made:
        yield made


def test_auto_takes_the_model_and_the_parameters_of_the_task_type(client: openai.OpenAI, upstream: Upstream, hierarchy: Gateway) -> None:
    upstream.play(OK)
    answer = client.chat.completions.with_raw_response.create(
        model="auto", messages=ASKED, extra_headers={"x-comporta-task-type": "TASK_TYPE_WEEKLY_REPORT"}
    )
    sent = upstream.wait_request().json()
    assert sent == {"model": "llama3.2:7b", "temperature": 0.6, "max_tokens": 4096, "messages": ASKED}
    assert answer.headers["x-comporta-config-source"] == "task_type"
    assert answer.headers["x-comporta-model"] == "llama3.2:7b"
    record = hierarchy.wait_record(lambda record: record["id"] == answer.headers["x-request-id"])
    assert (record["model"], record["task_type"], record["config_source"]) == ("llama3.2:7b", "TASK_TYPE_WEEKLY_REPORT", "task_type")
    assert "task_type_known" not in record


def test_a_task_type_may_stand_in_the_metadata_and_an_unknown_one_is_recorded(
    client: openai.OpenAI, upstream: Upstream, hierarchy: Gateway
) -> None:
    upstream.play(OK)
    answer = client.chat.completions.with_raw_response.create(model="auto", messages=ASKED, metadata={"task_type": "TASK_TYPE_OF_TOMORROW"})
    assert upstream.wait_request().json()["model"] == "llama3.2:3b"
    assert upstream.wait_request().json()["metadata"] == {"task_type": "TASK_TYPE_OF_TOMORROW"}
    record = hierarchy.wait_record(lambda record: record["id"] == answer.headers["x-request-id"])
    assert (record["task_type"], record["task_type_known"], record["config_source"]) == ("TASK_TYPE_OF_TOMORROW", False, "system")


def test_what_is_ours_is_taken_out_and_the_other_bytes_stay(client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.play(OK)
    raw = (
        b'{ "model" : "llama3.2:1b",\n "comporta": {"timeout": "5s", "fallback_model": "llama3.2:3b"} ,"messages":'
        b' [{"role":"user","content":"\\u00e9"}], "x": 1.50}'
    )
    answer = client.post(
        "/chat/completions",
        cast_to=openai.types.chat.ChatCompletion,
        options={"headers": {"content-type": "application/json"}},
        content=raw,
    )
    assert answer.choices[0].message.content == "ok"
    assert upstream.wait_request().body == raw.replace(b'"comporta": {"timeout": "5s", "fallback_model": "llama3.2:3b"} ,', b"")


def test_without_anything_of_ours_the_bytes_are_untouched(client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.play(OK)
    raw = b'{ "model" :"llama3.2:1b" ,"messages":[ ] , "x" : 1.50}'
    client.post("/chat/completions", cast_to=object, options={"headers": {"content-type": "application/json"}}, content=raw)
    assert upstream.wait_request().body == raw


def test_what_the_request_sets_itself_is_not_filled(client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.play(OK)
    answer = client.chat.completions.with_raw_response.create(
        model="auto", messages=ASKED, temperature=0, max_completion_tokens=5, extra_headers={"x-comporta-explain": "true"}
    )
    assert upstream.wait_request().json() == {
        "model": "llama3.2:3b",
        "temperature": 0,
        "max_completion_tokens": 5,
        "messages": ASKED,
    }
    account = json.loads(answer.headers["x-comporta-explain"])
    assert account["values"]["model"] == ["llama3.2:3b", "system"]
    assert account["values"]["temperature"] == [0, "request"]
    assert account["values"]["timeout"] == [60.0, "system"]
    assert answer.headers["x-comporta-config-source"] == account["source"] == "request"


def test_a_request_need_not_name_a_model(client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.play(OK)
    client.post("/chat/completions", cast_to=object, body={"messages": ASKED})
    assert upstream.wait_request().json()["model"] == "llama3.2:3b"


def test_a_model_that_is_not_allowed_is_refused_with_the_reason(client: openai.OpenAI, upstream: Upstream) -> None:
    with pytest.raises(openai.PermissionDeniedError) as caught:
        client.chat.completions.create(model="gpt-4.1", messages=ASKED)
    assert caught.value.code == "model_not_allowed"
    assert "llm.allowed_models" in caught.value.message
    assert not upstream.requests


@pytest.mark.parametrize(
    ("member", "param"),
    [
        ({"timeout": "soon"}, "comporta.timeout"),
        ({"max_retries": 11}, "comporta.max_retries"),
        ({"tiemout": 5}, "comporta.tiemout"),
        ({"params": {"temperature": 3}}, "comporta.params.temperature"),
        (5, "comporta"),
    ],
)
def test_a_bad_value_is_refused_by_name(client: openai.OpenAI, upstream: Upstream, member: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="auto", messages=ASKED, extra_body={"comporta": member})
    assert caught.value.param == param
    assert not upstream.requests


def test_a_prompt_that_is_too_long_goes_to_the_larger_model_or_is_refused(client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.play(OK)
    client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "word " * 200}])
    assert upstream.wait_request().json()["model"] == "llama3.2:7b"
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "word " * 2000}])
    assert caught.value.code == "context_length_exceeded"


def test_a_request_may_set_its_own_time_limit(client: openai.OpenAI, upstream: Upstream) -> None:
    from_upstream = script(b"")  # nothing comes: only the time limit ends it
    upstream.play(from_upstream)
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(
            model="llama3.2:1b", messages=ASKED, extra_headers={"x-comporta-timeout": "300ms", "x-comporta-max-retries": "0"}
        )
    assert caught.value.status_code == 504


def test_what_a_request_would_get_can_be_asked(client: openai.OpenAI) -> None:
    found: Any = client.get("/llm/config/preview?task_type=TASK_TYPE_WEEKLY_REPORT", cast_to=object)
    assert found["values"]["model"] == {"value": "llama3.2:7b", "source": "task_type"}
    assert found["values"]["fallback_model"] == {"value": "llama3.2:1b", "source": "system"}
    assert {"record", "resolve", "route"} <= set(found["policies"])


def test_the_models_of_the_hierarchy_are_listed_with_their_uses(client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.play(script(b"HTTP/1.1 200 OK\r\ncontent-length: 27\r\n\r\n" + b'{"object":"list","data":[]}'))
    found: Any = client.get("/llm/models", cast_to=object)
    by_id = {model["id"]: model for model in found["data"]}
    assert by_id["llama3.2:3b"]["used_as"] == ["default", "TASK_TYPE_INSIGHT_GENERATION"]
    assert by_id["llama3.2:7b"]["context_window"] == 1000
    assert "sim" not in by_id  # llm.allowed_models leaves it out


def test_when_the_model_fails_the_fallback_answers_and_the_log_says_so(
    client: openai.OpenAI, upstream: Upstream, hierarchy: Gateway
) -> None:
    upstream.play(script(error_response(500, "broken")), OK)
    answer = client.chat.completions.with_raw_response.create(
        model="auto", messages=ASKED, extra_headers={"x-comporta-task-type": "TASK_TYPE_INSIGHT_GENERATION"}
    )
    assert [request.json()["model"] for request in (upstream.wait_request(1), upstream.wait_request(2))] == ["llama3.2:3b", "llama3.2:1b"]
    assert answer.headers["x-comporta-model"] == "llama3.2:1b"
    line = hierarchy.wait_line("Primary model failed, trying fallback")
    assert "llama3.2:3b" in line.values()
    assert "llama3.2:1b" in line.values()


def test_a_fallback_that_fails_too_ends_there(client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.play(script(error_response(500, "broken")), script(error_response(500, "broken too")))
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="auto", messages=ASKED)
    assert len(upstream.requests) == 2
