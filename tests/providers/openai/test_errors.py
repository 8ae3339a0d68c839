"""What a provider's error means; rows 11-18 and 24-26 of docs/faults.md."""

from __future__ import annotations

from typing import Any, get_args

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseError

from providers.openai.errors import _BY_CODE, error_beside_success, error_in_body, error_of_status
from proxy.core.board import counts
from proxy.core.errors import UPSTREAM_KINDS, UpstreamError


def body(**fields: Any) -> bytes:
    return orjson.dumps({"error": {"message": "said", "type": None, "param": None, "code": None, **fields}})


STATUSES: list[tuple[int, bytes, str, int, str, str]] = [
    # upstream status, body -> kind, status, type, code
    (429, body(type="requests", code="rate_limit_exceeded"), "rate_limit_exceeded", 429, "requests", "rate_limit_exceeded"),
    (429, body(type="tokens"), "rate_limit_exceeded", 429, "tokens", "rate_limit_exceeded"),
    (429, b"", "rate_limit_exceeded", 429, "requests", "rate_limit_exceeded"),
    (429, body(code="insufficient_quota"), "insufficient_quota", 429, "requests", "insufficient_quota"),
    (429, body(type="insufficient_quota"), "insufficient_quota", 429, "insufficient_quota", "insufficient_quota"),
    (402, body(type="unknown_error", code="invalid_request_error"), "insufficient_quota", 402, "unknown_error", "invalid_request_error"),
    (402, b"", "insufficient_quota", 402, "insufficient_quota", "insufficient_quota"),
    (400, body(code="billing_hard_limit_reached"), "insufficient_quota", 400, "insufficient_quota", "billing_hard_limit_reached"),
    (429, body(code="billing_not_active"), "insufficient_quota", 429, "requests", "billing_not_active"),
    (429, body(type="rate_limit_error", code="slow_down"), "rate_limit_exceeded", 429, "rate_limit_error", "slow_down"),
    (500, body(code="insufficient_quota"), "server_error", 500, "server_error", "insufficient_quota"),
    (498, body(code="capacity_exceeded"), "overloaded", 503, "server_error", "overloaded"),
    (500, body(type="server_error"), "server_error", 500, "server_error", "server_error"),
    (500, b"<html>oops</html>", "server_error", 500, "server_error", "server_error"),
    (502, b"", "server_error", 502, "server_error", "server_error"),
    (503, body(), "server_error", 503, "server_error", "server_error"),
    (503, body(type="overloaded_error"), "overloaded", 503, "overloaded_error", "overloaded"),
    (
        503,
        body(type="service_unavailable_error", code="server_is_overloaded"),
        "overloaded",
        503,
        "service_unavailable_error",
        "server_is_overloaded",
    ),
    (504, b"", "upstream_timeout", 504, "server_error", "upstream_timeout"),
    (408, body(), "upstream_timeout", 504, "server_error", "upstream_timeout"),
    (529, body(type="overloaded_error"), "overloaded", 503, "server_error", "overloaded"),
    (520, b"", "server_error", 502, "server_error", "server_error"),
    (501, body(type="not_implemented_error", code=501), "server_error", 502, "not_implemented_error", "501"),
    (499, body(code="cancelled"), "server_error", 502, "server_error", "cancelled"),
    (507, body(code="full"), "server_error", 502, "server_error", "full"),
    (400, body(code="context_length_exceeded"), "rejected", 400, "invalid_request_error", "context_length_exceeded"),
    (400, b"", "rejected", 400, "invalid_request_error", "invalid_request"),
    (404, body(code="model_not_found"), "rejected", 404, "invalid_request_error", "model_not_found"),
    (404, b"", "rejected", 404, "invalid_request_error", "not_found"),
    (409, b"", "rejected", 409, "invalid_request_error", "conflict"),
    (413, b"", "rejected", 413, "invalid_request_error", "request_too_large"),
    (422, b"", "rejected", 422, "invalid_request_error", "unprocessable_entity"),
    (418, body(type="teapot", code=7), "rejected", 418, "teapot", "7"),
    (400, b'{"code":"invalid-argument","error":"words"}', "rejected", 400, "invalid_request_error", "invalid-argument"),
    (404, b'{"error":"words"}', "rejected", 404, "invalid_request_error", "not_found"),
    (401, body(code="invalid_api_key"), "provider_auth", 502, "server_error", "provider_auth"),
    (403, body(), "provider_auth", 502, "server_error", "provider_auth"),
    (301, b"", "bad_upstream", 502, "server_error", "bad_upstream"),
    (304, b"", "bad_upstream", 502, "server_error", "bad_upstream"),
]


@pytest.mark.parametrize(("status", "sent", "kind", "shown", "type_", "code"), STATUSES)
def test_a_status_is_a_kind_of_failure(status: int, sent: bytes, kind: str, shown: int, type_: str, code: str):
    error = error_of_status(status, {}, sent)
    assert (error.kind, error.status, error.type, error.code) == (kind, shown, type_, code)
    assert error.message


@pytest.mark.parametrize("status", [400, 404, 422, 429, 500, 501, 503, 507, 520])
def test_a_providers_own_words_and_parameter_are_passed_on(status: int):
    error = error_of_status(status, {}, body(message="too long", param="messages"))
    assert (error.message, error.param) == ("too long", "messages")


@pytest.mark.parametrize("status", [401, 403, 529, 408])
def test_words_that_may_hold_a_secret_or_a_page_are_not(status: int):
    error = error_of_status(status, {}, body(message="Incorrect API key provided: sk-secret"))
    assert "sk-secret" not in f"{error.message} {error.detail} {error.param}"


@pytest.mark.parametrize("headers", [{"retry-after": "7"}, {"retry-after-ms": "7000"}])
@pytest.mark.parametrize("status", [429, 500, 503, 529])
def test_a_hint_when_to_come_back_is_passed_on(status: int, headers: dict[str, str]):
    assert error_of_status(status, headers, b"").retry_after == 7.0


def test_a_hint_may_be_as_long_as_a_limit_by_the_day():
    assert error_of_status(429, {"retry-after": "86400"}, b"").retry_after == 86400.0


@pytest.mark.parametrize("hint", ["-1", "nan", "1e9", "soon"])
def test_a_hint_that_makes_no_sense_is_not(hint: str):
    assert error_of_status(429, {"retry-after": hint}, b"").retry_after is None


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b'{"error":{"message":"a"}}', "a"),
        (b'{"error":"b"}', "b"),
        (b'{"message":"c","code":"x"}', "c"),
        (b'{"detail":"d"}', "d"),
        (b'{"detail":["no","text"]}', '["no","text"]'),
        (b'{"detail":[{"loc":["body","messages",0],"msg":"field required"},{"msg":"bad"}]}', "body.messages.0: field required; bad"),
        (b'{"detail":[{"loc":7,"msg":"bad"},7]}', '[{"loc":7,"msg":"bad"},7]'),
        (b'{"detail":{"reason":"full"}}', '{"reason":"full"}'),
        (b'{"object":"error","message":{"detail":[{"loc":["body"],"msg":"missing"}]},"type":"t","code":null}', "body: missing"),
        (b'{"error":{"message":{"a":1}}}', '{"a":1}'),
        (b'{"error":{"message":[]}}', None),
        (b'[{"error":{"code":400,"message":"Invalid value","status":"INVALID_ARGUMENT"}}]', "Invalid value"),
        (b'[{"error":{"message":"a"}},{"error":{"message":"b"}}]', None),
        (b'{"detail":' + b"[" * 300 + b"]" * 300 + b"}", None),
        (b'{"detail":true}', "true"),
        (b'{"error":{"message":"cut \\ud83d here"}}', "cut \ufffd here"),
        (b'{"error":{"message":"cut \xf0\x9f here"}}', "cut \ufffd here"),
        (b'\xef\xbb\xbf{"error":{"message":"marked"}}', "marked"),
        (b'{"error":7}', None),
        (b'{"error":["a"]}', "a"),
        (b'{"error":["a","b"]}', '["a","b"]'),
        (b'{"errors":[{"message":"a","code":5006}],"success":false,"messages":[]}', "a"),
        (b'{"message":"a","errors":[{"message":"b"}]}', "a"),
        (b'{"errors":{"field":["no"]}}', None),
        (b'{"Message":"Too large"}', "Too large"),
        (b'{"code":7,"msg":"bad model","data":null}', "bad model"),
        (b'{"base_resp":{"status_code":2013,"status_msg":"invalid params"}}', "invalid params"),
        (b'{"base_resp":{"status_code":2013}}', None),
        (b'{"base_resp":"odd"}', None),
        (b'{"error":[]}', None),
        (b'["list"]', None),
        (b"<html><body>secret page</body></html>", None),
        (b"plain text", None),
        (b"\xff\xfe", None),
        (b"\xef\xbb\xbf" + body(), "said"),
        (b"\xef\xbb\xbf" + body(message="x" * 70_000), "x" * 4000),
        (b"data: " + body() + b"\n\n", "said"),
        (b"event: error\r\ndata: " + body() + b"\r\n\r\n", "said"),
        (b': ping\n\ndata: {"choices":[]}\n\ndata: ' + body() + b"\n\ndata: [DONE]\n\n", "said"),
        (b'event: error\ndata: {"message":"b","code":1}\n\n', "b"),
        (b"data:" + body(), "said"),
        (b"data: [DONE]\n\n", None),
        (b"data: plain text\n\n", None),
        (b"", None),
    ],
)
def test_the_message_is_found_in_every_usual_shape_and_nowhere_else(sent: bytes, message: str | None):
    assert error_of_status(400, {}, sent).message == (message or "The provider refused the request.")


@pytest.mark.parametrize(
    ("status", "kind", "sent", "message"),
    [
        (422, "text/plain; charset=utf-8", "unknown variant `é`\n".encode(), "unknown variant `é`"),
        (400, "Text/Plain", b"no", "no"),
        (429, "text/plain", b"Slow down", "Slow down"),
        (400, "text/plain", b"", "The provider refused the request."),
        (400, "text/plain", b"\xff", "The provider refused the request."),
        (400, "text/plain", b" <html>secret page", "The provider refused the request."),
        (400, "text/html", b"no", "The provider refused the request."),
        (500, "text/plain", b"Traceback", "The provider failed."),
        (401, "text/plain", b"sk-secret", "The provider refused the gateway's credential."),
        (400, "text/plain", b'{"error":{"message":"a"}}', "a"),
        (400, "text/plain", b"x" * 9000, "x" * 4000),
    ],
)
def test_plain_words_are_those_of_a_refusal(status: int, kind: str, sent: bytes, message: str):
    assert error_of_status(status, {"content-type": kind}, sent).message == message


def test_what_else_a_refusal_says_is_passed_on_where_it_is_known_and_short():
    groq = body(failed_generation='<function="x">', innererror={"code": "Filter"}, stack="no")
    assert error_of_status(400, {}, groq).more == {"failed_generation": '"<function=\\"x\\">"', "innererror": '{"code":"Filter"}'}
    assert error_of_status(500, {}, groq).more == {}
    assert error_of_status(400, {}, body(failed_generation="x" * 17_000, innererror=None)).more == {}
    assert error_of_status(400, {}, b'{"error":{"innererror":' + b"[" * 300 + b"]" * 300 + b"}}").more == {}


@pytest.mark.parametrize(
    ("status", "name", "value"),
    [
        (400, "n_prompt_tokens", 5000),
        (400, "n_ctx", 4096),
        (400, "metadata", {"raw": "x"}),
        (400, "content_filters", [{}]),
        (400, "moderation_details", {"moderation_stage": "input", "categories": ["violence"]}),
        (429, "details", [{}]),
        (429, "metadata", {"provider_name": "X"}),
    ],
)
def test_what_a_refusal_says_in_members_of_its_own_is_passed_on(status: int, name: str, value: object):
    refusal = {"code": status, "message": "m", name: value}
    assert error_of_status(status, {}, body(**refusal)).more == {name: orjson.dumps(value).decode()}
    assert error_in_body(refusal).more == {name: orjson.dumps(value).decode()}


def test_a_long_message_is_cut():
    assert len(error_of_status(400, {}, body(message="x" * 100_000)).message) == 4000
    assert len(error_of_status(400, {}, orjson.dumps({"detail": [{"loc": ["a"], "msg": "no", "input": "y"}] * 2000})).message) == 4000


@pytest.mark.parametrize("code", ["x" * 65, "two words", "line\nbreak", "", True, {"a": 1}, ["a"], 1.5])
def test_what_is_no_word_is_no_code(code: object):
    assert error_of_status(400, {}, body(code=code)).code == "invalid_request"


@pytest.mark.parametrize("type_", ["", 5, None, ["a"]])
def test_what_is_no_text_is_no_type(type_: object):
    assert error_of_status(400, {}, body(type=type_)).type == "invalid_request_error"


BODIES: list[tuple[Any, str, int]] = [
    ({"code": "rate_limit_exceeded"}, "rate_limit_exceeded", 429),
    ({"type": "rate_limit_error"}, "rate_limit_exceeded", 429),
    ({"type": "tokens"}, "rate_limit_exceeded", 429),
    ({"code": "insufficient_quota", "type": "requests"}, "insufficient_quota", 429),
    ({"code": "billing_hard_limit_reached"}, "insufficient_quota", 429),
    ({"code": 402, "message": "Insufficient credits"}, "insufficient_quota", 402),
    ({"code": "capacity_exceeded"}, "overloaded", 503),
    ({"type": "overloaded_error"}, "overloaded", 503),
    ({"code": "service_unavailable"}, "server_error", 503),
    ({"code": "invalid_api_key"}, "provider_auth", 502),
    ({"type": "permission_error"}, "provider_auth", 502),
    ({"code": "context_length_exceeded"}, "rejected", 400),
    ({"type": "not_found_error"}, "rejected", 404),
    *[({"code": code}, "rejected", 400) for code in ("bio_policy", "misalignment_policy_violation", "data_residency_mismatch")],
    ({"code": "cyber_policy"}, "rejected", 400),
    ({"code": "moderation_blocked", "type": "image_generation_user_error"}, "rejected", 400),
    ({"code": "invalid_input_fidelity_model", "type": "image_generation_user_error"}, "rejected", 400),
    ({"code": "server_is_overloaded", "type": "service_unavailable_error"}, "overloaded", 503),
    ({"code": "slow_down"}, "rate_limit_exceeded", 429),
    ({"code": "vector_store_timeout"}, "server_error", 500),
    ({"code": "not_known"}, "server_error", 502),
    ({"code": "timeout"}, "upstream_timeout", 504),
    ({"code": 429}, "rate_limit_exceeded", 429),
    ({"code": "503"}, "server_error", 503),
    ({"status": 529}, "overloaded", 503),
    ({"message": "Input validation error", "http_status_code": 422}, "rejected", 422),
    ({"code": 401}, "provider_auth", 502),
    ({"code": 404, "message": "no"}, "rejected", 404),
    ({"code": 200}, "server_error", 502),
    ({"code": 99999}, "server_error", 502),
    ({"code": "9" * 5000}, "server_error", 502),
    ({"code": "٤٠٤"}, "server_error", 502),
    ({"code": True}, "server_error", 502),
    ({"code": [], "type": {}}, "server_error", 502),
    ({}, "server_error", 502),
    ("words", "server_error", 502),
    (7, "server_error", 502),
    (["a"], "server_error", 502),
]


@pytest.mark.parametrize(("error", "kind", "status"), BODIES)
def test_an_error_inside_a_200_is_its_mapped_status(error: object, kind: str, status: int):
    found = error_in_body(error)
    assert (found.kind, found.status) == (kind, status)


def test_each_code_of_a_response_that_failed_is_known():
    """Whoever sees this fail: say what the new code means in `_BY_CODE`."""
    codes = get_args(ResponseError.model_fields["code"].annotation)
    assert "server_error" in codes
    assert set(codes) <= set(_BY_CODE)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": "not_known", "message": "m"}, "response_failed"),
        ({"code": "not_known", "type": "invalid_request_error"}, "rejected"),
        ({"code": "server_error", "message": "m"}, "server_error"),
        ({"code": 503, "message": "m"}, "server_error"),
        ({"code": "503", "message": "m"}, "server_error"),
        ({"code": "", "message": "m"}, "server_error"),
        ({"code": None, "message": "m"}, "server_error"),
        ({"message": "m"}, "server_error"),
        (None, "server_error"),
        ("words", "server_error"),
    ],
)
def test_a_response_that_failed_with_an_unknown_code_is_a_kind_of_its_own(error: object, kind: str):
    assert error_in_body(error, of_response=True).kind == kind


def test_an_unknown_code_of_a_response_is_shown_and_speaks_against_no_target():
    error = error_in_body({"code": "not_known", "message": "words"}, of_response=True)
    assert (error.status, error.code, error.message) == (502, "not_known", "words")
    assert not counts(error)


@pytest.mark.parametrize("code", [429, 502, "429"])
def test_a_code_that_is_a_status_is_shown(code: object):
    assert error_in_body({"code": code, "message": "m"}).code == str(code)


@pytest.mark.parametrize(
    ("said", "kind", "status"),
    [
        ({"status_code": 1002, "status_msg": "w"}, "rate_limit_exceeded", 429),
        ({"status_code": 1008, "status_msg": "w"}, "insufficient_quota", 429),
        ({"status_code": 1001, "status_msg": "w"}, "upstream_timeout", 504),
        ({"status_code": 1026, "status_msg": "w"}, "rejected", 400),
        ({"status_code": 1000, "status_msg": "w"}, "server_error", 500),
    ],
)
def test_an_error_beside_success_is_its_mapped_status(said: Any, kind: str, status: int):
    error = error_beside_success({"choices": None, "base_resp": said})
    assert error is not None
    assert (error.kind, error.status, error.message) == (kind, status, "w")


def test_an_error_beside_success_of_the_gateways_key_keeps_its_words():
    error = error_beside_success({"base_resp": {"status_code": 1004, "status_msg": "key sk-secret is wrong"}})
    assert error is not None
    assert (error.kind, "sk-secret" in error.message) == ("provider_auth", False)


@pytest.mark.parametrize("value", [{}, {"base_resp": None}, {"base_resp": {"status_code": 0, "status_msg": "success"}}, {"base_resp": []}])
def test_where_success_is_said_there_is_no_error_beside_it(value: Any):
    assert error_beside_success(value) is None


@pytest.mark.parametrize("name", ["code", "type"])
@pytest.mark.parametrize(
    "word",
    [
        "insufficient_quota",
        "insufficient_balance_error",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "project_spend_limit_exceeded",
    ],
)
def test_a_429_that_says_that_no_money_is_left_is_no_rate_limit(name: str, word: str):
    assert error_of_status(429, {}, orjson.dumps({"error": {name: word, "message": "w"}})).kind == "insufficient_quota"


def test_words_inside_a_200_are_passed_on_but_not_where_a_key_was_refused():
    assert error_in_body("words").message == "words"
    assert error_in_body({"message": "words", "code": 404}).message == "words"
    assert error_in_body({"message": "words", "code": "overloaded"}).message == "words"
    assert error_in_body({"message": "sk-secret", "code": "invalid_api_key"}).message == "The provider failed."


_MEMBERS = st.sampled_from(["code", "type", "message", "param", "status", "x"])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=8) | st.sampled_from(["requests", "404", "overloaded"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["code", "type", "message", "param", "status", "x"]), inner)
    ),
    max_leaves=8,
)


@given(_JSON)
def test_any_error_value_is_some_error(value: object):
    error = error_in_body(value)
    assert error.kind in UPSTREAM_KINDS
    assert 400 <= error.status < 600


@given(st.integers(100, 999), st.binary(max_size=60) | _JSON.map(orjson.dumps) | _JSON.map(lambda value: orjson.dumps({"error": value})))
def test_any_answer_outside_2xx_is_some_error(status: int, sent: bytes):
    error = error_of_status(status, {}, sent)
    assert isinstance(error, UpstreamError)
    assert 400 <= error.status < 600
    assert error.status != 401


@pytest.mark.parametrize(
    ("delay", "hint"),
    [
        ("34.07s", 34.07),
        ("0s", 0.0),
        ("-1s", None),
        ("nans", None),
        ("9999999s", None),
        ("s", None),
        ("34", None),
        (34, None),
        (None, None),
    ],
)
def test_googles_endpoint_says_in_the_body_how_long_to_wait(delay: Any, hint: float | None):
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}
    fields = {"code": 429, "message": "Quota exceeded.", "status": "RESOURCE_EXHAUSTED", "details": ["?", {"@type": "x"}, info]}
    error = error_of_status(429, {}, orjson.dumps([{"error": fields}]))
    assert (error.kind, error.retry_after) == ("rate_limit_exceeded", hint)
    assert error_in_body(fields).retry_after == hint
    assert error_of_status(429, {"retry-after": "3"}, orjson.dumps([{"error": fields}])).retry_after == 3.0


LONG = b"x" * 2**18


@pytest.mark.parametrize(
    ("cut", "said", "code"),
    [
        (b'{"error":{"code":"context_length_exceeded","message":"too long: ' + LONG, "too long: xxx", "context_length_exceeded"),
        (b'{"detail":[{"loc":["body","messages"],"msg":"Field required","input":"' + LONG, "body.messages: Field required", None),
        (b'{"error":{"message":"said","param":null,"code":"c"},"request":{"messages":["' + LONG, "said", "c"),
        (b'{"request":{"messages":["' + LONG, "The provider refused the request.", "invalid_request"),
        (b'\xef\xbb\xbf{"error":{"message":"marked' + LONG, "markedxxx", "invalid_request"),
        (b'{"error":{"message":"half \xf0\x9f of one' + LONG, "half \ufffd of one", "invalid_request"),
        (b"{" + LONG, "The provider refused the request.", "invalid_request"),
        (b"<html>" + LONG, "The provider refused the request.", "invalid_request"),
    ],
)
def test_a_refusal_of_which_only_the_beginning_was_read_says_what_stands_there(cut: bytes, said: str, code: str | None):
    error = error_of_status(400, {"content-type": "application/json"}, cut[: 2**18])
    assert error.message.startswith(said) and len(error.message) <= 4000
    assert error.code == code


def test_of_a_refusal_in_many_events_the_first_are_read():
    """A stream that comes with the status of a failure is no reason to read each of ten thousand pieces of text."""
    refusal = b"data: " + body() + b"\n\n"
    assert error_of_status(400, {}, b'data: {"choices":[]}\n\n' * 9 + refusal).message == "said"
    assert error_of_status(400, {}, b'data: {"choices":[]}\n\n' * 100 + refusal).message == "The provider refused the request."
