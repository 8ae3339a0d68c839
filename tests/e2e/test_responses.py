"""The Responses API over real sockets: where an answer begins, how it fails, and where it ends."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from tests.e2e.faults import FAILURES
from tests.support.gateway import UPSTREAM_KEY, Gateway, error_of
from tests.support.raw_client import Answer, RawClient, ask
from tests.support.script import LAST_CHUNK, Fin, Gate, Reset, Script, Stall, Step, Wait, chunk, json_response, script, sse, stream_head
from tests.support.upstream import Upstream

PATH = "/v1/responses"
SAID = f"it fell over with {UPSTREAM_KEY}"
REDACTED = "it fell over with ***"


def named(name: str, number: int, **fields: Any) -> bytes:
    return f"event: {name}\ndata: ".encode() + json.dumps({"type": name, "sequence_number": number, **fields}).encode() + b"\n\n"


CREATED = named("response.created", 0, response={"id": "r", "status": "in_progress"})
WORD = named("response.output_text.delta", 1, delta="hi")
COMPLETED = named("response.completed", 2, response={"id": "r", "usage": {"input_tokens": 3, "output_tokens": 4}})
FAILED = named("response.failed", 2, response={"id": "r", "status": "failed", "error": {"code": "server_error", "message": SAID}})
ERROR = named("error", 2, code="server_error", message=SAID, param=None)
WHOLE = [CREATED, WORD, COMPLETED]


def body(**more: Any) -> bytes:
    return json.dumps({"model": "test-model", "input": "x", **more}).encode()


def streamed(*events: bytes) -> Script:
    return script(sse(events, done=False))


def ask_for(gateway: Gateway, **more: Any) -> Answer:
    return ask(gateway.url, "POST", PATH, body(**more))


@pytest.mark.parametrize(
    "first",
    [
        streamed(CREATED, ERROR),
        streamed(CREATED, FAILED),
        streamed(CREATED),
        script(stream_head() + chunk(CREATED), Wait(0.05), Reset()),
        script(json_response(200, {"id": "r", "status": "failed", "error": {"code": "server_error", "message": SAID}, "output": []})),
    ],
    ids=["error", "failed", "cut", "reset", "whole"],
)
def test_what_fails_before_content_is_asked_for_again(gateway: Gateway, upstream: Upstream, first: Script) -> None:
    before = gateway.metric(FAILURES, provider="up")
    upstream.play(first, streamed(*WHOLE))
    answer = ask_for(gateway, stream=True)
    assert (answer.status, answer.body) == (200, b"".join(WHOLE))
    record = gateway.record_of(answer)
    assert (record["outcome"], record["attempts"], record["usage"]) == ("ok", 2, "reported")
    gateway.wait_metric(before + 1, FAILURES, provider="up")


@pytest.mark.parametrize("failed", [ERROR, FAILED], ids=["error", "failed"])
def test_what_fails_at_last_is_an_error_with_its_status(gateway: Gateway, upstream: Upstream, failed: bytes) -> None:
    upstream.play(streamed(CREATED, failed), streamed(CREATED, failed))
    answer = ask_for(gateway, stream=True)
    assert answer.status == 500
    assert (error_of(answer)["code"], error_of(answer)["message"]) == ("server_error", REDACTED)
    assert gateway.record_of(answer)["outcome"] == "upstream_error"


@pytest.mark.parametrize("failed", [ERROR, FAILED], ids=["error", "failed"])
def test_what_fails_behind_content_is_told_by_the_providers_event_without_its_key(
    gateway: Gateway, upstream: Upstream, failed: bytes
) -> None:
    before = gateway.metric(FAILURES, provider="up")
    upstream.play(streamed(CREATED, WORD, failed))
    answer = ask_for(gateway, stream=True)
    assert answer.status == 200
    assert answer.body == CREATED + WORD + failed.replace(UPSTREAM_KEY.encode(), b"***")
    record = gateway.record_of(answer)
    assert (record["status"], record["outcome"], record["error"], record["attempts"]) == (500, "upstream_error", "server_error", 1)
    gateway.wait_metric(before + 1, FAILURES, provider="up")


def test_a_failed_answer_is_a_failure_though_its_status_is_200(gateway: Gateway, upstream: Upstream) -> None:
    failed = json_response(200, {"id": "r", "status": "failed", "error": {"code": "server_error", "message": SAID}, "output": []})
    upstream.play(failed, failed)
    answer = ask_for(gateway)
    assert (answer.status, error_of(answer)["message"]) == (500, REDACTED)
    assert gateway.record_of(answer)["outcome"] == "upstream_error"


def test_what_the_client_asked_wrongly_is_not_asked_again(gateway: Gateway, upstream: Upstream) -> None:
    refused = {"code": "invalid_prompt", "message": "no"}
    upstream.play(streamed(CREATED, named("response.failed", 1, response={"id": "r", "status": "failed", "error": refused})))
    answer = ask_for(gateway, stream=True)
    assert (answer.status, error_of(answer)["code"]) == (400, "invalid_prompt")


@pytest.mark.parametrize(
    "end",
    [(Reset(),), (Fin(),), (Stall(),), (chunk(b"data: [DONE]\n") + LAST_CHUNK,), (chunk(ERROR) + LAST_CHUNK,)],
    ids=["reset", "closed", "silence", "half of [DONE]", "an error"],
)
def test_nothing_that_follows_a_whole_answer_breaks_it(gateway: Gateway, upstream: Upstream, end: tuple[Step | bytes, ...]) -> None:
    upstream.play(script(stream_head() + chunk(b"".join(WHOLE)), *end))
    started = time.monotonic()
    answer = ask_for(gateway, stream=True)
    assert time.monotonic() - started < 3, "the client waited for a provider that had said all"
    assert (answer.body, answer.ended) == (b"".join(WHOLE), True)
    record = gateway.record_of(answer)
    assert (record["status"], record["outcome"], record["usage"]) == (200, "ok", "reported")


def test_a_response_in_the_background_has_its_id_at_once(gateway: Gateway, upstream: Upstream) -> None:
    gate = threading.Event()
    upstream.play(script(stream_head() + chunk(CREATED), Gate(gate), chunk(WORD + COMPLETED) + LAST_CHUNK))
    with RawClient(gateway.url) as client:
        client.send(client.request_bytes("POST", PATH, body=body(stream=True, background=True)))
        answer = client.read_head()
        client.read_until(answer, CREATED)
        gate.set()
        client.read_until(answer, COMPLETED)
