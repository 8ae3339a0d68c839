"""Rows 5 to 7, 9, 15 to 21 and 24 to 28 of the fault matrix: an answer that fails before content, delivered whole and byte by byte."""

from __future__ import annotations

import gzip
import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import pytest

from tests.e2e.faults import COMMITTED, FAILURES, HTML, PLAIN, REFUSED, Cut, Fault, cases, check_failed, check_fault, fault
from tests.support.gateway import UPSTREAM_KEY, Gateway, error_of, stream_error_of
from tests.support.raw_client import chat
from tests.support.script import (
    CHAT,
    DONE,
    Fin,
    Reset,
    Send,
    Stall,
    Step,
    Wait,
    chat_chunks,
    chunk,
    completion,
    delta,
    error_response,
    event,
    head,
    json_response,
    response,
    script,
    sliced,
    sse,
    stream_head,
)
from tests.support.upstream import Upstream

# ---------------------------------------------------------------------------------------------------------- rows 5 to 7, 15 to 21, 24 to 28
BROKEN_HEADS = [
    fault("5 reset before headers", Reset(), codes=["reset", "bad_upstream"]),
    fault("5 closed before headers", Fin(), codes=["reset", "bad_upstream"]),
    fault("6 reset in the status line", b"HTTP/1.1 20", Reset()),
    fault("6 reset in the headers", b"HTTP/1.1 200 OK\r\nContent-Type: applica", Reset()),
    fault("6 closed in the headers", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n", Fin()),
    fault("6 no HTTP at all", b"\x00\xff\x00 what is this\r\n\r\n", Fin()),
    fault("6 status of letters", b"HTTP/1.1 abc OK\r\n\r\n", Stall()),
    fault("6 status that is none", b"HTTP/1.1 040 OK\r\nContent-Length: 0\r\n\r\n", Stall()),
    fault("6 header without a colon", b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n", Stall()),
    fault("6 length of letters", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ten\r\n\r\n0123456789", Stall()),
    fault("6 switching protocols", b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", Stall()),
    fault("6 chunked with a length", CHAT.replace(b"\r\n", b"\r\nTransfer-Encoding: chunked\r\n", 1), Stall()),
    fault("6 a header over two lines", b"HTTP/1.1 200 OK\r\nX-One: a\r\n b\r\nContent-Type: app\r\n\r\n", Stall()),
    fault("6 negative length", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: -1\r\n\r\n", Stall()),
    fault(
        "6 two lengths", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} ", Stall()
    ),
]

CUT_BODIES = ("bad_upstream", "reset", "stream_interrupted", "invalid_response")
BROKEN_BODIES = [
    fault("7 reset in a body with length", CHAT[:-40], Reset(), codes=CUT_BODIES),
    fault("7 closed in a body with length", CHAT[:-40], Fin(), codes=CUT_BODIES),
    fault("7 reset in a chunk", stream_head(content_type="application/json") + chunk(PLAIN)[:-30], Reset(), codes=CUT_BODIES),
    fault("7 closed between chunks", stream_head(content_type="application/json") + chunk(PLAIN[:50]), Fin(), codes=CUT_BODIES),
    fault("7 no last chunk", stream_head(content_type="application/json") + chunk(PLAIN), Fin(), codes=CUT_BODIES),
    fault("7 chunk size of letters", stream_head(content_type="application/json") + b"xyz\r\n" + PLAIN, Stall(), codes=CUT_BODIES),
]

STATUSES = [
    fault("15 status 500", error_response(500), status=500, codes=["server_error", "internal_error", None]),
    fault("15 status 502", error_response(502), status=502, codes=["server_error", "bad_upstream", None]),
    fault("15 status 503", error_response(503), status=503, codes=["server_error", "overloaded", None]),
    fault("15 status 500 as HTML", response(500, HTML, "text/html"), status=500, codes=["server_error", "internal_error", None]),
    fault("15 status 500 without a body", response(500, b"", "text/plain"), status=500, codes=["server_error", "internal_error", None]),
    fault("16 status 529", error_response(529, type="overloaded_error"), status=503, codes=["overloaded"], attempts=1, should_retry=None),
    fault(
        "18 status 401",
        error_response(401, f"Incorrect API key provided: {UPSTREAM_KEY}", code="invalid_api_key"),
        codes=["provider_auth"],
        attempts=1,
    ),
    fault("18 status 403", error_response(403, "Country not supported"), codes=["provider_auth"], attempts=1),
    fault(
        "18 status 401 as HTML",
        response(401, HTML, "text/html", [("WWW-Authenticate", 'Basic realm="x"')]),
        codes=["provider_auth"],
        attempts=1,
    ),
]

WRONG_CONTENT = [
    fault("19 truncated JSON", response(200, PLAIN[:-25]), codes=["invalid_response"]),
    fault("19 no JSON", response(200, b"hello?"), codes=["invalid_response"]),
    fault("19 empty body", response(200, b""), codes=["invalid_response"]),
    fault("19 a list", response(200, b"[]"), codes=["invalid_response"]),
    fault("19 bad UTF-8", response(200, PLAIN.replace(b"Hello", b"H\xff\xfello")), codes=["invalid_response"]),
    fault("19 two values", response(200, PLAIN + PLAIN), codes=["invalid_response"]),
    fault("21 HTML with 200", response(200, HTML, "text/html"), codes=["bad_upstream", "invalid_response"]),
    fault("21 HTML said to be JSON", response(200, HTML), codes=["bad_upstream", "invalid_response"]),
    fault("21 plain text", response(200, b"fine, thanks", "text/plain"), codes=["bad_upstream", "invalid_response"]),
    fault("27 no choices", json_response(200, {**completion(), "choices": []}), codes=["invalid_response"], usage=("reported",)),
    fault(
        "28 unknown coding",
        response(200, PLAIN, headers=[("Content-Encoding", "x-squeeze")]),
        codes=["bad_upstream", "invalid_response"],
        attempts=1,
    ),
    fault("28 gzip that is none", response(200, PLAIN, headers=[("Content-Encoding", "gzip")]), codes=["bad_upstream", "invalid_response"]),
    fault(
        "28 truncated gzip",
        response(200, gzip.compress(PLAIN)[:-12], headers=[("Content-Encoding", "gzip")]),
        codes=["bad_upstream", "invalid_response"],
    ),
]


@pytest.mark.parametrize("fault", cases([*BROKEN_HEADS, *STATUSES]))
def test_failure_before_a_body(gateway: Gateway, upstream: Upstream, fault: Fault) -> None:
    check_fault(gateway, upstream, fault, streams=(False, True))


@pytest.mark.parametrize("fault", cases([*BROKEN_BODIES, *WRONG_CONTENT]))
def test_failure_of_a_whole_body(gateway: Gateway, upstream: Upstream, fault: Fault) -> None:
    check_fault(gateway, upstream, fault)


@pytest.mark.row(19)
@pytest.mark.parametrize("row", ["19 truncated JSON", "19 no JSON"])
def test_a_useless_answer_is_estimated(single: Gateway, upstream: Upstream, row: str) -> None:
    upstream.play(next(each.answer for each in WRONG_CONTENT if each.row == row))
    record = single.record_of(chat(single.url))
    assert record["usage"] == "estimated", record
    assert record["prompt_tokens"] > 0, record


@pytest.mark.row(11)
def test_the_hint_of_a_429_is_passed_on(single: Gateway, upstream: Upstream, cut: Cut) -> None:
    upstream.play(cut(script(error_response(429, "slow down", [("Retry-After", "7")], type="requests", code="rate_limit_exceeded"))))
    answer = chat(single.url)
    assert answer.status == 429
    assert answer.header("retry-after") == "7"
    assert error_of(answer) == {"message": "slow down", "type": "requests", "param": None, "code": "rate_limit_exceeded"}
    assert single.record_of(answer)["usage"] == "none"


@pytest.mark.row(12)
def test_a_hint_that_is_a_date_is_passed_on_as_seconds(single: Gateway, upstream: Upstream, cut: Cut) -> None:
    upstream.play(cut(script(error_response(429, headers=[("Retry-After", formatdate(time.time() + 30, usegmt=True))]))))
    answer = chat(single.url)
    assert answer.status == 429
    assert 25 <= int(answer.header("retry-after") or 0) <= 31


PAST, NO_DATE = "Thu, 01 Jan 1970 00:00:00 GMT", "Thu, 99 Foo 2999"
SENSELESS = ["-5", "NaN", "inf", "1e400", "99999999", "0x10", "soon", "7, 8", "1" * 4000, PAST, NO_DATE]


@pytest.mark.row(13)
@pytest.mark.parametrize("hint", SENSELESS, ids=lambda hint: hint[:20])
def test_a_hint_that_makes_no_sense_is_not_passed_on(single: Gateway, upstream: Upstream, cut: Cut, hint: str) -> None:
    upstream.play(cut(script(error_response(429, headers=[("Retry-After", hint)]))))
    answer = chat(single.url)
    assert (answer.status, answer.header("retry-after"), answer.header("retry-after-ms")) == (429, None, None)
    error_of(answer)


@pytest.mark.row(14)
@pytest.mark.parametrize("where", ["code", "type"])
def test_a_quota_that_is_spent_is_told_from_a_rate(gateway: Gateway, upstream: Upstream, cut: Cut, where: str) -> None:
    upstream.play(cut(script(json_response(429, {"error": {"message": "you are out of money", where: "insufficient_quota"}}))))
    before = gateway.metric(FAILURES, kind="insufficient_quota")
    answer = chat(gateway.url)
    assert (answer.status, error_of(answer)["code"], error_of(answer)["message"]) == (429, "insufficient_quota", "you are out of money")
    gateway.wait_metric(before + 1, FAILURES, kind="insufficient_quota")


# ---------------------------------------------------------------------------------------------------------- row 17: the request is at fault
@pytest.mark.row(17, cut="both")
@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_a_refusal_is_passed_on(gateway: Gateway, upstream: Upstream, status: int) -> None:
    refusal = {"message": "temperature: 9 is too hot", "type": "invalid_request_error", "param": "temperature", "code": "too_hot"}
    answer = script(json_response(status, {"error": refusal}))
    upstream.play(answer, answer, sliced(answer), sliced(answer))
    before = gateway.metric(FAILURES, provider="up")
    answers = [chat(gateway.url, stream=stream) for stream in (False, True, False, True)]
    assert [each.status for each in answers] == [status] * 4
    assert [error_of(each) for each in answers] == [refusal] * 4
    for each in answers:
        record = gateway.record_of(each)
        assert (record["status"], record["outcome"], record["error"]) == (status, REFUSED, "too_hot"), record
    gateway.wait_metric(before + 4, FAILURES, provider="up")
    assert len(upstream.requests) == 4


@pytest.mark.row(17)
@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (b'{"error": "too hot"}', "application/json", "too hot"),
        (b'{"message": "too hot"}', "application/json", "too hot"),
        (b'{"detail": "too hot"}', "application/json", "too hot"),
        (b'{"error": {"message": "too hot", "code": 400}}', "application/json", "too hot"),
        (b'{"error": {"message": "too hot", "type": null, "param": 3, "extra": {"a": 1}}}', "application/json", "too hot"),
        (b'{"detail": [{"loc": ["body"], "msg": "too hot"}]}', "application/json", None),
        (b'{"error": null}', "application/json", None),
        (b"[1, 2", "application/json", None),
        (b'{"error": {"message": "\xff\xfe"}}', "application/json", None),
        (b"", "application/json", None),
        (HTML, "text/html", None),
    ],
)
def test_a_refusal_in_any_form_is_normalised(
    gateway: Gateway, upstream: Upstream, cut: Cut, body: bytes, content_type: str, message: str | None
) -> None:
    upstream.play(cut(script(response(422, body, content_type))))
    answer = chat(gateway.url)
    assert answer.status == 422
    error = error_of(answer)
    assert b"<html" not in answer.body
    if message:
        assert error["message"] == message


# ------------------------------------------------------------------------------------------------------------------ row 9: silence at first
JSON_HEAD = head(200, [("Content-Type", "application/json"), ("Content-Length", "700")])
SILENCES = {
    "streamed-nothing": (True, "hasty/any", (Stall(),)),
    "streamed-headers-only": (True, "hasty/any", (stream_head(), Stall())),
    "streamed-comments-only": (
        True,
        "hasty/any",
        (stream_head(), *(step for _ in range(12) for step in (Wait(0.25), Send(chunk(b": still here\n\n")))), Stall()),
    ),
    "half-a-body": (False, "hasty/any", (CHAT[:-40], Stall())),
    # A whole answer takes as long as its last token: nothing but the total time bounds the wait for it.
    "nothing": (False, "brief/any", (Stall(),)),
    "headers-only": (False, "brief/any", (JSON_HEAD, Stall())),
    "a-slow-drip-of-headers": (
        False,
        "brief/any",
        (*(step for letter in b"HTTP/1.1 200" for step in (Send(bytes([letter])), Wait(0.25))), Stall()),
    ),
}


@pytest.mark.row(9)
@pytest.mark.parametrize(("stream", "model", "steps"), SILENCES.values(), ids=SILENCES.keys())
def test_silence_before_the_first_event(
    gateway: Gateway, upstream: Upstream, stream: bool, model: str, steps: tuple[Step | bytes, ...]
) -> None:
    upstream.play(script(*steps))
    before = gateway.metric(FAILURES, kind="upstream_timeout")
    started = time.monotonic()
    answer = chat(gateway.url, model, stream=stream)
    took = time.monotonic() - started
    assert answer.status == 504, answer.body
    check_failed(gateway, answer, error_of(answer), status=504, codes=["upstream_timeout"])
    assert upstream.requests[0].connection.closed.wait(1)
    assert (0.7 if model == "brief/any" else 0.9) < took < 2.0
    gateway.wait_metric(before + 1, FAILURES, kind="upstream_timeout")


@pytest.mark.row(10)
def test_the_total_time_bounds_a_stream_that_never_pauses(gateway: Gateway, upstream: Upstream) -> None:
    drip = [step for _ in range(20) for step in (Wait(0.1), Send(chunk(event(delta(" more")))))]
    upstream.play(script(*COMMITTED, *drip, Stall()))
    started = time.monotonic()
    answer = chat(gateway.url, "brief/any", stream=True)
    assert 0.7 < time.monotonic() - started < 1.8
    check_failed(gateway, answer, stream_error_of(answer), status=504, codes=["upstream_timeout"])
    assert upstream.requests[0].connection.closed.wait(1)


# ------------------------------------------------------------------------------------------------------------------------ row 20: too large
TOO_LARGE = [
    fault("20 a body", response(200, PLAIN + b" " * 9000), codes=["response_too_large"], attempts=1),
    fault(
        "20 a long length",
        head(200, [("Content-Type", "application/json"), ("Content-Length", "9999999")]) + PLAIN + b" " * 9000,
        Stall(),
        codes=["response_too_large"],
        attempts=1,
    ),
    fault(
        "20 a body in chunks",
        stream_head(content_type="application/json") + chunk(PLAIN) + chunk(b" " * 9000),
        Stall(),
        codes=["response_too_large"],
        attempts=1,
    ),
    fault("20 one header", b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 5000, Stall(), codes=["response_too_large"], attempts=1),
    fault(
        "20 many headers",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-Many-%d: abcdefghij\r\n" % number for number in range(400)),
        Stall(),
        codes=["response_too_large"],
        attempts=1,
    ),
    fault(
        "28 a bomb",
        response(200, gzip.compress(b" " * 5_000_000 + PLAIN), headers=[("Content-Encoding", "gzip")]),
        codes=["response_too_large"],
        attempts=1,
    ),
]


@pytest.mark.parametrize("fault", cases(TOO_LARGE))
def test_too_large(tight: Gateway, upstream: Upstream, fault: Fault) -> None:
    check_fault(tight, upstream, fault)


@pytest.mark.row(20, cut="both")
def test_a_first_event_that_is_too_large(tight: Gateway, upstream: Upstream) -> None:
    """Not a byte at a time: on a slow machine the first ping would be out before the last of many pieces."""
    long = fault(
        "20 a first event", stream_head() + chunk(event(delta("a" * 6000))[:-2]), Stall(), codes=["response_too_large"], attempts=1
    )
    check_fault(tight, upstream, long, streams=(True,), sizes=(0, 1024))


@pytest.mark.row(20)
@pytest.mark.parametrize("size", [6000, 200])
def test_a_later_event_that_is_too_large(tight: Gateway, upstream: Upstream, cut: Cut, size: int) -> None:
    """One long line, and many lines of one event."""
    long = b"".join(b"data: " + b"a" * size + b"\n" for _ in range(6000 // size))
    upstream.play(cut(script(*COMMITTED, chunk(long), Stall())))
    before = tight.metric(FAILURES, provider="up", kind="response_too_large")
    answer = chat(tight.url, stream=True)
    assert "aaaa" not in answer.body.decode()
    check_failed(tight, answer, stream_error_of(answer), status=502, codes=["response_too_large"])
    assert upstream.requests[0].connection.closed.wait(1)
    tight.wait_metric(before + 1, FAILURES, provider="up", kind="response_too_large")


@pytest.mark.row(20)
def test_a_stream_may_be_longer_than_a_body(tight: Gateway, upstream: Upstream) -> None:
    """The cap on a body bounds what is held; of a stream only an event is."""
    events = chat_chunks("word " * 100, used=None)
    assert sum(map(len, events)) > 10_000
    upstream.play(sse(events))
    answer = chat(tight.url, stream=True)
    assert answer.body == b"".join(events) + DONE


# ------------------------------------------------------------------------------------------------------ rows 24 and 26: errors inside a 200
@dataclass(frozen=True, slots=True)
class Inside:
    """An error object that comes with status 200, and what it has to become."""

    status: int
    codes: tuple[str, ...]
    error: dict[str, Any]
    outcome: str = "upstream_error"


ERRORS = [
    Inside(429, ("rate_limit_exceeded",), {"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"}),
    Inside(
        400,
        ("context_length_exceeded",),
        {"message": "too long", "type": "invalid_request_error", "code": "context_length_exceeded"},
        REFUSED,
    ),
    Inside(500, ("server_error",), {"message": "it broke", "type": "server_error"}),
    Inside(502, ("provider_auth",), {"message": "bad key", "type": "invalid_request_error", "code": "invalid_api_key"}),
    Inside(503, ("overloaded", "server_error", "503"), {"message": "too busy", "code": 503}),
]


@pytest.mark.row(24, 26)
@pytest.mark.parametrize("inside", ERRORS, ids=[each.error["message"].replace(" ", "-") for each in ERRORS])
def test_an_error_inside_a_200(single: Gateway, upstream: Upstream, cut: Cut, inside: Inside) -> None:
    """As an event of a stream, as a body, and as a body where a stream was asked for."""
    value = {"error": inside.error}
    as_event, as_body = cut(script(sse([event(value)]))), cut(script(json_response(200, value)))
    upstream.play(as_event, as_body, as_body)
    before = single.metric(FAILURES, provider="up")
    answers = [chat(single.url, stream=stream) for stream in (True, False, True)]
    assert [answer.status for answer in answers] == [inside.status] * 3, [answer.body for answer in answers]
    for answer in answers:
        record = check_failed(single, answer, error_of(answer), status=inside.status, codes=inside.codes, outcome=inside.outcome)
        assert record["usage"] == "none", record
    single.wait_metric(before + 3, FAILURES, provider="up")
