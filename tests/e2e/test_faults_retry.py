"""The retries of the fault matrix: what is tried again at the same target and served, what is not, and how much a failing provider sees."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest

from tests.e2e.conftest import PATIENT
from tests.e2e.faults import COMMITTED, FAILURES, HTML, PLAIN, Cut
from tests.support.gateway import Gateway, error_of, provider, stream_error_of
from tests.support.raw_client import RawClient, ask, chat, chat_body
from tests.support.script import (
    CHAT,
    CHAT_STREAM,
    Fin,
    Reset,
    Stall,
    Step,
    completion,
    error_response,
    event,
    json_response,
    response,
    script,
    sse,
)
from tests.support.upstream import Upstream

RETRIES = "llm_retries_total"
SECOND_KEY = "sk-upstream-second-0123456789abcdef"


@pytest.fixture(scope="module")
def patient(raw_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Two retries and short waits; its breaker is off, so that no test tells of the next."""
    config: dict[str, Any] = {
        "providers": {"up": provider(raw_upstream.url, timeouts=PATIENT), "hasty": provider(raw_upstream.url)},
        "models": {"test-model": "up"},
        "policies": {"retry": {"base": "5ms", "cap": "3s", "budget": 1}, "circuit_breaker": False},
    }
    with Gateway(config, tmp_path_factory.mktemp("patient")) as running:
        yield running


@pytest.fixture(scope="module")
def strict(raw_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One retry, a breaker, and one attempt at a time at each of its two providers."""
    config = {
        "providers": {"up": provider(raw_upstream.url), "other": provider(raw_upstream.url)},
        "policies": {"retry": {"max_retries": 1, "base": "1ms"}, "adaptive_limit": {"start": 1, "least": 1}},
    }
    with Gateway(config, tmp_path_factory.mktemp("strict")) as running:
        yield running


# ------------------------------------------------------------------------------------------------------------------- tried again, served
HELPED: dict[str, tuple[int, tuple[Step | bytes, ...]]] = {
    "reset": (5, (Reset(),)),
    "closed": (5, (Fin(),)),
    "half-a-head": (6, (b"HTTP/1.1 200 OK\r\nContent-Type: applica", Reset())),
    "no-HTTP": (6, (b"\x00\xff\x00 what is this\r\n\r\n", Fin())),
    "half-a-body": (7, (CHAT[:-40], Reset())),
    "429": (11, (error_response(429),)),
    "429-and-a-past-date": (12, (error_response(429, headers=[("Retry-After", "Thu, 01 Jan 1970 00:00:00 GMT")]),)),
    "429-and-garbage": (13, (error_response(429, headers=[("Retry-After", "NaN")]),)),
    "500": (15, (error_response(500),)),
    "502": (15, (error_response(502),)),
    "503": (15, (error_response(503),)),
    "cut-JSON": (19, (response(200, PLAIN[:-25]),)),
    "HTML": (21, (response(200, HTML, "text/html"),)),
    "error-event-first": (24, (sse([event({"error": {"message": "it broke", "type": "server_error"}})]),)),
    "error-inside-a-200": (26, (json_response(200, {"error": {"message": "it broke", "type": "server_error"}}),)),
    "no-choices": (27, (json_response(200, {**completion(), "choices": []}),)),
}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("steps", [pytest.param(steps, id=name, marks=pytest.mark.row(row)) for name, (row, steps) in HELPED.items()])
def test_a_failure_before_content_is_tried_again(
    patient: Gateway, upstream: Upstream, cut: Cut, steps: tuple[Step | bytes, ...], stream: bool
) -> None:
    """The client sees only the answer: nothing of the failure is in it, or in its usage."""
    upstream.hang_up()
    upstream.play(cut(script(*steps)), cut(script(CHAT_STREAM if stream else CHAT)))
    before = patient.metric(RETRIES, provider="up"), patient.metric(FAILURES, provider="up")
    answer = chat(patient.url, stream=stream)
    assert answer.status == 200, answer.body
    assert answer.events[-1] == "[DONE]" if stream else answer.json() == completion()
    assert (answer.header("x-comporta-attempts"), answer.header("x-should-retry")) == ("2", None)
    record = patient.record_of(answer)
    assert (record["attempts"], record["outcome"], record["usage"], record["completion_tokens"]) == (2, "ok", "reported", 3), record
    first, second = upstream.requests
    assert first.body == second.body
    patient.wait_metric(before[0] + 1, RETRIES, provider="up")
    patient.wait_metric(before[1] + 1, FAILURES, provider="up")


@pytest.mark.row(15)
def test_there_are_as_many_retries_as_configured_and_then_no_more(patient: Gateway, upstream: Upstream, cut: Cut) -> None:
    upstream.play(*[cut(script(error_response(503, f"no {number}"))) for number in range(3)])
    answer = chat(patient.url)
    assert (answer.status, error_of(answer)["message"], answer.header("x-should-retry")) == (503, "no 2", "false")
    assert len(upstream.requests) == 3


@pytest.mark.row(19)
def test_work_that_was_done_is_asked_for_once_more_only(patient: Gateway, upstream: Upstream, cut: Cut) -> None:
    upstream.play(*[cut(script(response(200, b"hello?")))] * 2)
    answer = chat(patient.url)
    assert (answer.status, error_of(answer)["code"], len(upstream.requests)) == (502, "invalid_response", 2)


@pytest.mark.parametrize(
    "refused",
    [
        pytest.param(response(302, b"", headers=[("Location", "http://127.0.0.1:9/")]), id="redirect", marks=pytest.mark.row(21)),
        pytest.param(response(200, PLAIN, headers=[("Content-Encoding", "br")]), id="coding", marks=pytest.mark.row(28)),
    ],
)
def test_an_answer_that_would_come_again_as_it_is_costs_no_second_request(patient: Gateway, upstream: Upstream, cut: Cut, refused: bytes):
    upstream.play(cut(script(refused)))
    answer = chat(patient.url)
    assert (answer.status, error_of(answer)["code"], len(upstream.requests)) == (502, "bad_upstream", 1)


# -------------------------------------------------------------------------------------------------------------------- a provider's hint
@pytest.mark.row(11)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(("name", "value", "seconds"), [("Retry-After-Ms", "700", 0.7), ("Retry-After", "1", 1.0)])
def test_a_hint_that_fits_is_waited_for(tight: Gateway, upstream: Upstream, name: str, value: str, seconds: float, stream: bool) -> None:
    """Meanwhile a stream is pinged, and the wait is the provider's, not the gateway's."""
    upstream.play(error_response(429, headers=[(name, value)]), CHAT_STREAM if stream else CHAT)
    started = time.monotonic()
    answer = chat(tight.url, stream=stream)
    assert seconds <= time.monotonic() - started < seconds + 0.6
    assert answer.status == 200
    assert (b": ping" in answer.body) is stream
    assert tight.record_of(answer)["overhead_ms"] < 200


@pytest.mark.row(11)
@pytest.mark.parametrize(
    ("hint", "told", "how"), [("60", "60", {}), ("2", "2", {"headers": [("x-stainless-read-timeout", "1")]})], ids=["cap", "deadline"]
)
def test_a_hint_that_does_not_fit_is_left_to_the_client(
    patient: Gateway, upstream: Upstream, cut: Cut, hint: str, told: str, how: dict[str, Any]
) -> None:
    upstream.play(cut(script(error_response(429, headers=[("Retry-After", hint)]))))
    answer = chat(patient.url, **how)
    assert (answer.status, answer.header("retry-after"), answer.header("x-should-retry")) == (429, told, None)
    assert len(upstream.requests) == 1


@pytest.mark.row(12)
def test_a_hint_that_is_a_date_is_waited_for(patient: Gateway, upstream: Upstream, cut: Cut) -> None:
    upstream.play(cut(script(error_response(429, headers=[("Retry-After", formatdate(time.time() + 2, usegmt=True))]))), cut(script(CHAT)))
    started = time.monotonic()
    assert chat(patient.url).status == 200
    assert 0.5 < time.monotonic() - started < 3


@pytest.mark.row(32)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_a_client_that_leaves_ends_the_wait(patient: Gateway, upstream: Upstream, stream: bool) -> None:
    upstream.play(error_response(429, headers=[("Retry-After", "2")]))
    mark, before = patient.mark(), patient.metric(RETRIES, provider="up")
    with RawClient(patient.url) as client:
        client.send(client.request_bytes("POST", "/v1/chat/completions", chat_body(stream=stream)))
        patient.wait_metric(before + 1, RETRIES, provider="up")
    record = patient.record_since(mark, timeout=1.0)
    assert (record["status"], record["attempts"]) == (499, 1)
    patient.wait_metric(0, "llm_active_requests")
    assert len(upstream.requests) == 1


# ----------------------------------------------------------------------------------------------------------- what is never tried again
@pytest.mark.row(15)
def test_a_provider_may_forbid_it(patient: Gateway, upstream: Upstream, cut: Cut) -> None:
    upstream.play(cut(script(error_response(500, headers=[("X-Should-Retry", "false")]))))
    answer = chat(patient.url)
    assert (answer.status, answer.header("x-should-retry"), len(upstream.requests)) == (500, "false", 1)


@pytest.mark.row(8)
@pytest.mark.parametrize("ending", [Reset(), Fin(), Stall()], ids=["reset", "closed", "silence"])
def test_nothing_is_tried_again_after_content(patient: Gateway, upstream: Upstream, cut: Cut, ending: Step) -> None:
    upstream.play(cut(script(*COMMITTED, ending)))
    stream_error_of(chat(patient.url, "hasty/any" if ending == Stall() else "test-model", stream=True))
    assert len(upstream.requests) == 1


@pytest.mark.row(15)
@pytest.mark.parametrize(
    ("method", "path", "body", "attempts"),
    [
        ("POST", "/v1/batches", b'{"input_file_id": "f"}', 1),
        ("DELETE", "/v1/files/file-1", b"", 1),
        ("POST", "/v1/responses", b'{"model": "test-model", "input": "hi", "background": true}', 1),
        ("GET", "/v1/files", b"", 3),
        ("POST", "/v1/responses", b'{"model": "test-model", "input": "hi"}', 3),
        ("POST", "/v1/embeddings", b'{"model": "test-model", "input": "hi"}', 3),
    ],
)
def test_what_leaves_something_behind_is_asked_for_once(
    patient: Gateway, upstream: Upstream, method: str, path: str, body: bytes, attempts: int
) -> None:
    upstream.play(*[error_response(500)] * attempts)
    assert ask(patient.url, method, path, body).status == 500
    assert len(upstream.requests) == attempts


# ------------------------------------------------------------------------------------------------------------------------- credentials
REFUSALS: dict[str, tuple[int, bytes]] = {
    "401": (18, error_response(401, code="invalid_api_key")),
    "403": (18, error_response(403)),
    "quota": (14, error_response(429, code="insufficient_quota")),
    "limited": (11, error_response(429, headers=[("Retry-After", "60")])),
}


@pytest.fixture(scope="module")
def with_keys(raw_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A provider of two keys for each case, since one that was refused is left out for a minute."""
    names = [f"{name}-{how}" for name in REFUSALS for how in ("whole", "sliced")]
    keys = {"timeouts": PATIENT, "api_key": None, "api_keys": ["env:TEST_UPSTREAM_KEY", "env:SECOND_KEY"]}
    config = {"providers": {name: provider(raw_upstream.url, **keys) for name in names}}
    with Gateway(config, tmp_path_factory.mktemp("keys"), {"SECOND_KEY": SECOND_KEY}) as running:
        yield running


@pytest.mark.parametrize(
    ("name", "refusal"), [pytest.param(name, refusal, id=name, marks=pytest.mark.row(row)) for name, (row, refusal) in REFUSALS.items()]
)
def test_a_credential_that_is_refused_gives_way_to_another(
    with_keys: Gateway, upstream: Upstream, cut: Cut, request: pytest.FixtureRequest, name: str, refusal: bytes
) -> None:
    used = f"{name}-{request.node.callspec.params['cut']}"
    upstream.play(cut(script(refusal)), *[cut(script(CHAT))] * 4)
    answers = [chat(with_keys.url, f"{used}/any") for _ in range(4)]
    assert [(answer.status, answer.header("x-comporta-attempts")) for answer in answers] == [(200, "2"), *[(200, "1")] * 3]
    counted = with_keys.metric("llm_credential_out_total", provider=used)
    assert counted == (name != "limited"), "one that has had its share for now is as good as the other"
    refused, *served = [request.header("authorization") for request in upstream.requests]
    assert len(set(served)) == 1 and refused not in served


# ------------------------------------------------------------------------------------------------------------------ budget and breaker
@pytest.mark.row(57)
def test_a_provider_that_fails_sees_little_more_than_what_was_asked(upstream: Upstream, tmp_path: Any) -> None:
    offered, otherwise = 150, upstream.otherwise
    upstream.otherwise = script(error_response(500))
    config = {
        "providers": {"up": provider(upstream.url)},
        "models": {"test-model": "up"},
        "policies": {"retry": {"max_retries": 5, "base": "1ms"}, "circuit_breaker": False},
    }
    try:
        with Gateway(config, tmp_path) as gateway:
            started = time.monotonic()
            assert {chat(gateway.url).header("x-should-retry") for _ in range(offered)} == {"false"}
            seconds = time.monotonic() - started
            assert gateway.metric("llm_retry_budget_exhausted_total", provider="up") > 100
        assert len(upstream.requests) <= offered * 1.1 + 10 + seconds + 1, "a tenth, ten to begin with, one a second"
        assert len(upstream.requests) > offered
    finally:
        upstream.otherwise = otherwise


@pytest.mark.row(58)
def test_an_only_target_that_is_out_is_asked_as_if_it_were_not(strict: Gateway, upstream: Upstream) -> None:
    upstream.play(*[error_response(500)] * 6)
    assert [chat(strict.url, "up/test").status for _ in range(3)] == [500] * 3
    assert len(upstream.requests) == 6, "the fifth failure took it out, and there is nobody else"
    strict.wait_metric(1, "llm_target_state", provider="up", state="open")
    upstream.play(error_response(500), CHAT, CHAT)
    answers = [chat(strict.url, "up/test") for _ in range(2)]
    assert [(each.status, each.header("x-comporta-attempts")) for each in answers] == [(200, "2"), (200, "1")]
    strict.wait_metric(0, "llm_target_state", provider="up", state="open")


def test_the_limit_of_a_provider_sheds_what_is_over_it(strict: Gateway, upstream: Upstream) -> None:
    upstream.play(script(Stall()))
    with RawClient(strict.url) as client:
        client.send(client.request_bytes("POST", "/v1/chat/completions", chat_body("other/test")))
        upstream.wait_request()
        answer = chat(strict.url, "other/test")
        assert (answer.status, error_of(answer)["code"], answer.header("retry-after")) == (503, "overloaded", "1")
        assert answer.header("x-should-retry") is None
    strict.wait_metric(0, "llm_active_requests")
    upstream.play(CHAT)
    assert chat(strict.url, "other/test").status == 200
