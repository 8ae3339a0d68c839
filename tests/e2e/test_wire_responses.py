"""What comes back to the client when nothing fails: bytes, headers, paths."""

from __future__ import annotations

import re

import pytest

from tests.support.gateway import Gateway, error_of
from tests.support.raw_client import RawClient, ask, chat, chat_body
from tests.support.script import (
    CHAT,
    CHAT_STREAM,
    DONE,
    LAST_CHUNK,
    Send,
    Wait,
    chat_chunks,
    chunk,
    completion,
    json_response,
    response,
    script,
    sse,
    stream_head,
)
from tests.support.upstream import Upstream

PATH = "/v1/chat/completions"


# -------------------------------------------------------------------------------------------------------------------------------- responses
def test_an_answer_is_passed_on_byte_for_byte(gateway: Gateway, upstream: Upstream) -> None:
    plain = b' { "id":"x",\n"x_unknown" :[1.0 , 2e3,"\\u00e9"],'
    plain += b'"choices":[ {"index":0,"message":{"content":"hi","x":null}}],"model":"m\\/1" } \n'
    upstream.play(response(200, plain))
    answer = chat(gateway.url)
    assert answer.status == 200
    assert answer.body == plain
    assert answer.header("content-type") == "application/json"
    assert answer.header("content-length") == str(len(plain))


def test_an_event_stream_is_passed_on_byte_for_byte(gateway: Gateway, upstream: Upstream) -> None:
    events = [
        b'data: { "id":"x" , "choices":[{"index":0,"delta":{"role":"assistant","content":"\\u00e9"},"logprobs" :null}],"x":1.0 }\n\n',
        b'data: {"id":"x","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f"}}]}}]}\n\n',
        b'data: {"id":"x","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{"}}]}}],"obfuscation":"a"}\n\n',
        b'data: {"id":"x","choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]}\n\n',
        b'data: {"id":"x","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}\n\n',
    ]
    upstream.play(sse(events))
    answer = chat(gateway.url, stream=True)
    assert answer.body == b"".join(events) + DONE


def test_an_embedding_is_passed_on_byte_for_byte(gateway: Gateway, upstream: Upstream) -> None:
    request = b'{"model":"test-model","input":[ "a" ,"b"],"encoding_format":"base64","x":1.0}'
    plain = (
        b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":"AACAPw=="}],"usage":{"prompt_tokens":5,"total_tokens":5}}'
    )
    upstream.play(response(200, plain))
    answer = ask(gateway.url, "POST", "/v1/embeddings", request)
    assert (answer.status, answer.body) == (200, plain)
    assert (upstream.requests[0].target, upstream.requests[0].body) == ("/v1/embeddings", request)
    record = gateway.record_of(answer)
    assert record["operation"] == "embedding"
    assert (record["usage"], record["prompt_tokens"]) == ("reported", 5), record


def test_each_event_goes_out_when_it_comes(gateway: Gateway, upstream: Upstream) -> None:
    events = chat_chunks("a b c d", used=None)
    upstream.play(script(stream_head(), *(step for each in events for step in (Send(chunk(each)), Wait(0.06))), chunk(DONE) + LAST_CHUNK))
    answer = chat(gateway.url, stream=True)
    # The role is no content yet: until there is some, the answer may still become an error.
    assert [piece for _, piece in answer.pieces] == [events[0] + events[1], *events[2:], DONE]
    gaps = [later - earlier for (earlier, _), (later, _) in zip(answer.pieces, answer.pieces[1:], strict=False)]
    assert all(gap > 0.02 for gap in gaps), gaps


def test_response_headers(gateway: Gateway, upstream: Upstream) -> None:
    passed = [
        ("openai-version", "2020-10-01"),
        ("openai-processing-ms", "12"),
        ("openai-poll-after-ms", "250"),
        ("x-ratelimit-limit-requests", "60"),
        ("x-ratelimit-remaining-tokens", "149984"),
        ("x-ratelimit-reset-requests", "6m0s"),
    ]
    dropped = [
        ("Server", "upstream-brand/1.0"),
        ("Set-Cookie", "a=b"),
        ("X-Powered-By", "PHP"),
        ("Keep-Alive", "timeout=5"),
        ("Connection", "keep-alive, X-Hop"),
        ("X-Hop", "1"),
        ("Access-Control-Allow-Origin", "*"),
        ("Strict-Transport-Security", "max-age=1"),
        ("openai-organization", "somebody"),
    ]
    upstream.play(json_response(200, completion(), [*passed, *dropped, ("x-request-id", "upstream-own-id")]))
    answer = chat(gateway.url)
    assert answer.status == 200
    assert {name: answer.header(name) for name, _ in passed} == dict(passed)
    assert [name for name, value in dropped if value in answer.all(name)] == []
    assert len(answer.all("x-request-id")) == 1
    assert answer.header("x-request-id") != "upstream-own-id"
    assert answer.header("x-comporta-provider-request-id") == "upstream-own-id"
    assert answer.header("x-comporta-model") == "test-model"
    assert answer.header("x-comporta-provider") == "up"
    assert answer.header("x-comporta-attempts") == "1"
    assert float(answer.header("x-comporta-overhead-ms") or "nan") >= 0
    record = gateway.record_of(answer)
    assert (record["status"], record["outcome"], record["usage"]) == (200, "ok", "reported"), record
    assert (record["prompt_tokens"], record["completion_tokens"], record["stream"]) == (7, 3, False), record
    assert record["total_ms"] >= record["overhead_ms"] >= 0, record
    assert record["bytes_in"] == len(chat_body()), record
    assert record["bytes_out"] == len(answer.body), record
    assert "error" not in record, record


def test_headers_of_an_event_stream(gateway: Gateway, upstream: Upstream) -> None:
    upstream.play(CHAT_STREAM)
    answer = chat(gateway.url, stream=True)
    assert (answer.header("content-type") or "").split(";")[0] == "text/event-stream"
    assert answer.header("cache-control") == "no-cache"
    assert answer.header("x-accel-buffering") == "no"
    assert answer.header("content-length") is None
    assert answer.header("x-request-id")
    assert answer.header("x-comporta-model") == "test-model"
    assert answer.header("x-comporta-provider") == "up"
    record = gateway.record_of(answer)
    assert 0 <= record["first_token_ms"] <= record["total_ms"], record
    assert record["bytes_out"] == len(answer.body), record


def test_the_ids_of_requests_differ(gateway: Gateway, upstream: Upstream) -> None:
    upstream.play(CHAT, CHAT)
    ids = {chat(gateway.url).header("x-request-id") for _ in range(2)} | {ask(gateway.url, "GET", "/v1/nope").header("x-request-id")}
    assert len(ids) == 3 and all(re.fullmatch(r"[\w.:-]{8,100}", name or "") for name in ids), ids


def test_requests_and_tokens_are_counted(gateway: Gateway, upstream: Upstream) -> None:
    requests = gateway.metric("llm_requests_total", operation="chat", status="200")
    tokens = gateway.metric("llm_tokens_total", operation="chat")
    latency = gateway.metric("llm_latency_seconds_count")
    first = gateway.metric("llm_time_to_first_token_seconds_count")
    upstream.play(CHAT, CHAT_STREAM)
    chat(gateway.url)
    chat(gateway.url, stream=True)
    gateway.wait_metric(requests + 2, "llm_requests_total", operation="chat", status="200")
    gateway.wait_metric(tokens + 20, "llm_tokens_total", operation="chat")
    gateway.wait_metric(latency + 2, "llm_latency_seconds_count")
    assert gateway.metric("llm_time_to_first_token_seconds_count") > first
    names = {name for name, _ in gateway.metrics()}
    assert {"llm_active_requests", "llm_overhead_seconds_count", "llm_response_length_count"} <= names
    assert any(name.startswith("comporta_event_loop_lag_seconds") for name in names)


# ------------------------------------------------------------------------------------------------------------------------------------ paths
@pytest.mark.parametrize("path", ["/chat/completions", "/v1/chat/completions"])
def test_base_urls_with_and_without_v1(gateway: Gateway, upstream: Upstream, path: str) -> None:
    upstream.play(CHAT)
    answer = ask(gateway.url, "POST", path, chat_body())
    assert answer.status == 200
    assert upstream.requests[0].target == PATH


@pytest.mark.parametrize("path", ["/models", "/v1/models"])
def test_the_list_of_models(gateway: Gateway, path: str) -> None:
    answer = ask(gateway.url, "GET", path)
    assert answer.status == 200
    listed = answer.json()
    assert listed["object"] == "list"
    assert {"test-model", "other-model", "alias-model", "sim"} <= {model["id"] for model in listed["data"]}
    for model in listed["data"]:
        assert model["object"] == "model" and isinstance(model["created"], int) and isinstance(model["owned_by"], str), model


def test_one_model(gateway: Gateway) -> None:
    answer = ask(gateway.url, "GET", "/v1/models/alias-model")
    assert (answer.status, answer.json()["id"], answer.json()["object"]) == (200, "alias-model", "model")
    missing = ask(gateway.url, "GET", "/v1/models/alias-modle")
    assert missing.status == 404
    error = error_of(missing)
    assert error["code"] == "model_not_found" and "alias-model" in error["message"], error


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/v1"),
        ("GET", "/v1/"),
        ("POST", "/v1/nothing/here"),
        ("POST", "/v2/chat/completions"),
        ("POST", "/v1/v1/chat/completions"),
        ("GET", "/v1/../metrics"),
        ("GET", "/metrics"),
        ("GET", "/v1/realtime"),
        ("DELETE", "/v1/organisations/users/u1"),
    ],
)
def test_an_unknown_route(gateway: Gateway, upstream: Upstream, method: str, path: str) -> None:
    answer = ask(gateway.url, method, path, chat_body() if method == "POST" else b"")
    assert answer.status == 404, answer.body
    assert error_of(answer)["type"] == "invalid_request_error"
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", PATH),
        ("DELETE", PATH),
        ("PATCH", PATH),
        ("OPTIONS", PATH),
        ("GET", "/v1/completions"),
        ("POST", "/v1/models"),
        ("GET", "/v1/embeddings"),
        ("POST", "/healthz"),
    ],
)
def test_a_method_that_a_route_does_not_have(gateway: Gateway, upstream: Upstream, method: str, path: str) -> None:
    answer = ask(gateway.url, method, path)
    assert answer.status == 405, answer.body
    error_of(answer)
    assert ("GET" if path in ("/v1/models", "/healthz") else "POST") in (answer.header("allow") or "")
    assert upstream.requests == []


def test_an_unknown_method(gateway: Gateway) -> None:
    answer = ask(gateway.url, "BREW", PATH)
    assert answer.status in (400, 405, 501), answer.body
    error_of(answer)


def test_head(gateway: Gateway) -> None:
    with RawClient(gateway.url) as client:
        for path, status in (("/v1/models", 200), ("/healthz", 200), ("/v1/nope", 404), ("/v1/embeddings", 405)):
            answer = client.ask("HEAD", path)
            assert (answer.status, answer.body) == (status, b""), path
        assert client.ask("GET", "/healthz").status == 200, "a body followed a HEAD"


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health(gateway: Gateway, path: str) -> None:
    for url in (gateway.url, gateway.admin) if path == "/healthz" else (gateway.url,):
        assert ask(url, "GET", path).status == 200


def test_metrics_and_data_are_on_their_own_listeners(gateway: Gateway, upstream: Upstream) -> None:
    assert ask(gateway.admin, "POST", PATH, chat_body()).status == 404
    assert ask(gateway.url, "GET", "/metrics").status == 404
    assert upstream.requests == []
