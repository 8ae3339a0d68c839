"""What goes to the provider when nothing fails: bytes that stay as they are, names that are rewritten, headers that are let through."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.support.gateway import UPSTREAM_KEY, Gateway, error_of
from tests.support.raw_client import RawClient, ask, chat, chat_body
from tests.support.script import CHAT, CHAT_STREAM, DONE, chat_chunks, delta, event, role_chunk, script, sse
from tests.support.upstream import Upstream

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


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions/", "/v1//chat/completions", "//v1/chat/completions", "//v1//chat/completions//?a=b"]
)
def test_a_base_url_with_a_slash_too_many_is_understood(gateway: Gateway, upstream: Upstream, path: str) -> None:
    upstream.play(CHAT)
    assert ask(gateway.url, "POST", path, ODD).status == 200
    assert upstream.requests[0].target == PATH + ("?a=b" if "?" in path else ""), "what was checked is what is sent"


def test_null_is_no_body_where_none_is_needed(gateway: Gateway, upstream: Upstream) -> None:
    """Clients in C# post `null` where they have nothing to say."""
    upstream.play(CHAT)
    answer = ask(gateway.url, "POST", "/v1/threads/a/runs/b/cancel", chunks=[b"null"], headers={"Content-Type": "application/json"})
    assert answer.status == 200, answer.body
    assert upstream.requests[0].body == b""
    assert ask(gateway.url, "POST", PATH, b"null").status == 400


def test_an_escaped_slash_is_part_of_an_id(gateway: Gateway, upstream: Upstream) -> None:
    upstream.play(CHAT)
    ask(gateway.url, "GET", "//v1//files/a%2F%2fb%2F/content/")
    assert upstream.requests[0].target == "/v1/files/a%2F%2fb%2F/content"


@pytest.mark.parametrize(
    ("path", "target"),
    [("/v1/rerank", "/v1/rerank"), ("/rerank", "/v1/rerank"), ("/v1/tokenize", "/tokenize"), ("/tokenize/", "/tokenize")],
)
def test_what_servers_of_open_models_have_beside_it_goes_by_its_model(gateway: Gateway, upstream: Upstream, path: str, target: str) -> None:
    upstream.play(CHAT)
    assert ask(gateway.url, "POST", path, b'{"model":"alias-model","query":"q","documents":["d"]}').status == 200
    assert upstream.requests[0].target == target
    assert upstream.requests[0].body == b'{"model":"vendor/real-model","query":"q","documents":["d"]}'


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


OFFER = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAEAAEAAAAIAAAAB")]


def test_a_connection_on_which_http2_is_offered_carries_further_requests(gateway: Gateway, upstream: Upstream) -> None:
    """Java's client offers it in each request without TLS, and asks on the same connection again."""
    upstream.play(*[CHAT] * 5)
    with RawClient(gateway.url) as client:
        for _ in range(3):
            answer = client.ask("POST", "/v1/chat/completions", chat_body(), headers=OFFER)
            assert (answer.status, answer.header("connection"), answer.header("upgrade")) == (200, None, None)
        head, _, body = client.request_bytes("POST", "/v1/chat/completions", chat_body(), headers=OFFER).partition(b"\r\n\r\n")
        for piece in (head + b"\r\n\r\n", body[:10], body[10:]):
            client.send(piece)
            time.sleep(0.05)
        assert client.read().status == 200
        assert client.ask("POST", "/v1/chat/completions", chat_body()).status == 200


def test_a_client_that_offers_http2_and_does_not_wait_for_its_answer_is_told_that_the_connection_ends(gateway: Gateway, upstream: Upstream):
    """What came in one piece with such a request cannot be read: it is not left waiting for an answer."""
    upstream.play(CHAT)
    with RawClient(gateway.url) as client:
        client.send(client.request_bytes("POST", "/v1/chat/completions", chat_body(), headers=OFFER) * 2)
        answer = client.read()
        assert (answer.status, answer.header("connection")) == (200, "close")
        assert client.is_closed()


def test_who_asks_for_a_websocket_is_told_that_the_connection_ends(gateway: Gateway) -> None:
    wanted = [
        ("Connection", "Upgrade"),
        ("Upgrade", "WebSocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ]
    with RawClient(gateway.url) as client:
        answer = client.ask("GET", "/v1/realtime?model=m", headers=wanted)
        assert answer.status >= 400
        assert answer.header("connection") == "close"
        assert client.is_closed()
