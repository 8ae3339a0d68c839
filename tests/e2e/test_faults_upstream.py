"""Rows 1 to 31 of the fault matrix: what an upstream can do wrong, and what the client, the record and the counter see of it.

There is no retry and no fallback in this gateway yet, so each row ends in its final status. Every answer is delivered whole and again
one byte at a time.
"""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.gateway import UPSTREAM_KEY, Gateway, Record, error_of, stream_error_of
from tests.support.raw_client import Answer, RawClient, chat, chat_body
from tests.support.upstream import (
    CHAT,
    CHAT_STREAM,
    DONE,
    LAST_CHUNK,
    Fin,
    Reset,
    Script,
    Send,
    Stall,
    Step,
    Upstream,
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
    role_chunk,
    script,
    sliced,
    sse,
    stream_head,
    usage,
    usage_chunk,
)

Cut = Callable[[Script], Script]
FAILURES = "llm_upstream_failures_total"
REFUSED = "client_error"  # the provider found fault with the request: the record says so, the counter still says who found it

#: A stream that has begun. What follows `COMMITTED` finds content forwarded already.
BEGUN = stream_head() + b"".join(chunk(event(value)) for value in (role_chunk(), delta("Hello"), delta(" there")))
COMMITTED: tuple[Step | bytes, ...] = (BEGUN, Wait(0.05))


def check_ended_well(gateway: Gateway, upstream: Upstream, model: str = "test-model") -> None:
    """What failed left nothing behind: the next request is served, and not over a connection that failed."""
    upstream.play(CHAT)
    answer = chat(gateway.url, model)
    assert answer.status == 200, answer.body
    assert answer.json() == completion()
    doubted, fresh = upstream.requests[-2].connection, upstream.requests[-1].connection
    assert doubted.number != fresh.number, "a connection that failed was used again"


def check_failed(
    gateway: Gateway, answer: Answer, error: dict[str, Any], *, status: int, codes: Sequence[str | None], outcome: str = "upstream_error"
) -> Record:
    """The answer's error has one of `codes`, and the record of it says the same."""
    assert error["code"] in codes, error
    record = gateway.record_of(answer)
    assert record["status"] == status, record
    assert record["outcome"] == outcome, record
    assert record.get("error") == error["code"], (record, error)
    assert record["operation"] == "chat" and record["stream"] in (True, False), record
    return record


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to fail before content: `answer` of the upstream, then the client's `status` and `codes` (any of them)."""

    row: str
    answer: Script
    status: int
    codes: tuple[str | None, ...]
    usage: tuple[str, ...] = ("none", "estimated")
    outcome: str = "upstream_error"


def fault(row: str, *steps: Step | bytes, status: int = 502, codes: Sequence[str | None] = ("bad_upstream",), **more: Any) -> Fault:
    return Fault(row, script(*steps), status, tuple(codes), **more)


def named(fault: Fault) -> str:
    return fault.row.replace(" ", "-")


# --------------------------------------------------------------------------------------------------------------------- rows 1 to 3: connect
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("provider", "status", "code"),
    [("refusing", 502, "connect_failed"), ("nowhere", 502, "dns"), ("babbling", 502, "tls"), ("deaf", 504, "connect_timeout")],
)
def test_no_connection(gateway: Gateway, provider: str, status: int, code: str, stream: bool) -> None:
    before = gateway.metric(FAILURES, provider=provider)
    answer = chat(gateway.url, f"{provider}/any", stream=stream)
    assert answer.status == status
    record = check_failed(gateway, answer, error_of(answer), status=status, codes=[code])
    assert record["usage"] == "none", record
    assert record["provider"] == provider
    gateway.wait_metric(before + 1, FAILURES, provider=provider)


@pytest.mark.parametrize("provider", ["slamming", "greeting"])
def test_a_server_that_does_not_wait_for_the_request(gateway: Gateway, provider: str) -> None:
    """It resets, or speaks, as soon as it has accepted: which comes before the request or after it, by chance."""
    for place in range(12):
        started = time.monotonic()
        answer = chat(gateway.url, f"{provider}/any", stream=place % 2 == 0)
        assert answer.status == 502, answer.body
        assert time.monotonic() - started < 1, "it was waited for"
        check_failed(gateway, answer, error_of(answer), status=502, codes=["reset", "bad_upstream", "connect_failed"])


# -------------------------------------------------------------------------------------------------------------------- rows 4 and 5: reset
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("at_head", [False, True])
def test_reset_on_a_reused_connection(gateway: Gateway, upstream: Upstream, stream: bool, at_head: bool) -> None:
    """It may have been closed while it lay idle: it is tried once more, on a connection that no one has used."""
    upstream.play(CHAT, script(Reset(), at_head=at_head), CHAT_STREAM if stream else CHAT)
    assert chat(gateway.url).status == 200
    answer = chat(gateway.url, stream=stream)
    assert answer.status == 200, answer.body
    reused, fresh = upstream.wait_request(2).connection, upstream.wait_request(3).connection
    assert reused.requests >= 2 and fresh.requests == 1
    assert (gateway.record_of(answer)["status"], gateway.record_of(answer)["outcome"]) == (200, "ok")


@pytest.mark.parametrize("stream", [False, True])
def test_two_resets_in_a_row(gateway: Gateway, upstream: Upstream, stream: bool) -> None:
    upstream.play(CHAT, script(Reset()), script(Reset()))
    assert chat(gateway.url).status == 200
    before = gateway.metric(FAILURES, provider="up")
    answer = chat(gateway.url, stream=stream)
    assert answer.status == 502
    check_failed(gateway, answer, error_of(answer), status=502, codes=["reset", "bad_upstream"])
    gateway.wait_metric(before + 1, FAILURES, provider="up")
    assert len(upstream.requests) == 3
    check_ended_well(gateway, upstream)


@pytest.mark.parametrize("part", [b"H", b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nContent-Type: applica"], ids=["1", "11", "40"])
@pytest.mark.parametrize("ending", [Reset(), Fin()], ids=["reset", "closed"])
def test_an_answer_that_has_begun_is_not_asked_for_again(gateway: Gateway, upstream: Upstream, part: bytes, ending: Step) -> None:
    """The connection was alive, so the provider has worked on the request (and charges for it): only a retry policy may repeat that."""
    upstream.play(CHAT, script(part, ending))
    assert chat(gateway.url).status == 200
    answer = chat(gateway.url)
    assert len(upstream.requests) == 2, "it was asked for again"
    assert answer.status == 502, answer.body


@pytest.mark.parametrize("size", [0, 1, 50])
@pytest.mark.parametrize("surplus", [json_response(200, {"choices": [{"message": {"content": "stray"}}]}), b"\r\nstray", b"HTTP/1.1 200"])
@pytest.mark.parametrize("stream", [False, True])
def test_what_follows_an_answer_is_nobodys(gateway: Gateway, upstream: Upstream, surplus: bytes, size: int, stream: bool) -> None:
    upstream.play(script(Send((CHAT_STREAM if stream else CHAT) + surplus, size)))
    first = chat(gateway.url, stream=stream)
    assert first.status == 200
    assert b"stray" not in first.body
    assert upstream.requests[0].connection.closed.wait(1), "a connection with bytes that nobody asked for is kept"
    check_ended_well(gateway, upstream)


@pytest.mark.parametrize("answer", [CHAT, CHAT_STREAM], ids=["whole", "streamed"])
def test_a_connection_that_is_to_be_closed_is_not_used_again(gateway: Gateway, upstream: Upstream, answer: bytes) -> None:
    upstream.play(answer.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
    assert chat(gateway.url, stream=answer is CHAT_STREAM).status == 200
    assert upstream.requests[0].connection.closed.wait(2)
    check_ended_well(gateway, upstream)


def test_an_idle_connection_that_was_closed_is_not_used(gateway: Gateway, upstream: Upstream) -> None:
    for _ in range(5):
        upstream.forget()
        upstream.play(script(CHAT, Fin()), CHAT)
        assert chat(gateway.url).status == 200
        assert upstream.wait_request().connection.closed.wait(2)
        assert chat(gateway.url).status == 200


# ---------------------------------------------------------------------------------------------------------- rows 5 to 7, 15 to 21, 24 to 28
HTML = b"<!DOCTYPE html><html><body><h1>It works!</h1></body></html>"
PLAIN = json.dumps(completion()).encode()

BROKEN_HEADS = [
    fault("5 reset before headers", Reset(), codes=["reset", "bad_upstream"]),
    fault("5 closed before headers", Fin(), codes=["reset", "bad_upstream"]),
    fault("6 reset in the status line", b"HTTP/1.1 20", Reset()),
    fault("6 reset in the headers", b"HTTP/1.1 200 OK\r\nContent-Type: applica", Reset()),
    fault("6 closed in the headers", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n", Fin()),
    fault("6 no HTTP at all", b"\x00\xff\x00 what is this\r\n\r\n", Fin()),
    fault("6 status of letters", b"HTTP/1.1 abc OK\r\n\r\n", Stall()),
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
    fault("16 status 529", error_response(529, type="overloaded_error"), status=503, codes=["overloaded"]),
    fault(
        "18 status 401", error_response(401, f"Incorrect API key provided: {UPSTREAM_KEY}", code="invalid_api_key"), codes=["provider_auth"]
    ),
    fault("18 status 403", error_response(403, "Country not supported"), codes=["provider_auth"]),
    fault("18 status 401 as HTML", response(401, HTML, "text/html", [("WWW-Authenticate", 'Basic realm="x"')]), codes=["provider_auth"]),
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
    fault("27 no choices", json_response(200, {**completion(), "choices": []}), codes=["invalid_response"]),
    fault(
        "28 unknown coding", response(200, PLAIN, headers=[("Content-Encoding", "x-squeeze")]), codes=["bad_upstream", "invalid_response"]
    ),
    fault("28 gzip that is none", response(200, PLAIN, headers=[("Content-Encoding", "gzip")]), codes=["bad_upstream", "invalid_response"]),
    fault(
        "28 truncated gzip",
        response(200, gzip.compress(PLAIN)[:-12], headers=[("Content-Encoding", "gzip")]),
        codes=["bad_upstream", "invalid_response"],
    ),
]


@pytest.mark.parametrize("fault", [*BROKEN_HEADS, *STATUSES], ids=named)
def test_failure_before_a_body(gateway: Gateway, upstream: Upstream, fault: Fault) -> None:
    check_fault(gateway, upstream, fault, streams=(False, True))


@pytest.mark.parametrize("fault", [*BROKEN_BODIES, *WRONG_CONTENT], ids=named)
def test_failure_of_a_whole_body(gateway: Gateway, upstream: Upstream, fault: Fault) -> None:
    check_fault(gateway, upstream, fault)


def check_fault(
    gateway: Gateway, upstream: Upstream, fault: Fault, *, streams: Sequence[bool] = (False,), sizes: Sequence[int] = (0, 1)
) -> None:
    """The fault delivered in slices of each of `sizes` (0: whole), to clients that stream and that do not; then the records of all."""
    failed = [provoke(gateway, upstream, fault, size, stream) for size in sizes for stream in streams]
    for answer, error in failed:
        record = check_failed(gateway, answer, error, status=fault.status, codes=fault.codes, outcome=fault.outcome)
        assert record["usage"] in fault.usage, record


def provoke(gateway: Gateway, upstream: Upstream, fault: Fault, size: int, stream: bool) -> tuple[Answer, dict[str, Any]]:
    upstream.forget()
    upstream.hang_up()
    upstream.play(sliced(fault.answer, size))
    before = gateway.metric(FAILURES, provider="up")
    answer = chat(gateway.url, stream=stream)
    assert answer.status == fault.status, (size, stream, answer.body)
    error = error_of(answer)
    assert b"<html" not in answer.body and UPSTREAM_KEY.encode() not in answer.body
    assert answer.header("www-authenticate") is None
    gateway.wait_metric(before + 1, FAILURES, provider="up")
    assert len(upstream.requests) == 1, "there is no retry yet"
    if not isinstance(fault.answer.steps[-1], Send):
        assert upstream.requests[0].connection.closed.wait(1), "the gateway kept a connection that failed"
        check_ended_well(gateway, upstream)
    return answer, error


@pytest.mark.parametrize("row", ["19 truncated JSON", "19 no JSON"])
def test_a_useless_answer_is_estimated(gateway: Gateway, upstream: Upstream, row: str) -> None:
    upstream.play(next(each.answer for each in WRONG_CONTENT if each.row == row))
    record = gateway.record_of(chat(gateway.url))
    assert record["usage"] == "estimated", record
    assert record["prompt_tokens"] > 0, record


def test_the_hint_of_a_429_is_passed_on(gateway: Gateway, upstream: Upstream, cut: Cut) -> None:
    upstream.play(cut(script(error_response(429, "slow down", [("Retry-After", "7")], type="requests", code="rate_limit_exceeded"))))
    answer = chat(gateway.url)
    assert answer.status == 429
    assert answer.header("retry-after") == "7"
    assert error_of(answer) == {"message": "slow down", "type": "requests", "param": None, "code": "rate_limit_exceeded"}


# ---------------------------------------------------------------------------------------------------------- row 17: the request is at fault
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
    "streamed-nothing": (True, "test-model", (Stall(),)),
    "streamed-headers-only": (True, "test-model", (stream_head(), Stall())),
    "streamed-comments-only": (
        True,
        "test-model",
        (stream_head(), *(step for _ in range(12) for step in (Wait(0.25), Send(chunk(b": still here\n\n")))), Stall()),
    ),
    "half-a-body": (False, "test-model", (CHAT[:-40], Stall())),
    # A whole answer takes as long as its last token: nothing but the total time bounds the wait for it.
    "nothing": (False, "brief/any", (Stall(),)),
    "headers-only": (False, "brief/any", (JSON_HEAD, Stall())),
    "a-slow-drip-of-headers": (
        False,
        "brief/any",
        (*(step for letter in b"HTTP/1.1 200" for step in (Send(bytes([letter])), Wait(0.25))), Stall()),
    ),
}


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


def test_the_total_time_bounds_a_stream_that_never_pauses(gateway: Gateway, upstream: Upstream) -> None:
    drip = [step for _ in range(20) for step in (Wait(0.1), Send(chunk(event(delta(" more")))))]
    upstream.play(script(*COMMITTED, *drip, Stall()))
    started = time.monotonic()
    answer = chat(gateway.url, "brief/any", stream=True)
    assert 0.7 < time.monotonic() - started < 1.8
    check_failed(gateway, answer, stream_error_of(answer), status=504, codes=["upstream_timeout"])
    assert upstream.requests[0].connection.closed.wait(1)


# -------------------------------------------------------------------------------------------- rows 8, 10, 20, 23, 25: failure after content
LATE_ERROR = event({"error": {"message": "the model fell over", "type": "server_error", "code": 500}})
LATE_WORDS = event({"error": "the model fell over"})
COUNTED = chunk(event({**delta(" you"), "usage": usage(7, 3)}))
COMMENTS = tuple(step for _ in range(12) for step in (Wait(0.25), Send(chunk(b": ping\n\n"))))
LENGTH = head(200, [("Content-Type", "text/event-stream"), ("Content-Length", "5000")])

BROKEN_STREAMS = [
    fault("8 reset", *COMMITTED, Reset(), codes=["stream_interrupted"], usage=("estimated",)),
    fault("8 closed", *COMMITTED, Fin(), codes=["stream_interrupted"], usage=("estimated",)),
    fault(
        "8 reset inside an event",
        *COMMITTED,
        chunk(event(delta(" you")))[:-20],
        Reset(),
        codes=["stream_interrupted"],
        usage=("estimated",),
    ),
    fault(
        "8 closed inside an event", *COMMITTED, chunk(event(delta(" you"))[:40]), Fin(), codes=["stream_interrupted"], usage=("estimated",)
    ),
    fault("8 chunk size of letters", *COMMITTED, b"xyz\r\nabc\r\n", Stall(), codes=["stream_interrupted"], usage=("estimated",)),
    fault("8 short of its length", LENGTH + event(delta("Hello")), Wait(0.05), Fin(), codes=["stream_interrupted"], usage=("estimated",)),
    fault("8 after usage", *COMMITTED, COUNTED, Reset(), codes=["stream_interrupted"], usage=("reported",)),
    fault("10 silence", *COMMITTED, Stall(), status=504, codes=["upstream_timeout"], usage=("estimated",)),
    fault("10 comments only", *COMMITTED, *COMMENTS, Stall(), status=504, codes=["upstream_timeout"], usage=("estimated",)),
    fault("23 no finish reason", *COMMITTED, LAST_CHUNK, codes=["stream_truncated"], usage=("estimated",)),
    fault(
        "23 half an event last", *COMMITTED, chunk(event(delta(" you"))[:30]) + LAST_CHUNK, codes=["stream_truncated"], usage=("estimated",)
    ),
    fault(
        "25 an error later",
        *COMMITTED,
        chunk(LATE_ERROR) + chunk(event(delta(" after all"))) + LAST_CHUNK,
        status=500,
        codes=["server_error", "500"],
        usage=("estimated",),
    ),
    fault(
        "25 an error later, then silence",
        *COMMITTED,
        chunk(LATE_ERROR),
        Stall(),
        status=500,
        codes=["server_error", "500"],
        usage=("estimated",),
    ),
    fault(
        "25 an error of words",
        *COMMITTED,
        chunk(LATE_WORDS) + chunk(DONE) + LAST_CHUNK,
        status=502,
        codes=["server_error", None],
        usage=("estimated",),
    ),
    fault(
        "25 an error after usage",
        *COMMITTED,
        COUNTED + chunk(LATE_ERROR) + chunk(DONE) + LAST_CHUNK,
        status=500,
        codes=["server_error", "500"],
        usage=("reported",),
    ),
]


@pytest.mark.parametrize("broken", BROKEN_STREAMS, ids=named)
def test_failure_after_content(gateway: Gateway, upstream: Upstream, cut: Cut, broken: Fault) -> None:
    upstream.play(cut(broken.answer))
    before = gateway.metric(FAILURES, provider="up")
    started = time.monotonic()
    with RawClient(gateway.url) as client:
        answer = client.ask("POST", "/v1/chat/completions", chat_body(stream=True))
        took = time.monotonic() - started
        error = stream_error_of(answer)
        assert client.is_closed(), "the connection stayed open after a stream that failed"
    text = "".join(choice["delta"].get("content") or "" for value in answer.values[:-1] for choice in value["choices"])
    assert text.startswith("Hello"), answer.body
    assert "after all" not in text
    record = check_failed(gateway, answer, error, status=broken.status, codes=broken.codes)
    assert record["usage"] in broken.usage, record
    if broken.row.startswith("25"):
        assert error["message"] == "the model fell over"
    if broken.status == 504:
        assert 0.9 < took < 2.5, f"it took {took} s: what is no content reset the timer"
    gateway.wait_metric(before + 1, FAILURES, provider="up")
    if not isinstance(broken.answer.steps[-1], Send):
        assert upstream.requests[0].connection.closed.wait(1), "the gateway kept a connection that failed"
        check_ended_well(gateway, upstream)


# ------------------------------------------------------------------------------------------------------------------------ row 20: too large
TOO_LARGE = [
    fault("20 a body", response(200, PLAIN + b" " * 9000), codes=["response_too_large"]),
    fault(
        "20 a long length",
        head(200, [("Content-Type", "application/json"), ("Content-Length", "9999999")]) + PLAIN + b" " * 9000,
        Stall(),
        codes=["response_too_large"],
    ),
    fault(
        "20 a body in chunks",
        stream_head(content_type="application/json") + chunk(PLAIN) + chunk(b" " * 9000),
        Stall(),
        codes=["response_too_large"],
    ),
    fault("20 one header", b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 5000, Stall(), codes=["response_too_large"]),
    fault(
        "20 many headers",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-Many-%d: abcdefghij\r\n" % number for number in range(400)),
        Stall(),
        codes=["response_too_large"],
    ),
    fault(
        "28 a bomb",
        response(200, gzip.compress(b" " * 5_000_000 + PLAIN), headers=[("Content-Encoding", "gzip")]),
        codes=["response_too_large"],
    ),
]


@pytest.mark.parametrize("fault", TOO_LARGE, ids=named)
def test_too_large(tight: Gateway, upstream: Upstream, fault: Fault) -> None:
    check_fault(tight, upstream, fault)


def test_a_first_event_that_is_too_large(tight: Gateway, upstream: Upstream) -> None:
    """Not a byte at a time: with so many bytes the first ping would be out before the last of them."""
    long = fault("20 a first event", stream_head() + chunk(event(delta("a" * 6000))[:-2]), Stall(), codes=["response_too_large"])
    check_fault(tight, upstream, long, streams=(True,), sizes=(0, 32))


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


@pytest.mark.parametrize("inside", ERRORS, ids=[each.error["message"].replace(" ", "-") for each in ERRORS])
def test_an_error_inside_a_200(gateway: Gateway, upstream: Upstream, cut: Cut, inside: Inside) -> None:
    """As an event of a stream, as a body, and as a body where a stream was asked for."""
    value = {"error": inside.error}
    as_event, as_body = cut(script(sse([event(value)]))), cut(script(json_response(200, value)))
    upstream.play(as_event, as_body, as_body)
    before = gateway.metric(FAILURES, provider="up")
    answers = [chat(gateway.url, stream=stream) for stream in (True, False, True)]
    assert [answer.status for answer in answers] == [inside.status] * 3, [answer.body for answer in answers]
    for answer in answers:
        record = check_failed(gateway, answer, error_of(answer), status=inside.status, codes=inside.codes, outcome=inside.outcome)
        assert record["usage"] == "none", record
    gateway.wait_metric(before + 3, FAILURES, provider="up")


# ---------------------------------------------------------------------------------------------------------------- row 22: [DONE] is missing
@pytest.mark.parametrize("used", [(7, 3), None], ids=["usage-reported", "usage-unknown"])
@pytest.mark.parametrize("framing", ["chunked", "until-close"])
def test_a_missing_done_is_appended(gateway: Gateway, upstream: Upstream, cut: Cut, framing: str, used: tuple[int, int] | None) -> None:
    events = chat_chunks(used=used)
    if framing == "chunked":
        upstream.play(cut(script(sse(events, done=False))))
    else:
        upstream.play(cut(script(head(200, [("Content-Type", "text/event-stream"), ("Connection", "close")]) + b"".join(events), Fin())))
    before = gateway.metric(FAILURES, provider="up")
    answer = chat(gateway.url, stream=True)
    assert answer.status == 200 and answer.ended
    assert answer.body == b"".join(chat_chunks(used=None)) + DONE
    record = gateway.record_of(answer)
    assert (record["status"], record["outcome"]) == (200, "ok"), record
    if used:
        assert (record["usage"], record["prompt_tokens"], record["completion_tokens"]) == ("reported", *used), record
    else:
        assert record["usage"] == "estimated" and record["prompt_tokens"] > 0 and record["completion_tokens"] > 0, record
    gateway.wait_metric(before + 1, FAILURES, provider="up")


# -------------------------------------------------------------------------------------------------------------------- row 27: empty choices
def test_a_stream_without_a_choice_is_no_answer(gateway: Gateway, upstream: Upstream) -> None:
    empty = fault("27 only usage", sse([event(usage_chunk(7, 0))]), codes=["invalid_response"])
    check_fault(gateway, upstream, empty, streams=(True,))


def test_empty_choices_beside_content_are_legal(gateway: Gateway, upstream: Upstream, cut: Cut) -> None:
    filters = event({**delta(), "choices": [], "prompt_filter_results": [{"prompt_index": 0}]})
    upstream.play(cut(script(sse([filters, *chat_chunks()]))))
    answer = chat(gateway.url, stream=True)
    assert answer.body == filters + b"".join(chat_chunks(used=None)) + DONE
    assert gateway.record_of(answer)["outcome"] == "ok"


# ---------------------------------------------------------------------------------------------------------------------- row 28: compression
def deflated(data: bytes) -> bytes:
    return zlib.compress(data)


@pytest.mark.parametrize(("coding", "squeeze"), [("gzip", gzip.compress), ("deflate", deflated)])
@pytest.mark.parametrize("stream", [False, True])
def test_what_comes_compressed_is_decoded(
    gateway: Gateway, upstream: Upstream, cut: Cut, coding: str, squeeze: Callable[[bytes], bytes], stream: bool
) -> None:
    plain = b"".join(chat_chunks(used=None)) + DONE if stream else PLAIN
    kind = "text/event-stream" if stream else "application/json"
    upstream.play(cut(script(response(200, squeeze(plain), kind, [("Content-Encoding", coding)]))))
    answer = chat(gateway.url, stream=stream, headers={"Accept-Encoding": "gzip, br"})
    assert answer.status == 200, answer.body
    assert answer.body == plain
    assert answer.header("content-encoding") is None
    assert upstream.requests[0].header("accept-encoding") == "identity"
    assert gateway.record_of(answer)["outcome"] == "ok"


@pytest.mark.parametrize("coding", ["br", "zstd"])
def test_bytes_that_are_not_of_their_coding_are_an_error(gateway: Gateway, upstream: Upstream, coding: str) -> None:
    """Whether or not there is a library for the coding: the answer is the same."""
    unreadable = response(200, b"\x0b\x02\x80{}\x03", headers=[("Content-Encoding", coding)])
    check_fault(gateway, upstream, fault(f"28 {coding}", unreadable, codes=["bad_upstream", "invalid_response"]))


# ------------------------------------------------------------------------------------------------------------- rows 29 to 31: event streams
def test_an_event_stream_is_the_same_at_any_split(gateway: Gateway, upstream: Upstream) -> None:
    """Splits fall inside UTF-8 sequences, events, line ends and the chunk framing itself."""
    events = [event(delta("Grüße — 🎉")), event(delta(finish="stop"))]
    expected = b"".join(events) + DONE
    wire = sse(events, done=True)
    start = wire.index(b"\r\n\r\n") + 4
    with RawClient(gateway.url) as client:
        for place in range(start, len(wire)):
            upstream.play(script(wire[:place], Wait(0.002), wire[place:]))
            answer = client.ask("POST", "/v1/chat/completions", chat_body(stream=True))
            assert answer.body == expected, f"split at {place}"


@pytest.mark.parametrize("asked", [False, True], ids=["usage-not-asked-for", "usage-asked-for"])
@pytest.mark.parametrize("size", [1, 5, 64])
def test_what_is_taken_out_leaves_the_rest_as_it_was(gateway: Gateway, upstream: Upstream, asked: bool, size: int) -> None:
    """`usage: null` stands in every chunk because the gateway asked for usage. What stands around it is not the gateway's to change."""
    odd = b'"logprobs":{"content":[{"token":"\\u00e9","logprob":-0.00001,"x":12345678901234567890123}]}'
    texts = [b"Gr\xc3\xbc\xc3\x9fe", b"\\u00e9\\/", b' \\"usage\\":null', b"!"]
    frames = [b'data: {"id": "x","choices":[{"index":0,"delta":{"content":"%b"},%b}],"usage":null}\n\n' % (text, odd) for text in texts]
    frames += [b'data: {"id": "x","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}\n\n']
    wire = sse([*frames, event(usage_chunk(7, 3))])
    upstream.play(script(wire), script(Send(wire, size)), script(Send(wire, size + 1)))
    body = chat_body(stream=True, stream_options={"include_usage": asked})
    with RawClient(gateway.url) as client:
        whole, parts, again = (client.ask("POST", "/v1/chat/completions", body) for _ in range(3))
    assert parts.body == whole.body == again.body
    if asked:
        assert whole.body == b"".join([*frames, event(usage_chunk(7, 3)), DONE])
    else:
        assert whole.body == b"".join([*(frame.replace(b',"usage":null}\n', b"}\n") for frame in frames), DONE])


def test_an_estimate_is_the_same_at_any_split(gateway: Gateway, upstream: Upstream) -> None:
    answer = script(sse(chat_chunks("one two three four", used=None)))
    upstream.play(answer, sliced(answer), sliced(answer, 40))
    records = [gateway.record_of(chat(gateway.url, stream=True)) for _ in range(3)]
    assert [record["usage"] for record in records] == ["estimated"] * 3
    assert len({(record["prompt_tokens"], record["completion_tokens"]) for record in records}) == 1, records


@pytest.mark.parametrize(
    "garbage", [b"data: no json\n\n", b"data: [1]\n\n", b'data: {"choices":[\n\n'], ids=["words", "a-list", "cut-json"]
)
def test_garbage_after_content_ends_the_same_at_any_split(gateway: Gateway, upstream: Upstream, garbage: bytes) -> None:
    rest = chunk(event(delta(finish="stop"))) + chunk(DONE) + LAST_CHUNK
    upstream.play(*(script(*COMMITTED, Send(chunk(garbage), size), Wait(0.05), rest) for size in (0, 1, 9)))
    answers = [chat(gateway.url, stream=True) for _ in range(3)]
    assert len({answer.body for answer in answers}) == 1, [answer.body[-200:] for answer in answers]
    assert len({gateway.record_of(answer)["outcome"] for answer in answers}) == 1


def lines(*names: str) -> str:
    return "\n".join(names) + "\n"


FIRST, SECOND = json.dumps(delta("Grüße", finish=None), ensure_ascii=False), json.dumps(delta(" 🎉", finish="stop"), ensure_ascii=False)
BROKEN_AT_COMMA = FIRST.replace(', "', ',\ndata: "', 1)
FORMS = {
    "plain": lines(f"data: {FIRST}", "", f"data: {SECOND}", "", "data: [DONE]", ""),
    "no-blank-after-colon": lines(f"data:{FIRST}", "", f"data:{SECOND}", "", "data:[DONE]", ""),
    "comments": lines(": hello", "", f"data: {FIRST}", ": in between", "", ":", "", f"data: {SECOND}", "", "data: [DONE]", "", ": bye", ""),
    "fields": lines(
        "id: 1", "event: message", f"data: {FIRST}", "", "retry: 300", "odd", f"data: {SECOND}", "", "id: 9", "data: [DONE]", ""
    ),
    "more-blank-lines": lines("", "", f"data: {FIRST}", "", "", "", f"data: {SECOND}", "", "", "data: [DONE]", ""),
    "many-lines-of-data": lines(f"data: {BROKEN_AT_COMMA}", "", f"data: {SECOND}", "", "data: [DONE]", ""),
    "byte-order-mark": "\ufeff" + lines(f"data: {FIRST}", "", f"data: {SECOND}", "", "data: [DONE]", ""),
}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_every_form_of_event_stream_is_read(gateway: Gateway, upstream: Upstream, form: str, end: str) -> None:
    body = form.replace("\n", end).encode()
    answers = []
    for size in (0, 1, 7):
        upstream.play(script(stream_head() + (chunk(body) if not size else b""), *([Send(chunk(body), size)] if size else []), LAST_CHUNK))
        answers.append(chat(gateway.url, stream=True))
    whole = answers[0]
    assert whole.status == 200, whole.body
    assert [json.loads(data) for data in whole.events[:-1]] == [json.loads(FIRST), json.loads(SECOND)]
    assert whole.events[-1] == "[DONE]" and whole.events.count("[DONE]") == 1
    assert [answer.body for answer in answers[1:]] == [whole.body, whole.body], "the same bytes at any split"
    assert all(gateway.record_of(answer)["outcome"] == "ok" for answer in answers)


@pytest.mark.parametrize(
    "events",
    [
        [delta("a", usage=usage(7, 1)), delta("b", usage=usage(7, 2)), delta(finish="stop", usage=usage(7, 3))],
        [delta("a", usage=usage(7, 1)), delta("b", usage=usage(7, 2)), delta(finish="stop"), usage_chunk(7, 3)],
        [usage_chunk(7, 0), delta("a"), delta(finish="stop"), usage_chunk(7, 3)],
        [delta("a"), delta(finish="stop"), usage_chunk(7, 2), usage_chunk(7, 3)],
        [delta("a", usage=None), delta(finish="stop", usage=usage(7, 3)), delta(usage=None)],
    ],
    ids=["in-every-chunk", "in-every-chunk-and-last", "first-and-last", "twice-at-the-end", "null-after-it"],
)
def test_the_last_usage_counts(gateway: Gateway, upstream: Upstream, cut: Cut, events: list[dict[str, Any]]) -> None:
    before = gateway.metric("llm_tokens_total", operation="chat")
    upstream.play(cut(script(sse(map(event, events)))))
    answer = chat(gateway.url, stream=True)
    assert answer.events[-1] == "[DONE]"
    record = gateway.record_of(answer)
    assert (record["usage"], record["prompt_tokens"], record["completion_tokens"]) == ("reported", 7, 3), record
    gateway.wait_metric(before + 10, "llm_tokens_total", operation="chat")
