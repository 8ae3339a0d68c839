"""How an error looks on the wire: an allow-list, in OpenAI's shape."""

from __future__ import annotations

import orjson
import pytest

from proxy.core.errors import CapacityError, ClientError, GatewayError, UpstreamError
from proxy.http import errors


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            ClientError("No.", param="model", code="model_not_found", status=404),
            {"message": "No.", "type": "invalid_request_error", "param": "model", "code": "model_not_found"},
        ),
        (ClientError("No."), {"message": "No.", "type": "invalid_request_error", "param": None, "code": None}),
        (UpstreamError("dns", "No.", detail="secret"), {"message": "No.", "type": "server_error", "param": None, "code": "dns"}),
        (CapacityError("Full."), {"message": "Full.", "type": "server_error", "param": None, "code": "overloaded"}),
    ],
)
def test_an_errors_body_holds_its_four_fields_and_no_more(error: GatewayError, expected: dict[str, object]):
    assert orjson.loads(errors.body(error)) == {"error": expected}


@pytest.mark.parametrize("name", ["message", "type", "param", "code"])
def test_a_lone_surrogate_is_written_all_the_same(name: str):
    error = ClientError("m", param="p", code="c", type="t")
    setattr(error, name, "a\ud800b")
    plain, typed = errors.event(error), errors.event(error, typed=True)
    assert orjson.loads(errors.body(error))["error"][name] == "a?b"
    assert orjson.loads(plain[6:])["error"][name] == "a?b"
    assert orjson.loads(typed.split(b"data: ")[1])["error"][name] == "a?b"


def test_the_providers_rate_limits_go_out_with_its_error():
    error = UpstreamError("rate_limit_exceeded", "Slow down.", retry_after=2.0)
    error.headers = {"x-ratelimit-remaining-requests": "0"}
    assert errors.headers(error) == {
        "content-type": "application/json",
        "retry-after": "2",
        "retry-after-ms": "2000",
        "x-ratelimit-remaining-requests": "0",
    }


def test_what_else_a_provider_says_stands_in_its_error_without_the_credential():
    error = UpstreamError("rejected", "No.")
    error.more = {"innererror": '{"code":"Filter sk-aaaa0123456789"}'}
    error.redact("sk-aaaa0123456789")
    expected = {"message": "No.", "type": "invalid_request_error", "param": None, "code": "rejected", "innererror": {"code": "Filter ***"}}
    assert orjson.loads(errors.body(error)) == {"error": expected}
    assert orjson.loads(errors.event(error)[6:]) == {"error": expected}


def test_what_was_not_foreseen_is_opaque():
    shown = errors.shown(RuntimeError("secret"))
    assert (shown.status, shown.code) == (500, "internal_error")
    assert b"secret" not in errors.body(shown)


def test_our_own_errors_are_shown_as_they_are():
    error = ClientError("m")
    assert errors.shown(error) is error


def test_a_stream_is_told_by_one_event_without_an_end():
    out = errors.event(UpstreamError("stream_truncated", "Cut."))
    assert out.startswith(b"data: ")
    assert out.endswith(b"\n\n")
    assert out.count(b"\n") == 2
    assert orjson.loads(out[6:])["error"]["code"] == "stream_truncated"
    assert b"[DONE]" not in out


@pytest.mark.parametrize("typed", [False, True])
def test_a_provider_that_tells_it_in_an_event_of_its_own_is_heard(typed: bool):
    error = UpstreamError("server_error", "m")
    error.event = b"event: response.failed\ndata: {}\n\n"
    assert errors.event(error, typed=typed) == error.event


def test_a_message_of_several_lines_is_still_one_event():
    for typed, lines in ((False, 2), (True, 3)):
        assert errors.event(UpstreamError("reset", "a\n\ndata: [DONE]\r\n"), typed=typed).count(b"\n") == lines


def test_a_typed_stream_is_told_by_an_event_of_its_own_kind():
    name, data, *_ = errors.event(UpstreamError("stream_truncated", "Cut."), typed=True).split(b"\n")
    assert name == b"event: error"
    value = orjson.loads(data.removeprefix(b"data: "))
    assert (value["type"], value["code"], value["message"], value["param"]) == ("error", "stream_truncated", "Cut.", None)
    assert value["error"]["code"] == "stream_truncated"
    assert value["sequence_number"] == 0, "clients that check each event's shape ask for it"


@pytest.mark.parametrize(
    ("retry_after", "seconds", "milliseconds"), [(0.0, "0", "0"), (0.2, "1", "200"), (7.0, "7", "7000"), (7.5, "8", "7500")]
)
def test_a_hint_is_given_in_both_spellings_and_never_too_short(retry_after: float, seconds: str, milliseconds: str):
    found = errors.headers(CapacityError("m", retry_after=retry_after))
    assert (found["retry-after"], found["retry-after-ms"]) == (seconds, milliseconds)
    assert found["content-type"] == "application/json"


def test_no_hint_is_given_where_there_is_none():
    assert not {"retry-after", "retry-after-ms"} & set(errors.headers(CapacityError("m")))


def test_a_path_that_is_not_there_is_told_from_a_method_that_it_does_not_take():
    missing, wrong = errors.unknown_route("/nothing", ()), errors.unknown_route("/files", ("GET", "POST"))
    assert (missing.status, missing.code) == (404, "unknown_url")
    assert (wrong.status, wrong.code) == (405, "method_not_allowed")
    assert errors.headers(wrong)["allow"] == "GET, POST"
    assert "allow" not in errors.headers(missing)
    assert len(errors.unknown_route("/" + "x" * 5000, ()).message) < 300


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 503])
def test_only_who_must_show_a_key_is_told_how(status: int):
    found = errors.headers(ClientError("No.", status=status)).get("www-authenticate")
    assert found == ('Bearer realm="comporta"' if status == 401 else None)
