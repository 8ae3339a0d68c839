"""What goes over the wire in both directions when nothing fails: paths, headers, bytes that stay as they are, pings, old HTTP."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from tests.support.gateway import UPSTREAM_KEY, Gateway, error_of, stream_error_of
from tests.support.raw_client import RawClient, ask, chat, chat_body
from tests.support.upstream import (
    CHAT,
    CHAT_STREAM,
    DONE,
    LAST_CHUNK,
    Fin,
    Send,
    Stall,
    Upstream,
    Wait,
    chat_chunks,
    chunk,
    completion,
    delta,
    event,
    head,
    json_response,
    response,
    role_chunk,
    script,
    sse,
    stream_head,
    usage_chunk,
)

PATH = "/v1/chat/completions"

#: Legal JSON that no encoder writes: whoever parses it and writes it again is found out.
ODD = (
    b'{ "x_first":1.50e+1 ,"model" :"test-model","messages":[{"role":"user","content":"caf\\u00e9 \\/ \xc3\xa9","x":[ 1,2 ,{"a":0.10}]}],\n'
    b'\t"x_unknown":  {"b":1,"a":[true ,null, 12345678901234567890123]},  "temperature":0.70 }'
)
ODD_STREAM = ODD.replace(b'"temperature"', b'"stream":  true ,"temperature"')


def without(body: bytes, *names: str) -> dict[str, Any]:
    return {name: value for name, value in json.loads(body).items() if name not in names}


# --------------------------------------------------------------------------------------------------------------------------------- requests
@pytest.mark.parametrize("size", [0, 1], ids=["whole", "sliced"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
def test_a_request_that_needs_no_change_is_not_changed(gateway: Gateway, upstream: Upstream, size: int, chunked: bool) -> None:
    upstream.play(CHAT)
    answer = ask(gateway.url, "POST", PATH, ODD, size=size, chunks=[ODD[:100], ODD[100:]] if chunked else None)
    assert answer.status == 200, answer.body
    assert upstream.requests[0].body == ODD
    assert upstream.requests[0].target == PATH
    assert upstream.requests[0].header("content-type") == "application/json"


def test_a_streamed_request_that_asks_for_usage_is_not_changed(gateway: Gateway, upstream: Upstream) -> None:
    body = ODD_STREAM.replace(b'"x_unknown"', b'"stream_options": { "include_usage" :true},"x_unknown"')
    upstream.play(CHAT_STREAM)
    answer = ask(gateway.url, "POST", PATH, body)
    assert upstream.requests[0].body == body
    assert answer.body == b"".join(chat_chunks()) + DONE, "usage was asked for, so it is there"


@pytest.mark.parametrize(
    "options",
    [b"", b'"stream_options":{},', b'"stream_options":null,', b'"stream_options": {"include_usage":false ,"include_obfuscation":false},'],
    ids=["absent", "empty", "null", "false"],
)
def test_usage_is_asked_for_and_kept_from_who_did_not_ask(gateway: Gateway, upstream: Upstream, options: bytes) -> None:
    body = ODD_STREAM.replace(b'"x_unknown"', options + b'"x_unknown"')
    upstream.play(CHAT_STREAM)
    answer = ask(gateway.url, "POST", PATH, body)
    sent = upstream.requests[0].body
    asked = {"include_obfuscation": False} if b"obfuscation" in options else {}
    assert json.loads(sent)["stream_options"] == {**asked, "include_usage": True}
    assert without(sent, "stream_options") == without(body, "stream_options")
    for piece in (b'"x_first":1.50e+1 ', b'"content":"caf\\u00e9 \\/ \xc3\xa9","x":[ 1,2 ,{"a":0.10}]', b" 12345678901234567890123]},  "):
        assert piece in sent, "what needed no change was written anew"
    assert answer.body == b"".join(chat_chunks(used=None)) + DONE
    record = gateway.record_of(answer)
    assert (record["usage"], record["prompt_tokens"], record["completion_tokens"]) == ("reported", 7, 3), record
    assert record["stream"] is True


def test_usage_in_a_chunk_with_a_choice_is_not_lost(gateway: Gateway, upstream: Upstream) -> None:
    """A chunk that has content is the client's, whatever else stands in it."""
    last = delta("!", finish="stop", usage={"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10})
    upstream.play(sse([event(role_chunk()), event(last)]))
    answer = chat(gateway.url, stream=True)
    choices = [value["choices"] for value in answer.values]
    assert choices == [role_chunk()["choices"], last["choices"]]


def test_the_model_is_rewritten_in_place(gateway: Gateway, upstream: Upstream) -> None:
    body = ODD.replace(b"test-model", b"alias-model")
    upstream.play(CHAT)
    answer = ask(gateway.url, "POST", PATH, body)
    assert upstream.requests[0].body == ODD.replace(b'"test-model"', b'"vendor/real-model"')
    assert answer.json()["model"] == "served-model", "the body's model is what the upstream said"
    assert answer.header("x-comporta-model") == "alias-model"
    assert answer.header("x-comporta-provider") == "up"
    record = gateway.record_of(answer)
    assert (record["model"], record["provider"]) == ("alias-model", "up"), record


def test_only_the_models_name_at_the_top_is_rewritten(gateway: Gateway, upstream: Upstream) -> None:
    body = (
        b'{"metadata":{"model":"alias-model"},"messages":[{"role":"user","content":"\\"model\\":\\"alias-model\\""}],"model":"alias-model"}'
    )
    upstream.play(CHAT)
    ask(gateway.url, "POST", PATH, body)
    assert upstream.requests[0].body == body[: -len(b'"alias-model"}')] + b'"vendor/real-model"}'


@pytest.mark.parametrize("name", ["mod\\u0065l", "model"])
def test_a_name_given_twice_cannot_be_read_in_two_ways(gateway: Gateway, upstream: Upstream, name: str) -> None:
    """Parsers differ on which of two equal names counts: what was routed by is what the upstream gets, or the request is refused."""
    body = b'{"model":"test-model","messages":[{"role":"user","content":"hi"}],"%b":"alias-model"}' % name.encode()
    upstream.otherwise, kept = script(CHAT), upstream.otherwise
    try:
        answer = ask(gateway.url, "POST", PATH, body)
    finally:
        upstream.otherwise = kept
    if answer.status == 400:
        error_of(answer)
        assert upstream.requests == []
        return
    routed = answer.header("x-comporta-model")
    wanted = {"test-model": "test-model", "alias-model": "vendor/real-model"}[routed or ""]
    seen = {value for key, value in json.loads(upstream.requests[0].body, object_pairs_hook=list) if key == "model"}
    assert seen == {wanted}, upstream.requests[0].body


@pytest.mark.parametrize(
    ("model", "sent", "provider"),
    [
        ("test-model", "test-model", "up"),
        ("alias-model", "vendor/real-model", "up"),
        ("up/anything", "anything", "up"),
        ("patient/org/deep/name", "org/deep/name", "patient"),
    ],
)
def test_models_are_found_by_table_or_by_provider(gateway: Gateway, upstream: Upstream, model: str, sent: str, provider: str) -> None:
    upstream.play(CHAT)
    answer = chat(gateway.url, model)
    assert answer.status == 200, answer.body
    assert upstream.requests[0].json()["model"] == sent
    assert answer.header("x-comporta-provider") == provider
    record = gateway.record_of(answer)
    assert (record["model"], record["provider"]) == (model, provider), record


def test_without_a_table_a_bare_name_goes_to_the_default_provider(tight: Gateway, upstream: Upstream) -> None:
    upstream.play(CHAT, CHAT)
    assert chat(tight.url, "whatever").header("x-comporta-provider") == "up"
    assert chat(tight.url, "patient/whatever").header("x-comporta-provider") == "patient"
    assert [request.json()["model"] for request in upstream.requests] == ["whatever", "whatever"]


@pytest.mark.parametrize(
    ("model", "near"),
    [("tset-model", "test-model"), ("alias_model", "alias-model"), ("test-modle", "test-model"), ("zzzzzz", None), ("upp/any", None)],
)
def test_an_unknown_model_is_not_found_and_the_nearest_is_named(gateway: Gateway, upstream: Upstream, model: str, near: str | None) -> None:
    answer = chat(gateway.url, model)
    assert answer.status == 404
    error = error_of(answer)
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", "model", "model_not_found"), error
    assert model in error["message"]
    assert near is None or near in error["message"]
    assert upstream.requests == []
    record = gateway.record_of(answer)
    assert (record["status"], record["outcome"], record["error"]) == (404, "client_error", "model_not_found"), record


def test_models_that_nobody_configured_are_one_label(tight: Gateway, upstream: Upstream) -> None:
    """A label takes its values from the configuration: a client cannot make new ones."""
    upstream.play(CHAT, CHAT)
    chat(tight.url, "made-up-by-a-client")
    chat(tight.url, "up/also-made-up")
    labels = {value for _, pairs in tight.metrics() for _, value in pairs}
    assert not {value for value in labels if "made-up" in value}


# -------------------------------------------------------------------------------------------------------------------------- request headers
def test_the_clients_key_is_never_forwarded(gateway: Gateway, upstream: Upstream) -> None:
    secret = "sk-client-canary-5150"
    upstream.play(CHAT)
    chat(
        gateway.url,
        headers={
            "Authorization": f"Bearer {secret}",
            "api-key": secret,
            "x-api-key": secret,
            "Cookie": f"key={secret}",
            "x-goog-api-key": secret,
        },
    )
    request = upstream.requests[0]
    assert secret.encode() not in request.raw_head + request.body
    assert request.header("authorization") == f"Bearer {UPSTREAM_KEY}"
    assert request.header("host") == f"127.0.0.1:{upstream.port}"
    assert secret not in json.dumps(gateway.lines)


@pytest.mark.parametrize("path", ["/v1/chat/completions?api_key=sk-canary-8086", "/v1/sk-canary-8086"])
def test_a_key_in_the_address_is_not_logged(gateway: Gateway, upstream: Upstream, path: str) -> None:
    upstream.otherwise, kept = script(CHAT), upstream.otherwise
    try:
        answer = ask(gateway.url, "POST", path, chat_body())
    finally:
        upstream.otherwise = kept
    gateway.record_of(answer)
    assert "canary" not in json.dumps(gateway.lines)
    assert "canary" not in str(gateway.metrics())


def test_headers_for_one_hop_stay_there(gateway: Gateway, upstream: Upstream) -> None:
    hop = {
        "Connection": "keep-alive, X-Named, OpenAI-Beta",
        "Keep-Alive": "timeout=5",
        "X-Named": "1",
        "OpenAI-Beta": "named-by-connection",
        "TE": "trailers",
        "Trailer": "X-Later",
        "Upgrade": "h2c",
        "Proxy-Authorization": "Basic abcd",
        "Proxy-Connection": "keep-alive",
        "Forwarded": "for=10.0.0.1",
        "X-Forwarded-For": "10.0.0.1",
        "X-Custom": "not in the list",
        "X-Comporta-Anything": "ours",
        "Accept-Encoding": "gzip",
    }
    upstream.play(CHAT)
    answer = chat(gateway.url, headers=hop)
    assert answer.status == 200, answer.body
    request = upstream.requests[0]
    gone = ["keep-alive", "x-named", "openai-beta", "te", "trailer", "upgrade", "proxy-authorization", "proxy-connection", "forwarded"]
    gone += ["x-forwarded-for", "x-custom", "x-comporta-anything"]
    assert {name: request.header(name) for name in gone if request.header(name) is not None} == {}
    assert "x-named" not in (request.header("connection") or "").lower()
    assert request.header("accept-encoding") == "identity"


def test_openais_own_headers_are_forwarded(gateway: Gateway, upstream: Upstream) -> None:
    upstream.play(CHAT)
    chat(gateway.url, headers={"OpenAI-Beta": "assistants=v2", "Idempotency-Key": "abc"})
    assert upstream.requests[0].header("openai-beta") == "assistants=v2"


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
        ("POST", "/v1/chat/completions/"),
        ("POST", "/v1/v1/chat/completions"),
        ("POST", "/v1//chat/completions"),
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


# ------------------------------------------------------------------------------------------------------------------------- waiting and time
def test_pings_while_waiting_and_in_between(tight: Gateway, upstream: Upstream) -> None:
    events = chat_chunks(used=None)
    steps = (Wait(1.0), stream_head() + chunk(events[0] + events[1]), Wait(1.0), b"".join(map(chunk, [*events[2:], DONE])) + LAST_CHUNK)
    upstream.play(script(*steps))
    started = time.monotonic()
    answer = chat(tight.url, "patient/any", stream=True)
    assert answer.status == 200 and answer.ended
    pings = [at - started for at, piece in answer.pieces if piece.startswith(b": ping")]
    assert 0.25 < pings[0] < 0.6, pings
    assert len([at for at in pings if at < 0.99]) in (2, 3), pings
    assert len([at for at in pings if at > 0.99]) in (2, 3), pings
    assert answer.body.replace(b": ping\n\n", b"") == b"".join(events) + DONE
    assert tight.record_of(answer)["outcome"] == "ok"


def test_no_pings_while_events_come(tight: Gateway, upstream: Upstream) -> None:
    more = [step for _ in range(12) for step in (Wait(0.1), Send(chunk(event(delta(" more")))))]
    upstream.play(script(stream_head() + chunk(event(role_chunk())), *more, chunk(event(delta(finish="stop"))) + chunk(DONE) + LAST_CHUNK))
    assert b": ping" not in chat(tight.url, "patient/any", stream=True).body


def test_no_pings_into_a_json_answer(tight: Gateway, upstream: Upstream) -> None:
    upstream.play(script(Wait(0.8), CHAT))
    answer = chat(tight.url, "patient/any")
    assert (answer.status, answer.json()) == (200, completion())


def test_a_failure_after_a_ping_is_told_in_the_stream(tight: Gateway, upstream: Upstream) -> None:
    """The status is out with the first ping; what fails after it can only be an event."""
    upstream.play(script(Stall()))
    with RawClient(tight.url) as client:
        answer = client.ask("POST", PATH, chat_body(stream=True))
        assert client.is_closed()
    assert answer.body.startswith(b": ping\n\n")
    assert stream_error_of(answer)["code"] == "upstream_timeout"
    record = tight.record_of(answer)
    assert (record["status"], record["outcome"], record["error"]) == (504, "upstream_error", "upstream_timeout"), record


@pytest.mark.parametrize("stream", [False, True])
def test_the_clients_own_deadline(gateway: Gateway, upstream: Upstream, stream: bool) -> None:
    upstream.play(script(Stall()))
    started = time.monotonic()
    answer = chat(gateway.url, "patient/any", stream=stream, headers={"x-stainless-read-timeout": "0.6"})
    took = time.monotonic() - started
    assert answer.status == 504, answer.body
    assert error_of(answer)["code"] == "upstream_timeout"
    assert took < 1.2, took
    assert upstream.requests[0].connection.closed.wait(1)
    assert upstream.requests[0].header("x-stainless-read-timeout") in (None, "0.6")


@pytest.mark.parametrize("value", ["600", "NaN", "-1", "0", "soon", "1e400", ""])
def test_a_deadline_that_is_far_or_none_changes_nothing(gateway: Gateway, upstream: Upstream, value: str) -> None:
    upstream.play(script(Wait(0.1), CHAT))
    assert chat(gateway.url, headers={"x-stainless-read-timeout": value}).status == 200


# --------------------------------------------------------------------------------------------------------------------------------- old HTTP
def test_http_1_0(gateway: Gateway, upstream: Upstream) -> None:
    upstream.play(CHAT)
    with RawClient(gateway.url) as client:
        answer = client.ask("POST", PATH, chat_body(), version="HTTP/1.0")
        assert client.is_closed()
    assert (answer.status, answer.json()) == (200, completion())
    assert answer.header("transfer-encoding") is None


def test_http_1_0_streamed(gateway: Gateway, upstream: Upstream) -> None:
    upstream.play(CHAT_STREAM)
    with RawClient(gateway.url) as client:
        answer = client.ask("POST", PATH, chat_body(stream=True), version="HTTP/1.0")
        assert client.is_closed()
    assert answer.status == 200
    assert answer.header("transfer-encoding") is None
    assert answer.body == b"".join(chat_chunks(used=None)) + DONE


def test_connection_close_is_heeded(gateway: Gateway, upstream: Upstream) -> None:
    upstream.play(CHAT, CHAT_STREAM)
    for stream in (False, True):
        with RawClient(gateway.url) as client:
            answer = client.ask("POST", PATH, chat_body(stream=stream), headers={"Connection": "close"})
            assert answer.status == 200 and answer.ended
            assert client.is_closed()


def test_a_connection_serves_many_requests(gateway: Gateway, upstream: Upstream) -> None:
    upstream.play(CHAT, CHAT_STREAM, CHAT)
    with RawClient(gateway.url) as client:
        for stream in (False, True, False):
            assert client.ask("POST", PATH, chat_body(stream=stream)).status == 200
        assert client.ask("GET", "/v1/models").status == 200
    assert len({request.connection.number for request in upstream.requests}) == 1, "the pool did not give back its connection"


def test_an_upstream_of_http_1_0(gateway: Gateway, upstream: Upstream) -> None:
    plain = json.dumps(completion()).encode()
    upstream.play(script(head(200, [("Content-Type", "application/json")]).replace(b"HTTP/1.1", b"HTTP/1.0", 1) + plain, Fin()))
    answer = chat(gateway.url)
    assert (answer.status, answer.body) == (200, plain)


def test_interim_answers_of_an_upstream_are_skipped(gateway: Gateway, upstream: Upstream) -> None:
    upstream.play(b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n" + CHAT)
    assert chat(gateway.url).status == 200


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(gateway: Gateway, upstream: Upstream, status: int) -> None:
    upstream.play(response(status, b"", "text/plain", [("Location", f"http://127.0.0.1:{upstream.port}/v1/elsewhere")]))
    answer = chat(gateway.url)
    assert answer.status == 502, (answer.status, answer.headers)
    error_of(answer)
    assert answer.header("location") is None
    assert len(upstream.requests) == 1


def test_usage_that_was_asked_for_comes_last(gateway: Gateway, upstream: Upstream) -> None:
    upstream.play(CHAT_STREAM)
    body = chat_body(stream=True, stream_options={"include_usage": True})
    answer = ask(gateway.url, "POST", PATH, body)
    assert answer.values[-1] == usage_chunk(7, 3)
    assert answer.events[-1] == "[DONE]"
