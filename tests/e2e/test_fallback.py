"""When another target is asked, and when not, over sockets: what may not be made twice, a first choice that is out, whom nobody may ask."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.gateway import SHORT, Gateway, provider
from tests.support.raw_client import Answer, RawClient, chat
from tests.support.script import CHAT, Reset, Script, Stall, Wait, error_response, json_response, script
from tests.support.upstream import Upstream

HASTY = {**SHORT, "first_token": "200ms", "total": "200ms"}


class Pair:
    """The providers `a` and `b`, and what serves by them."""

    def __init__(self) -> None:
        self.a, self.b = Upstream(), Upstream()

    def stop(self) -> None:
        self.a.stop()
        self.b.stop()

    @property
    def asked(self) -> tuple[int, int]:
        return len(self.a.requests), len(self.b.requests)

    def config(self, models: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {
            "providers": {"a": provider(self.a.url, timeouts=HASTY), "b": provider(self.b.url)},
            "models": models,
            **more,
        }


@pytest.fixture
def pair() -> Iterator[Pair]:
    running = Pair()
    yield running
    running.stop()


CHAIN = {"m": {"provider": "a", "model": "m-a", "fallback": ["n"]}, "n": {"provider": "b", "model": "m-b"}}
#: A fresh connection for each: one that was kept and is lost at once had most likely been closed before.
CLOSING = [("connection", "close")]
NO_RETRIES: dict[str, Any] = {"retry": {"max_retries": 0}}


def test_a_model_that_a_path_names_is_its_own_providers_and_no_others(pair: Pair, tmp_path: Any):
    """A deletion that fails must not delete what would stand in."""
    models = {**CHAIN, "up": {"provider": "b", "fallback": ["n"]}}
    with Gateway(pair.config(models, policies=NO_RETRIES), tmp_path) as gateway, RawClient(gateway.url) as client:
        for path, target in [
            ("/v1/models/b%2Fft:1", "/v1/models/ft:1"),
            ("/v1/models/b/org/x", "/v1/models/org%2Fx"),
            ("/v1/fine_tuning/checkpoints/b%2Fft:1/permissions/cp_1", "/v1/fine_tuning/checkpoints/ft:1/permissions/cp_1"),
            ("/v1/models/n", "/v1/models/m-b"),
            ("/v1/models/up", "/v1/models/up"),
        ]:
            pair.b.play(script(json_response(200, {"id": "x", "object": "model", "deleted": True})))
            assert client.ask("DELETE", path).status == 200
            assert (pair.b.requests[-1].target, pair.a.requests) == (target, [])
        pair.a.otherwise = script(error_response(503, "later", more="x"))
        answers = [client.ask("DELETE", "/v1/models/m") for _ in range(6)]
        assert {answer.status for answer in answers} == {503}
        assert {request.target for request in pair.a.requests} == {"/v1/models/m-a"}
        assert len(pair.b.requests) == 5
        assert gateway.record_of(answers[-1])["model"] == "m"


def test_what_may_not_be_made_twice_is_made_once_or_not_at_all(pair: Pair, tmp_path: Any):
    """Two providers would both do it, and charge for it."""
    targets = {"targets": [{"provider": "a", "model": "x"}, {"provider": "b", "model": "x", "weight": 0}]}
    pair.b.otherwise = script(json_response(200, {"id": "resp_1", "object": "response", "status": "queued"}))

    def ask(client: RawClient, what: str, model: str) -> Answer:
        body = {"model": model, "input": "x", "background": True, "store": True} if what == "responses" else {"model": model, "prompt": "x"}
        return client.ask("POST", "/v1/responses" if what == "responses" else "/v1/images/generations", json.dumps(body).encode())

    had: list[tuple[Script, int]] = [
        (script(Wait(0.05), Reset()), 502),
        (script(Stall()), 504),
        (script(error_response(500, headers=CLOSING)), 500),
        (script(error_response(503, headers=CLOSING)), 503),
    ]
    policies = {**NO_RETRIES, "circuit_breaker": False}
    with Gateway(pair.config({**CHAIN, "two": targets}, policies=policies), tmp_path) as gateway, RawClient(gateway.url) as client:
        for what in ("responses", "images"):
            for failing, status in had:
                for model in ("m", "two"):
                    pair.a.forget()
                    pair.a.otherwise = failing
                    assert ask(client, what, model).status == status
                    assert pair.asked == (1, 0)
            pair.a.otherwise = script(error_response(529, headers=CLOSING))
            assert ask(client, what, "m").header("x-comporta-provider") == "b", "what was refused may be asked of another"
            pair.b.forget()


@pytest.mark.parametrize(
    ("failing", "retries", "most"), [(script(Stall()), 0, 5), (script(error_response(500)), 2, 5)], ids=["hangs", "fails"]
)
def test_a_first_choice_that_is_out_costs_the_chains_clients_nothing(pair: Pair, tmp_path: Any, failing: Script, retries: int, most: int):
    pair.a.otherwise, pair.b.otherwise = failing, script(CHAT)
    policies = {"retry": {"max_retries": retries, "base": "1ms"}}
    with Gateway(pair.config(CHAIN, policies=policies), tmp_path) as gateway:
        answers = [chat(gateway.url, "m") for _ in range(8)]
        assert [(answer.status, answer.header("x-comporta-provider")) for answer in answers] == [(200, "b")] * 8
        assert len(pair.a.requests) == most, "five failures in a row take it out"
        last = answers[-1]
        told = {name: last.header(f"x-comporta-{name}") for name in ("model", "attempts", "fallback")}
        assert told == {"model": "n", "attempts": "1", "fallback": "unavailable"}
        record = gateway.record_of(last)
        assert (record["provider"], record["attempts"], record["fallback"]) == ("b", 1, "unavailable")


def test_a_model_that_is_not_allowed_answers_for_no_other(pair: Pair, tmp_path: Any):
    pair.a.otherwise, pair.b.otherwise = script(error_response(500)), script(CHAT)
    with Gateway(pair.config(CHAIN, policies=NO_RETRIES, llm={"allowed_models": ["m"]}), tmp_path) as gateway:
        assert (chat(gateway.url, "n").status, chat(gateway.url, "m").status) == (403, 500)
        assert pair.asked == (1, 0)
