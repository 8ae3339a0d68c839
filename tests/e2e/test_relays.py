"""Answers that are passed on as they come fail like all others for as long as nothing of them has gone out."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.support.gateway import Gateway, error_of
from tests.support.raw_client import ask
from tests.support.script import (
    DONE,
    Reset,
    Script,
    chat_chunks,
    chunk,
    completion,
    delta,
    event,
    head,
    json_response,
    response,
    script,
    sse,
    usage,
)
from tests.support.upstream import Upstream

FAILURES = "llm_upstream_failures_total"
CHUNKED = ("Transfer-Encoding", "chunked")
SPOKEN = head(200, [("Content-Type", "audio/mpeg"), CHUNKED])
JUDGED = head(200, [("Content-Type", "application/json"), CHUNKED])
VERDICT = b'{"id":"modr-1","model":"m","results":[]}'

SPEECH = ("/v1/audio/speech", b'{"model":"test-model","input":"a","voice":"b"}')
MODERATION = ("/v1/moderations", b'{"model":"test-model","input":"a"}')
IMAGE = ("/v1/images/generations", b'{"model":"test-model","prompt":"a"}')

GOOD = {SPEECH[0]: response(200, b"sound", "audio/mpeg"), MODERATION[0]: response(200, VERDICT)}
BROKEN: dict[str, tuple[tuple[str, bytes], Script, str]] = {
    "speech that is lost behind its head": (SPEECH, script(SPOKEN, Reset()), "reset"),
    "speech with a broken chunk": (SPEECH, script(SPOKEN, b"xyz\r\n"), "bad_upstream"),
    "half a verdict": (MODERATION, script(JUDGED, chunk(VERDICT[:20]), Reset()), "reset"),
    "a verdict that is no JSON": (MODERATION, script(response(200, VERDICT[:20])), "invalid_response"),
    "no verdict": (MODERATION, script(response(200, b"")), "invalid_response"),
    "half a list": (MODERATION, script(response(200, b'[{"a":1')), "invalid_response"),
    "an error for a verdict": (MODERATION, script(json_response(200, {"error": {"message": "m"}})), "server_error"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_fails_before_anything_has_gone_out_is_tried_again(gateway: Gateway, upstream: Upstream, what: str) -> None:
    (path, body), broken, kind = BROKEN[what]
    before = gateway.metric(FAILURES, kind=kind)
    upstream.play(broken, GOOD[path])
    answer = ask(gateway.url, "POST", path, body)
    assert (answer.status, answer.body, len(upstream.requests)) == (200, GOOD[path].partition(b"\r\n\r\n")[2], 2)
    gateway.wait_metric(before + 1, FAILURES, kind=kind)


@pytest.mark.parametrize(
    "error",
    [
        b'{"error":{"message":"m","type":"rate_limit_error"}}',
        b' {"error": {"message": "m", "code": 429}}',
        b'{\n  "error": {\n    "message": "m",\n    "code": 429\n  }\n}\n',
        b'\xef\xbb\xbf{"error":{"message":"m","code":429}}',
    ],
)
def test_an_error_for_an_image_is_an_error(gateway: Gateway, upstream: Upstream, error: bytes, cut: Callable[[Script], Script]) -> None:
    upstream.play(cut(script(response(200, error))))
    answer = ask(gateway.url, "POST", *IMAGE)
    assert (answer.status, error_of(answer)["message"]) == (429, "m")


@pytest.mark.parametrize("image", [b'{"error":null,"data":[]}', b'{"err', b"{", b"", b'{"errors":[],"data":[]}', b'{"error": false}'])
def test_what_only_begins_like_an_error_is_an_image(
    gateway: Gateway, upstream: Upstream, image: bytes, cut: Callable[[Script], Script]
) -> None:
    upstream.play(cut(script(response(200, image))))
    answer = ask(gateway.url, "POST", *IMAGE)
    assert (answer.status, answer.body) == (200, image)


def test_what_says_of_itself_that_it_failed_can_be_read(gateway: Gateway, upstream: Upstream) -> None:
    failed = b'{"error":{"code":"server_error","message":"m"},"id":"batch_1","status":"failed"}'
    upstream.play(response(200, failed))
    answer = ask(gateway.url, "GET", "/v1/batches/batch_1")
    assert (answer.status, answer.body) == (200, failed)


@pytest.mark.parametrize("ranks", [b'[{"index":0,"score":0.5}]', b'\xef\xbb\xbf{"results":[]}'], ids=["a list", "behind a byte order mark"])
def test_what_is_whole_is_passed_on_as_it_came(gateway: Gateway, upstream: Upstream, ranks: bytes) -> None:
    upstream.play(response(200, ranks))
    assert ask(gateway.url, "POST", "/rerank", b'{"model":"test-model","query":"a","texts":["b"]}').body == ranks


FILL_IN = b'{"model":"test-model","prompt":"def f(","suffix":"return a","stream":%b}'


@pytest.mark.parametrize("path", ["/fim/completions", "/v1/fim/completions"])
def test_code_that_is_filled_in_is_answered_as_a_chat(gateway: Gateway, upstream: Upstream, path: str) -> None:
    upstream.play(json_response(200, completion()))
    answer = ask(gateway.url, "POST", path, FILL_IN % b"false")
    assert (answer.status, json.loads(answer.body)) == (200, completion())
    sent = upstream.wait_request()
    assert (sent.target, sent.body) == ("/v1/fim/completions", FILL_IN % b"false")
    record = gateway.record_of(answer)
    assert (record["operation"], record["usage"], record["completion_tokens"]) == ("completion", "reported", 3)


def test_code_that_is_filled_in_may_be_a_stream(gateway: Gateway, upstream: Upstream) -> None:
    events = [*chat_chunks(finish=None, used=None), event(delta("", finish="stop", usage=usage(7, 3)))]
    upstream.play(sse(events))
    answer = ask(gateway.url, "POST", "/v1/fim/completions", FILL_IN % b"true")
    assert (answer.status, answer.body) == (200, b"".join(events) + DONE)
    assert upstream.wait_request().body == FILL_IN % b"true"
    record = gateway.record_of(answer)
    assert (record["usage"], record["prompt_tokens"], record["completion_tokens"]) == ("reported", 7, 3)


def test_what_fails_later_is_counted(gateway: Gateway, upstream: Upstream) -> None:
    before = gateway.metric(FAILURES, kind="stream_interrupted")
    upstream.play(script(SPOKEN, chunk(b"so"), Reset()))
    answer = ask(gateway.url, "POST", *SPEECH)
    assert (answer.status, answer.body, answer.ended) == (200, b"so", False)
    gateway.wait_metric(before + 1, FAILURES, kind="stream_interrupted")
