"""Requests encoded and answers decoded: only what must differ is changed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from multidict import CIMultiDict
from pydantic import ValidationError

from providers.openai import OpenAI, OpenAISettings
from providers.openai.stream import ChatDecoder
from providers.openai.typed_events import TypedEventDecoder
from proxy.core.call import Call, Credential, Target, Usage
from proxy.core.errors import UpstreamError
from tests.core.doubles import ScriptedResponse, make_call

KEY = Credential("env:KEY", "sk-upstream")


def provider(**settings: Any) -> OpenAI:
    return OpenAI(OpenAISettings(base_url="https://api.example/v1", **settings))


def call_of(raw: bytes, operation: str = "chat", **members: Any) -> Call:
    body = orjson.loads(raw)
    return make_call(operation, raw=raw, body=body, model=body.get("model"), stream=body.get("stream", False), **members)


RAW = b'{ "model" : "public" , "x" : 1.50, "messages":[]}'


def test_nothing_is_changed_where_nothing_must():
    call = call_of(RAW)
    assert provider().encode(call, Target("p", "public")).body is call.raw


def test_the_models_name_is_the_only_thing_that_changes():
    assert provider().encode(call_of(RAW), Target("p", "real")).body == RAW.replace(b"public", b"real")


@pytest.mark.parametrize("path", ["/classify", "/pooling", "/tokenize", "/detokenize"])
def test_what_servers_have_beside_their_version_is_asked_for_there(path: str):
    call = call_of(RAW, "tokenize", path=path)
    assert provider().encode(call, Target("p", "real")).url == "https://api.example" + path
    elsewhere = OpenAI(OpenAISettings(base_url="https://api.example/engines/v1"))
    assert elsewhere.encode(call, Target("p", "real")).url == "https://api.example/engines" + path
    plain = OpenAI(OpenAISettings(base_url="https://api.example/v1beta"))
    assert plain.encode(call, Target("p", "real")).url == "https://api.example/v1beta" + path


@pytest.mark.parametrize("path", ["/rerank", "/score", "/decisions"])
def test_what_they_have_under_their_version_is_asked_for_there(path: str):
    assert provider().encode(call_of(RAW, "rerank", path=path), Target("p", "real")).url == "https://api.example/v1" + path


def test_a_body_without_a_model_gets_none():
    assert provider().encode(call_of(b'{"input":"a"}', "moderations"), Target("p", "real")).body == b'{"input":"a"}'


def test_a_target_without_a_model_leaves_the_clients():
    assert provider().encode(call_of(RAW), Target("p", None)).body == RAW


@pytest.mark.parametrize(
    ("operation", "raw", "expected"),
    [
        ("chat", b'{"model":"m","stream":true}', b'{"stream_options":{"include_usage":true},"model":"m","stream":true}'),
        ("completion", b'{"model":"m","stream":true}', b'{"stream_options":{"include_usage":true},"model":"m","stream":true}'),
        (
            "chat",
            b'{"model":"m","stream":true,"stream_options":null}',
            b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}',
        ),
        (
            "chat",
            b'{"model":"m","stream":true,"stream_options":{"include_usage":false,"include_obfuscation":false}}',
            b'{"model":"m","stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false}}',
        ),
        ("chat", b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}', None),
        ("chat", b'{"model":"m","stream":false}', None),
        ("responses", b'{"model":"m","stream":true}', None),
    ],
)
def test_usage_is_asked_for_where_a_stream_would_not_tell_it(operation: str, raw: bytes, expected: bytes | None):
    assert provider().encode(call_of(raw, operation), Target("p", "m")).body == (raw if expected is None else expected)


def test_usage_is_not_asked_of_a_server_that_refuses_to_be_asked():
    raw = b'{"model":"m","stream":true}'
    assert provider(stream_usage=False).encode(call_of(raw), Target("p", "m")).body == raw


def test_usage_is_not_asked_of_what_tells_it_unasked():
    raw = b'{"model":"m","prompt":"a","suffix":"b","stream":true}'
    request = provider().encode(call_of(raw, "completion", path="/fim/completions"), Target("p", "m"))
    assert (request.url, request.body) == ("https://api.example/v1/fim/completions", raw)


@pytest.mark.parametrize(
    ("path", "query", "url"),
    [
        ("/chat/completions", "", "https://api.example/v1/chat/completions"),
        ("/files", "limit=2&after=a%20b", "https://api.example/v1/files?limit=2&after=a%20b"),
    ],
)
def test_the_address_is_the_configured_one_and_the_calls_path(path: str, query: str, url: str):
    request = provider().encode(make_call("files", method="GET", path=path, query=query), Target("p", None))
    assert (request.method, request.url, request.body) == ("GET", url, b"")


def test_a_slash_at_the_end_of_the_address_is_not_doubled():
    one = OpenAI(OpenAISettings(base_url="https://api.example/v1/"))
    assert one.encode(make_call(), Target("p", None)).url == "https://api.example/v1/chat/completions"


CLIENTS = CIMultiDict(
    {
        "Authorization": "Bearer sk-client",
        "Api-Key": "sk-client",
        "X-Api-Key": "sk-client",
        "Cookie": "session=sk-client",
        "Host": "gateway",
        "Connection": "keep-alive, X-Secret",
        "X-Secret": "sk-client",
        "Content-Length": "9",
        "Transfer-Encoding": "chunked",
        "Accept-Encoding": "gzip",
        "User-Agent": "client",
        "OpenAI-Organization": "clients",
        "X-Forwarded-For": "1.2.3.4",
        "Content-Type": "application/json",
        "Accept": "text/event-stream",
        "OpenAI-Beta": "assistants=v2",
        "Idempotency-Key": "i",
        "X-Client-Request-Id": "r",
        "OpenAI-Safety-Identifier": "who",
        "If-Range": '"v1"',
        "HTTP-Referer": "https://app.example",
        "X-Title": "app",
    }
)


def test_of_the_clients_headers_only_the_listed_go_on():
    request = provider().encode(make_call(headers=CLIENTS), Target("p", None, credential=KEY))
    assert request.headers == {
        "authorization": "Bearer sk-upstream",
        "accept-encoding": "identity",
        "user-agent": "comporta",
        "content-type": "application/json",
        "accept": "text/event-stream",
        "openai-beta": "assistants=v2",
        "idempotency-key": "i",
        "x-client-request-id": "r",
        "openai-safety-identifier": "who",
        "if-range": '"v1"',
    }


def test_further_headers_of_the_client_go_on_where_they_are_configured():
    one = provider(forward_headers=["HTTP-Referer", "x-title", "baggage", "X-Secret"], headers={"X-Title": "ours", "Baggage": "a=1"})
    headers = one.encode(make_call(headers=CLIENTS), Target("p", None, credential=KEY)).headers
    assert headers["http-referer"] == "https://app.example"
    assert headers["x-title"] == "app", "the client's own word goes before the configured one"
    assert headers["baggage"] == "a=1", "which holds where the client says nothing"
    assert "x-secret" not in headers, "what the client's Connection names is for one hop"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Authorization", "key"),
        ("API-Key", "key"),
        ("x-api-key", "key"),
        ("cookie", "key"),
        ("Host", "connection"),
        ("content-length", "connection"),
        ("Transfer-Encoding", "connection"),
        ("connection", "connection"),
        ("Proxy-Authorization", "connection"),
        ("Upgrade", "connection"),
        ("TE", "connection"),
        ("accept-encoding", "connection"),
        ("if-none-match", "connection"),
        ("X-Comporta-User", "gateway"),
        ("a b", "name"),
        ("a:b", "name"),
        ("a\r\nb", "name"),
        ("", "name"),
    ],
)
def test_what_is_not_for_the_provider_cannot_be_forwarded(name: str, said: str):
    with pytest.raises(ValidationError) as caught:
        provider(forward_headers=[name])
    assert said in caught.value.errors()[0]["msg"]


def test_names_of_headers_are_kept_in_lower_case():
    assert provider(forward_headers=["HTTP-Referer", "http-referer", "Accept"]).settings.forward_headers == ("http-referer", "accept")


def test_an_account_without_a_key_sends_none():
    assert "authorization" not in provider().encode(make_call(headers=CLIENTS), Target("p", None)).headers


def test_organisation_project_and_further_headers_are_sent():
    one = provider(organization="org", project="proj", headers={"X-Title": "t", "User-Agent": "mine"})
    headers = one.encode(make_call(), Target("p", None)).headers
    assert headers["openai-organization"] == "org"
    assert headers["openai-project"] == "proj"
    assert headers["x-title"] == "t"
    assert headers["user-agent"] == "mine"


def test_requests_do_not_share_headers():
    one = provider()
    one.encode(make_call(), Target("p", None, credential=KEY)).headers["x-extra"] = "1"
    assert "x-extra" not in one.encode(make_call(), Target("p", None)).headers
    assert "authorization" not in one.encode(make_call(), Target("p", None)).headers


@dataclass
class Form:
    """A streamed body that only remembers its model."""

    model: str
    length: int | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.model.encode()

    def named(self, model: str) -> Form:
        return Form(model)


@pytest.mark.parametrize(
    ("asked", "target", "expected"),
    [("public", "real", "real"), ("public", "public", "public"), ("public", None, "public"), (None, "real", "form")],
)
def test_a_streamed_body_is_renamed_only_where_it_names_another_model(asked: str | None, target: str | None, expected: str):
    content = Form(asked or "form")
    request = provider().encode(make_call("audio", content=content, model=asked), Target("p", target))
    assert isinstance(request.body, Form)
    assert request.body.model == expected
    assert (request.body is content) is (asked in (None, target) or target is None)


# -- answers --

ANSWER = {"id": "c", "choices": [{"message": {"content": "hello"}}], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}


def decode(value: Any, operation: str = "chat", raw: bytes = b"12345678") -> tuple[Call, bytes]:
    call = make_call(operation, raw=raw)
    body = value if isinstance(value, bytes) else orjson.dumps(value)
    reply = provider().decode(call, ScriptedResponse(), body)
    assert reply.body is body
    assert reply.status == 200
    return call, body


def test_an_answers_bytes_are_passed_on_and_its_usage_read():
    assert decode(ANSWER)[0].usage == Usage(3, 2, reported=True)


@pytest.mark.parametrize(
    ("answer", "operation", "usage"),
    [
        ({"choices": [{"message": {"content": "12345"}}]}, "chat", Usage(2, 2)),
        ({"choices": [{"message": {"content": "1234"}}, {"message": {"content": "1"}}]}, "chat", Usage(2, 2)),
        ({"choices": [{"text": "12345"}]}, "completion", Usage(2, 2)),
        ({"choices": [{"message": {"content": None, "tool_calls": []}}]}, "chat", Usage(2, 0)),
        ({"choices": [{"message": {"content": [{"deep": []}]}}, 7, None]}, "chat", Usage(2, 0)),
        ({"choices": [{"message": {"content": [{"type": "text", "text": "1234"}]}}]}, "chat", Usage(2, 2)),
        ({"choices": [{"message": {"content": "1234", "reasoning": "12345678", "reasoning_content": "12345678"}}]}, "chat", Usage(2, 3)),
        ({"choices": [{"message": {"content": None, "refusal": "1234"}}]}, "chat", Usage(2, 1)),
        ({"choices": [{"message": {"tool_calls": [{"function": {"name": "f123", "arguments": '{"a"'}}, 7]}}]}, "chat", Usage(2, 2)),
        ({"choices": [{"message": {"function_call": {"name": "f123", "arguments": '{"a"'}}}]}, "chat", Usage(2, 2)),
        ({"choices": [{"message": {"content": "", "audio": {"data": "A" * 400, "transcript": "1234"}}}]}, "chat", Usage(2, 1)),
        ({"choices": [{}], "usage": None}, "chat", Usage(2, 0)),
        ({"choices": [{}], "usage": "many"}, "chat", Usage(2, 0)),
        ({"choices": [{"text": "12345"}], "usage": {"prompt_tokens": 0, "completion_tokens": 0}}, "chat", Usage(2, 2)),
        ({"choices": [{"text": "12345"}], "usage": {"prompt_tokens": 9, "completion_tokens": -1}}, "chat", Usage(9, 2)),
        ({"choices": [{"text": "12345"}], "usage": {"prompt_tokens": -1, "completion_tokens": 9}}, "chat", Usage(2, 9)),
        ({"choices": [{"text": "12345"}], "usage": {"prompt_tokens": 9}}, "chat", Usage(9, 2)),
        ({"choices": [{"text": "12345"}], "usage": {"prompt_tokens": 9, "completion_tokens": None}}, "chat", Usage(9, 2)),
        ({"status": "completed", "usage": {"output_tokens": 9}}, "responses", Usage(2, 9)),
        ({"data": []}, "embedding", Usage(2)),
        ({"data": [], "usage": {"prompt_tokens": 0, "total_tokens": 0}}, "embedding", Usage(2)),
        ({"error": None, "status": "completed"}, "responses", None),
    ],
)
def test_usage_is_estimated_where_it_is_not_reported(answer: Mapping[str, Any], operation: str, usage: Usage | None):
    assert decode(answer, operation)[0].usage == usage


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "invalid_response", 502),
        (b"{", "invalid_response", 502),
        (b"[]", "invalid_response", 502),
        (b"null", "invalid_response", 502),
        (b"<html>", "invalid_response", 502),
        (b'{"choices":[]}', "invalid_response", 502),
        (b'{"choices":5}', "invalid_response", 502),
        (b'{"choices":{"a":1}}', "invalid_response", 502),
        (b"{}", "invalid_response", 502),
        (b'{"choices":null,"base_resp":{"status_code":1008,"status_msg":"insufficient balance"}}', "insufficient_quota", 429),
        (b'{"x":"\xff"}', "invalid_response", 502),
        (b'{"error":{"message":"m","code":"rate_limit_exceeded"}}', "rate_limit_exceeded", 429),
        (b'{"error":"boom","choices":[{}]}', "server_error", 502),
    ],
)
def test_an_error_in_disguise_or_nonsense_is_an_error(body: bytes, kind: str, status: int):
    with pytest.raises(UpstreamError) as caught:
        decode(body)
    assert (caught.value.kind, caught.value.status) == (kind, status)


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (None, "server_error", 502),
        ({"code": "server_error", "message": "m"}, "server_error", 500),
        ({"code": "bio_policy", "message": "m"}, "rejected", 400),
        ({"code": "not_known", "message": "m"}, "response_failed", 502),
    ],
)
def test_a_response_that_failed_is_the_error_that_it_names(error: object, kind: str, status: int):
    for usage in (None, {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}):
        with pytest.raises(UpstreamError) as caught:
            decode({"status": "failed", "error": error, "output": [], "usage": usage}, "responses")
        assert (caught.value.kind, caught.value.status) == (kind, status)
        assert caught.value.usage == (None if usage is None else Usage(1, 2, reported=True))


@pytest.mark.parametrize("answer", [{"choices": []}, {"error": {"code": "server_error"}}])
def test_what_an_answer_cost_that_is_none_is_kept(answer: dict[str, Any]):
    with pytest.raises(UpstreamError) as caught:
        decode({**answer, "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
    assert caught.value.usage == Usage(3, 2, reported=True)


def test_what_a_policy_found_is_passed_on():
    with pytest.raises(UpstreamError) as caught:
        decode({"status": "failed", "error": {"code": "misalignment_policy_violation", "misalignment": {"error_type": "x"}}}, "responses")
    assert caught.value.more == {"misalignment": '{"error_type":"x"}'}


@pytest.mark.parametrize("operation", ["chat", "responses", "embedding"])
def test_a_byte_order_mark_before_an_answer_is_taken_off(operation: str):
    whole = orjson.dumps(ANSWER)
    call = make_call(operation)
    assert provider().decode(call, ScriptedResponse(), b"\xef\xbb\xbf" + whole).body == whole
    assert call.usage == Usage(3, 2, reported=True)
    for broken in (b"\xef\xbb" + whole, b" \xef\xbb\xbf" + whole, b"\xef\xbb\xbf" * 5000 + whole):
        with pytest.raises(UpstreamError):
            provider().decode(call, ScriptedResponse(), broken)


def test_every_cut_of_an_answer_is_invalid():
    whole = orjson.dumps(ANSWER)
    for end in range(len(whole)):
        with pytest.raises(UpstreamError) as caught:
            decode(whole[:end])
        assert caught.value.kind == "invalid_response"


def test_an_answer_outside_2xx_is_an_error_with_its_hint():
    error = provider().decode_error(ScriptedResponse(status=429, headers={"retry-after": "3"}), b"")
    assert (error.kind, error.retry_after) == ("rate_limit_exceeded", 3.0)


@pytest.mark.parametrize(("operation", "kind"), [("chat", ChatDecoder), ("completion", ChatDecoder), ("responses", TypedEventDecoder)])
def test_each_operation_has_its_decoder(operation: str, kind: type):
    assert isinstance(provider().stream_decoder(make_call(operation)), kind)


FINISHED = b'data: {"choices":[{"index":0,"text":"a","finish_reason":"stop"}]}\n\n'


@pytest.mark.parametrize(
    ("body", "choices"),
    [
        ({}, 1),
        ({"n": 3}, 3),
        ({"n": None}, 1),
        ({"n": 0}, 1),
        ({"n": "2"}, 1),
        ({"prompt": "a"}, 1),
        ({"prompt": ["a", "b"]}, 2),
        ({"prompt": ["a", "b"], "n": 2}, 4),
        ({"prompt": [[1, 2], [3]]}, 2),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": []}, 1),
    ],
)
def test_a_stream_is_whole_when_each_choice_has_ended(body: dict[str, Any], choices: int):
    for finished in (choices - 1, choices):
        decoder = provider().stream_decoder(make_call("completion", body=body))
        for index in range(finished):
            decoder.feed(FINISHED.replace(b'"index":0', b'"index":%d' % index))
        decoder.eof()
        assert decoder.done is (finished == choices)


@pytest.mark.parametrize(
    ("body", "stream_usage", "kept"),
    [
        ({}, True, False),
        ({"stream_options": {"include_usage": True}}, True, True),
        ({"stream_options": {"include_usage": False}}, True, False),
        ({"stream_options": None}, True, False),
        ({"usage": {"include": True}}, True, True),
        ({"stream_options": {}, "usage": {"include": True}}, True, True),
        ({"usage": {"include": False}}, True, False),
        ({"usage": True}, True, False),
        ({}, False, True),
    ],
)
def test_usage_reaches_the_client_only_if_it_asked_or_we_did_not(body: dict[str, Any], stream_usage: bool, kept: bool):
    decoder = provider(stream_usage=stream_usage).stream_decoder(make_call(body=body))
    out = decoder.feed(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: {"choices":[],"usage":{"prompt_tokens":1}}\n\n')
    assert (b"usage" in out) is kept


_SAID = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
_REASON = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
_DONE = b"data: [DONE]\n\n"


def _failure(up: OpenAI, stream: bytes, model: str = "m", body: dict[str, Any] | None = None, operation: str = "chat") -> str | None:
    call = make_call(operation, body=body or {})
    call.target = Target("up", model)
    decoder = up.stream_decoder(call)
    decoder.feed(stream)
    return None if decoder.failure is None else decoder.failure.kind


def test_done_alone_ends_the_streams_of_a_model_that_never_says_why_they_end():
    up = provider()
    assert [_failure(up, _SAID + _DONE) for _ in range(3)] == [None] * 3


def test_done_alone_is_no_end_where_the_model_has_said_why_one_ended():
    up = provider()
    assert _failure(up, _SAID + _REASON + _DONE) is None
    assert _failure(up, _SAID + _DONE) == "stream_truncated"
    assert _failure(up, _SAID + _REASON + _DONE) is None
    assert _failure(up, _SAID + _DONE, model="another") is None
    assert _failure(up, _SAID + _DONE, operation="completion") is None
    assert _failure(up, _SAID + _DONE, body={"tools": [{"type": "function"}]}) is None
    assert _failure(up, _SAID + _DONE, body={"functions": [{"name": "f"}]}) is None
    assert _failure(provider(), _SAID + _DONE) is None


def test_no_more_than_so_many_models_are_remembered_by_how_they_end():
    up = provider()
    for number in range(5000):
        _failure(up, _SAID + _REASON + _DONE, model=f"m{number}")
    assert len(up._endings) <= 1024


def test_the_size_of_an_event_is_bounded_by_configuration():
    decoder = provider(limits={"event": 100}).stream_decoder(make_call())
    decoder.feed(b"data: " + b"x" * 200)
    assert decoder.failure is not None
    assert decoder.failure.kind == "response_too_large"
