"""Slow providers, over sockets: a second target is asked beside a slow first one; a stream that is too slow is ended."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.gateway import Gateway, provider, stream_error_of
from tests.support.raw_client import Answer, RawClient, chat
from tests.support.script import (
    CHAT,
    CHAT_STREAM,
    Script,
    Send,
    Stall,
    Wait,
    chunk,
    completion,
    delta,
    error_response,
    event,
    role_chunk,
    script,
    stream_head,
)
from tests.support.upstream import Upstream

BEGUN = stream_head() + b"".join(chunk(event(value)) for value in (role_chunk(), delta("Hello")))


class Pair:
    """The scripted upstreams `a` and `b` serve one model, `a` first; whoever has answered fast twice is hedged 60 ms later."""

    def __init__(self, folder: Any) -> None:
        self.a, self.b = Upstream(), Upstream()
        floor = {"connect": "1s", "first_token": "5s", "idle": "5s", "total": "9s", "min_tokens_per_second": 20, "window": "300ms"}
        config = {
            "server": {"ping": "500ms"},
            "providers": {
                "a": provider(self.a.url, timeouts={"first_token": "5s"}),
                "b": provider(self.b.url),
                "paced": provider(self.a.url, timeouts=floor),
            },
            "models": {
                "pair": {"targets": [{"provider": "a", "model": "m-a"}, {"provider": "b", "model": "m-b", "weight": 0}]},
                "paced": "paced",
                "chain": {"provider": "a", "model": "m-a", "fallback": ["b/m-b"]},
            },
            "llm": {"task_types": {"HASTY": {"timeouts": {"first_token": "50ms"}}}},
            "policies": {
                "retry": {"max_retries": 0},
                "circuit_breaker": False,
                "hedge": {"least": "60ms", "samples": 2, "share": 0.5},
            },
        }
        self.gateway = Gateway(config, folder)
        for stream in (False, True):
            for _ in range(10):
                self.play(CHAT_STREAM if stream else CHAT, CHAT)
                assert self.ask(stream).status == 200

    def play(self, a: bytes | Script, b: bytes | Script) -> None:
        for upstream, steps in ((self.a, a), (self.b, b)):
            upstream.forget()
            upstream.otherwise = steps if isinstance(steps, Script) else script(steps)

    def ask(self, stream: bool) -> Answer:
        return chat(self.gateway.url, "pair", stream=stream)

    def stop(self) -> None:
        self.gateway.stop()
        self.a.stop()
        self.b.stop()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    running = Pair(tmp_path_factory.mktemp("pair"))
    yield running
    running.stop()


@pytest.mark.parametrize("stream", [False, True], ids=["whole-answer", "stream"])
def test_a_slow_first_target_is_overtaken_by_a_fast_second_one(pair: Pair, stream: bool):
    pair.play(script(Stall()), CHAT_STREAM if stream else CHAT)
    hedges = pair.gateway.metric("llm_hedges_total", provider="b", outcome="won")
    started = time.monotonic()
    answer = pair.ask(stream)
    assert time.monotonic() - started < 1.5
    assert (answer.status, answer.header("x-comporta-provider"), answer.header("x-comporta-attempts")) == (200, "b", "2")
    if stream:
        assert answer.events[-1] == "[DONE]"
    else:
        assert answer.json() == completion()
    lost, won = pair.a.wait_request(), pair.b.wait_request()
    assert (len(pair.a.requests), len(pair.b.requests)) == (1, 1)
    assert (lost.json()["model"], won.json()["model"]) == ("m-a", "m-b")
    assert lost.connection.closed.wait(1), "the slow one still works for nobody"
    record = pair.gateway.record_of(answer)
    assert (record["status"], record["provider"], record["attempts"], record["hedge"]) == (200, "b", 2, "won")
    assert (record["usage"], record["completion_tokens"], record["lost_prompt_tokens"] > 0) == ("reported", 3, True)
    assert record["overhead_ms"] < 50
    assert pair.gateway.metric("llm_hedges_total", provider="b", outcome="won") == hedges + 1


def test_a_second_target_that_is_slower_still_is_given_up(pair: Pair):
    pair.play(script(Wait(0.3), CHAT_STREAM), script(Stall()))
    answer = pair.ask(stream=True)
    assert (answer.status, answer.header("x-comporta-provider"), answer.header("x-comporta-attempts")) == (200, "a", "2")
    assert answer.events[-1] == "[DONE]"
    assert pair.b.requests[0].connection.closed.wait(1)
    record = pair.gateway.record_of(answer)
    assert (record["provider"], record["hedge"], record["usage"], record["completion_tokens"]) == ("a", "lost", "reported", 3)


def test_a_first_target_that_fails_late_leaves_the_answer_to_the_second(pair: Pair):
    pair.play(script(Wait(0.2), error_response(500)), script(Wait(0.4), CHAT))
    answer = pair.ask(stream=False)
    assert (answer.status, answer.header("x-comporta-provider"), answer.header("x-comporta-fallback")) == (200, "b", None)
    assert len(pair.b.requests) == 1


def test_a_client_that_leaves_ends_both(pair: Pair):
    pair.play(script(Stall()), script(Stall()))
    mark = pair.gateway.mark()
    client = RawClient(pair.gateway.url)
    client.send(client.request_bytes("POST", "/v1/chat/completions", json.dumps({"model": "pair", "messages": []}).encode()))
    asked = [pair.a.wait_request(), pair.b.wait_request()]
    client.close()
    assert all(each.connection.closed.wait(1) for each in asked)
    record = pair.gateway.record_since(mark)
    assert (record["status"], record["attempts"], record["hedge"]) == (499, 2, "cancelled")


def test_a_stream_that_is_too_slow_ends_like_a_silent_one(pair: Pair):
    drip = [step for _ in range(40) for step in (Wait(0.1), Send(chunk(event(delta(" more")))))]
    pair.play(script(BEGUN, *drip, Stall()), CHAT)
    started = time.monotonic()
    answer = chat(pair.gateway.url, "paced", stream=True)
    assert 0.25 < time.monotonic() - started < 1.5
    assert stream_error_of(answer)["code"] == "upstream_timeout"
    assert pair.a.requests[0].connection.closed.wait(1)
    record = pair.gateway.record_of(answer)
    assert (record["status"], record["usage"]) == (504, "estimated")


@pytest.mark.parametrize(
    ("headers", "member"),
    [({"x-comporta-task-type": "HASTY"}, {}), ({}, {"comporta": {"timeouts": {"first_token": "50ms"}}})],
    ids=["task type", "request"],
)
def test_a_level_says_how_long_the_first_content_may_take(pair: Pair, headers: dict[str, str], member: dict[str, Any]):
    """The provider's own five seconds give way, and the failure is one that another target may mend."""
    pair.play(script(Stall()), CHAT_STREAM)
    started = time.monotonic()
    body = json.dumps({"model": "chain", "messages": [], "stream": True, **member}).encode()
    with RawClient(pair.gateway.url) as client:
        answer = client.ask("POST", "/v1/chat/completions", body, headers={"Content-Type": "application/json", **headers})
    assert time.monotonic() - started < 1.5
    assert (answer.status, answer.header("x-comporta-provider")) == (200, "b")
    assert answer.header("x-comporta-fallback") == "upstream_timeout"
    assert b"comporta" not in pair.a.requests[0].body


def test_a_stream_that_keeps_its_pace_is_whole(pair: Pair):
    pair.play(CHAT_STREAM, CHAT)
    assert chat(pair.gateway.url, "paced", stream=True).events[-1] == "[DONE]"
