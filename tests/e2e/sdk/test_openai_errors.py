"""What an application catches: each failure as the SDK's own exception class, with its own message, type and code."""

from __future__ import annotations

import json
import time
from typing import Any

import openai
import pytest

from tests.e2e.sdk.conftest import CLIENT_KEY, UPSTREAM_KEYS, Sdk, recorded
from tests.e2e.sdk.openai_answers import chat_frames
from tests.support.gateway import Gateway
from tests.support.provider_double import Answer, ProviderDouble, event, refusal, stream

MODEL = "gpt-4.1"
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "one two three"}]
FRAMES = chat_frames({"model": MODEL, "messages": HELLO, "stream_options": {"include_usage": True}})
CANCELLED_WITHIN = 1.0

PASSED_ON = [
    (400, openai.BadRequestError, "invalid_request_error", "context_length_exceeded", "messages"),
    (404, openai.NotFoundError, "invalid_request_error", "model_not_found", None),
    (409, openai.ConflictError, "invalid_request_error", "resource_busy", None),
    (422, openai.UnprocessableEntityError, "invalid_request_error", "bad_value", "temperature"),
    (429, openai.RateLimitError, "requests", "rate_limit_exceeded", None),
    (429, openai.RateLimitError, "insufficient_quota", "insufficient_quota", None),
    (500, openai.InternalServerError, "server_error", "server_error", None),
    (503, openai.InternalServerError, "server_error", "engine_overloaded", None),
]


@pytest.fixture
def client(sdk: Sdk, gateway: Gateway) -> Any:
    return sdk.client(gateway)


def shown(error: openai.APIError) -> tuple[str | None, str | None, str | None]:
    return error.type, error.code, error.param


# -- statuses -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("status", "kind", "type_", "code", "param"), PASSED_ON)
def test_an_upstreams_refusal_keeps_its_class_message_type_and_code(  # noqa: PLR0917 - pytest passes them by name
    sdk: Sdk,
    client: Any,
    double: ProviderDouble,
    gateway: Gateway,
    streamed: bool,
    status: int,
    kind: type[openai.APIStatusError],
    type_: str,
    code: str | None,
    param: str | None,
) -> None:
    double.answer_next(refusal(status, f"told {status} for a reason", type_, code, param))
    with pytest.raises(kind) as caught:
        sdk.do(client.chat.completions.create(model=MODEL, messages=HELLO, stream=streamed))
    assert caught.value.status_code == status
    assert f"told {status} for a reason" in caught.value.message
    assert shown(caught.value) == (type_, code, param)
    record = recorded(gateway, caught.value.request_id)
    assert (record["status"], record["stream"]) == (status, streamed)
    assert record["outcome"] in {"client_error", "upstream_error"}


@pytest.mark.parametrize("status", [401, 403])
def test_the_gateways_own_credentials_are_never_the_clients_fault(
    sdk: Sdk, client: Any, double: ProviderDouble, gateway: Gateway, status: int
) -> None:
    double.answer_next(
        refusal(status, f"Incorrect API key provided: {UPSTREAM_KEYS['DOUBLE_KEY']}", "invalid_request_error", "invalid_api_key")
    )
    with pytest.raises(openai.InternalServerError) as caught:
        sdk.do(client.chat.completions.create(model=MODEL, messages=HELLO))
    assert (caught.value.status_code, caught.value.code) == (502, "provider_auth")
    assert UPSTREAM_KEYS["DOUBLE_KEY"] not in caught.value.response.text
    assert recorded(gateway, caught.value.request_id)["outcome"] == "upstream_error"


def test_an_upstream_that_refuses_the_connection_is_a_502(sdk: Sdk, client: Any, gateway: Gateway) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        sdk.do(client.chat.completions.create(model="gone/any", messages=HELLO))
    assert (caught.value.status_code, caught.value.code) == (502, "connect_failed")
    assert recorded(gateway, caught.value.request_id)["error"] == "connect_failed"


def test_a_page_of_html_with_200_never_reaches_the_client(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    double.answer_next(Answer(body=b"<html>Sign in</html>", content_type="text/html"))
    with pytest.raises(openai.InternalServerError) as caught:
        sdk.do(client.chat.completions.create(model=MODEL, messages=HELLO))
    assert caught.value.status_code == 502
    assert "html" not in caught.value.response.text


def test_an_unknown_model_is_named_with_the_nearest_one(sdk: Sdk, routed: Gateway, double: ProviderDouble) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.do(sdk.client(routed).chat.completions.create(model="gpt-4.2", messages=HELLO))
    assert caught.value.code == "model_not_found"
    assert "gpt-4.2" in caught.value.message
    assert "gpt-4.1" in caught.value.message
    assert double.seen == []


def test_an_unknown_model_cannot_be_retrieved(sdk: Sdk, routed: Gateway) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.do(sdk.client(routed).models.retrieve("nothing-like-it"))
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"messages": HELLO}, "model"),
        ({"model": MODEL}, "messages"),
        ({"model": MODEL, "messages": "hello"}, "messages"),
        ({"model": 7, "messages": HELLO}, "model"),
        ({"model": MODEL, "messages": HELLO, "stream": "yes"}, "stream"),
    ],
)
def test_a_wrong_field_is_named_before_anything_goes_up(
    sdk: Sdk, client: Any, double: ProviderDouble, body: dict[str, Any], named: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.do(client.post("/chat/completions", body=body, cast_to=object))
    assert caught.value.type == "invalid_request_error"
    assert caught.value.param == named
    assert named in caught.value.message
    assert double.seen == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/nothing/here"),
        ("POST", "/realtime/nothing"),
        ("POST", "/files/../../admin"),
        ("GET", "/files/%2e%2e/content"),
        ("GET", "/files/..%2f..%2fmetrics/content"),
        ("GET", "/metrics"),
    ],
)
def test_a_route_outside_the_table_is_a_404_in_the_error_shape(
    sdk: Sdk, client: Any, double: ProviderDouble, method: str, path: str
) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.do(client.post(path, body={}, cast_to=object) if method == "POST" else client.get(path, cast_to=object))
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id
    assert double.seen == []


# -- retries ------------------------------------------------------------------------------------------------------------------------


def test_a_hint_to_wait_reaches_the_client(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    double.answer_next(refusal(429, "slow down", "requests", "rate_limit_exceeded", retry_after="17"))
    with pytest.raises(openai.RateLimitError) as caught:
        sdk.do(client.chat.completions.create(model=MODEL, messages=HELLO))
    assert caught.value.response.headers["retry-after"] == "17"


def test_the_sdks_own_retry_works_through_the_gateway(sdk: Sdk, gateway: Gateway, double: ProviderDouble) -> None:
    client = sdk.client(gateway, max_retries=1)
    double.answer_next(refusal(503, "not now", "server_error"))
    assert sdk.do(client.chat.completions.create(model=MODEL, messages=HELLO)).choices
    assert len(double.seen) == 2


# -- streams ------------------------------------------------------------------------------------------------------------------------


def failed_stream(sdk: Sdk, client: Any) -> tuple[str, openai.APIError]:
    """What a stream said before it failed, and how it failed."""
    chunks = sdk.do(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True))
    text = ""
    with pytest.raises(openai.APIError) as caught:
        while True:
            text += sdk.next(chunks).choices[0].delta.content or ""
    return text, caught.value


def test_an_error_event_in_mid_stream_raises_with_its_message_and_code(
    sdk: Sdk, client: Any, double: ProviderDouble, gateway: Gateway
) -> None:
    error = {"error": {"message": "the engine gave up", "type": "server_error", "param": None, "code": "engine_failed"}}
    double.answer_next(stream([*FRAMES[:3], event(error)]))
    before = gateway.mark()
    text, raised = failed_stream(sdk, client)
    assert text == "You said: "
    assert raised.message == "the engine gave up"
    assert shown(raised) == ("server_error", "engine_failed", None)
    assert gateway.record_since(before)["outcome"] == "upstream_error"


@pytest.mark.parametrize(
    ("frames", "ending", "code"),
    [
        (FRAMES[:3], "clean", "stream_truncated"),
        (FRAMES[:3], "cut", "stream_interrupted"),
    ],
)
def test_a_stream_that_breaks_off_is_never_a_clean_end(
    sdk: Sdk, client: Any, double: ProviderDouble, frames: list[bytes], ending: str, code: str
) -> None:
    double.answer_next(stream(frames, ending=ending))
    text, raised = failed_stream(sdk, client)
    assert text == "You said: "
    assert raised.code == code


def test_a_stall_inside_a_stream_ends_it_with_a_timeout(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    double.answer_next(stream(FRAMES[:3], ending="hang"))
    chunks = sdk.do(client.chat.completions.create(model="hasty/gpt-4.1", messages=HELLO, stream=True))
    with pytest.raises(openai.APIError) as caught:
        sdk.each(chunks)
    assert caught.value.code == "upstream_timeout"
    assert double.last.cancelled.wait(CANCELLED_WITHIN)


def test_an_error_as_the_first_event_is_a_status(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    error = {"error": {"message": "slow down", "type": "requests", "param": None, "code": "rate_limit_exceeded"}}
    double.answer_next(stream([event(error)]))
    with pytest.raises(openai.RateLimitError) as caught:
        sdk.do(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True))
    assert caught.value.code == "rate_limit_exceeded"


def test_a_missing_done_after_the_finish_reason_is_made_good(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    double.answer_next(stream(FRAMES[:-1]))
    ask = client.chat.completions.with_streaming_response.create(model=MODEL, messages=HELLO, stream=True)
    lines = [line for line in sdk.within(ask, lambda response: sdk.each(response.iter_lines())) if line]
    assert lines[-1] == "data: [DONE]"


# -- timeouts and leaving -----------------------------------------------------------------------------------------------------------

PATIENT = {"x-stainless-read-timeout": "30"}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_client_that_gives_up_waiting_cancels_the_upstream(
    sdk: Sdk, client: Any, double: ProviderDouble, gateway: Gateway, streamed: bool
) -> None:
    double.answer_next(Answer(ending="hang"))
    before = gateway.mark()
    call = client.with_options(timeout=0.4).chat.completions.create
    with pytest.raises(openai.APITimeoutError):
        sdk.do(call(model=MODEL, messages=HELLO, stream=streamed, extra_headers=PATIENT))
    assert double.last.cancelled.wait(CANCELLED_WITHIN)
    record = gateway.record_since(before)
    assert (record["status"], record["outcome"], record["usage"]) == (499, "cancelled", "estimated")


def test_the_deadline_that_the_sdk_states_is_honoured(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    double.answer_next(Answer(ending="hang"))
    started = time.monotonic()
    with pytest.raises(openai.InternalServerError) as caught:
        sdk.do(client.chat.completions.create(model=MODEL, messages=HELLO, extra_headers={"x-stainless-read-timeout": "0.4"}))
    assert (caught.value.status_code, caught.value.code) == (504, "deadline_exceeded")
    assert time.monotonic() - started < 2
    assert double.last.cancelled.wait(CANCELLED_WITHIN)


def test_an_unmodified_clients_timeout_is_its_own_exception(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    double.answer_next(Answer(ending="hang"))
    with pytest.raises(openai.APITimeoutError):
        sdk.do(client.with_options(timeout=0.4).chat.completions.create(model=MODEL, messages=HELLO))
    assert double.last.cancelled.wait(CANCELLED_WITHIN)


def test_a_read_timeout_bounds_each_silence_and_not_the_whole_stream(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    double.answer_next(stream(FRAMES, gap=0.15))
    chunks = sdk.do(client.with_options(timeout=0.6).chat.completions.create(model=MODEL, messages=HELLO, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in sdk.each(chunks))
    assert text == "You said: one two three"


def test_a_first_token_that_does_not_come_is_a_504(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    double.answer_next(Answer(ending="hang"))
    with pytest.raises(openai.InternalServerError) as caught:
        sdk.do(client.chat.completions.create(model="hasty/gpt-4.1", messages=HELLO))
    assert (caught.value.status_code, caught.value.code) == (504, "upstream_timeout")
    assert double.last.cancelled.wait(CANCELLED_WITHIN)


def test_a_stream_that_is_closed_early_cancels_the_upstream(sdk: Sdk, client: Any, double: ProviderDouble, gateway: Gateway) -> None:
    double.answer_next(stream(FRAMES[:4], ending="hang"))
    raw = sdk.do(client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO, stream=True))
    chunks = raw.parse()
    assert sdk.next(chunks).choices[0].delta.role == "assistant"
    sdk.do(chunks.close())
    assert double.last.cancelled.wait(CANCELLED_WITHIN)
    record = recorded(gateway, raw.headers["x-request-id"])
    assert (record["status"], record["outcome"], record["usage"]) == (499, "cancelled", "estimated")


def test_a_body_over_the_limit_is_refused_by_its_length(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    with pytest.raises((openai.APIStatusError, openai.APIConnectionError)) as caught:
        sdk.do(client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x" * (33 * 1024 * 1024)}]))
    if isinstance(caught.value, openai.APIStatusError):  # otherwise it was still sending when the gateway closed
        assert (caught.value.status_code, caught.value.code) == (413, "request_too_large")
    assert double.seen == []


def test_no_record_and_no_log_line_shows_a_key(gateway: Gateway, double: ProviderDouble) -> None:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=CLIENT_KEY, max_retries=0) as client:
        double.answer_next(refusal(400, f"bad key {CLIENT_KEY}", "invalid_request_error"))
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": CLIENT_KEY}])
    recorded(gateway, caught.value.request_id)
    written = json.dumps(gateway.lines) + "".join(gateway.noise)
    assert not any(key in written for key in (CLIENT_KEY, *UPSTREAM_KEYS.values()))


def test_clients_that_leave_during_a_stream_cancel_each_its_own(sdk: Sdk, client: Any, double: ProviderDouble) -> None:
    opened = []
    for _ in range(5):
        double.answer_next(stream(FRAMES[:2], ending="hang"))
        opened.append(sdk.do(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)))
        sdk.next(opened[-1])
    for chunks in opened[:4]:
        sdk.do(chunks.close())
    assert all(seen.cancelled.wait(CANCELLED_WITHIN) for seen in double.seen[:4])
    assert not double.seen[4].cancelled.is_set()
    sdk.do(opened[4].close())
