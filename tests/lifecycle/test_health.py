"""Providers that go down and come up: what is checked, by whom, and who is told."""

from __future__ import annotations

import json
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lifecycle.conftest import Start, configured
from tests.support.gateway import Gateway
from tests.support.raw_client import ask, chat
from tests.support.script import completion, error_response, json_response, script
from tests.support.upstream import Upstream

OFTEN = {"COMPORTA_HEALTH__INTERVAL": "100ms"}

#: What answers a chat and passes for a list of models too: a provider's answer does not know which request it will get.
GOOD = script(json_response(200, {**completion(), "data": [{"id": "test-model"}, {"id": "another"}]}))
BAD = script(error_response(500))


def told(gateway: Gateway, path: str, key: str = "") -> Any:
    request = urllib.request.Request(f"{gateway.admin}{path}", headers={"Authorization": f"Bearer {key}"} if key else {})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)


def until(condition: Callable[[], bool], seconds: float = 8.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.03)


def is_state(gateway: Gateway, state: str) -> bool:
    return bool(told(gateway, "/admin/providers/up")["health"]["state"] == state)


def seen_by(gateway: Gateway, state: str) -> bool:
    """Whether whichever worker is reached says so of the provider."""
    return [ask(gateway.url, "GET", "/readyz?verbose").json()["providers"]["up"] for _ in range(8)] == [state] * 8


@pytest.mark.parametrize("workers", [1, 2])
def test_a_provider_is_seen_to_go_down_and_to_come_back_and_is_asked_all_the_while(start: Start, upstream: Upstream, workers: int):
    upstream.otherwise = GOOD
    gateway = start({"workers": workers}, env=OFTEN)
    until(lambda: is_state(gateway, "up"))
    until(lambda: seen_by(gateway, "up"))
    upstream.wait_request(4)
    checks = list(upstream.requests)
    assert {(each.method, each.target) for each in checks} == {("GET", "/v1/models")}
    assert len({each.connection.number for each in checks}) == 1, "one process asks, over one connection that is kept"
    gateway.wait_metric(1, "llm_provider_up", provider="up")
    shown = told(gateway, "/admin/providers/up")["health"]
    assert (shown["models"], shown["unlisted_models"], shown["failure"], shown["failures"]) == (2, [], None, 0)
    assert 0 < shown["latency_seconds"] < 5

    upstream.otherwise = BAD
    until(lambda: is_state(gateway, "down"))
    until(lambda: seen_by(gateway, "down"))
    shown = told(gateway, "/admin/providers/up")["health"]
    assert (shown["failure"], shown["kind"]) == ("status", "server_error")
    assert shown["failures"] >= 2
    gateway.wait_line("provider_down", provider="up", failure="status", kind="server_error")
    gateway.wait_metric(0, "llm_provider_up", provider="up")
    assert gateway.metric("llm_provider_checks_total", provider="up", outcome="status") >= 2
    upstream.otherwise = GOOD
    assert chat(gateway.url).status == 200, "a check alone takes nobody out"
    until(lambda: is_state(gateway, "up"))
    gateway.wait_line("provider_up", provider="up")


def test_strangers_are_told_numbers_and_administrators_names(upstream: Upstream, tmp_path: Path):
    upstream.otherwise = BAD
    config = {
        **configured(upstream, {"admin_key": "env:ADMIN_KEY"}),
        "storage": {"url": f"sqlite:///{tmp_path}/comporta.db"},
        "policies": {"authenticate": {"open": False}},
    }
    with Gateway(config, tmp_path, {**OFTEN, "ADMIN_KEY": "the administrator"}) as gateway:
        until(lambda: ask(gateway.url, "GET", "/readyz?verbose").json()["providers"].get("unknown") is None)
        answer = ask(gateway.url, "GET", "/readyz?verbose")
        assert (answer.status, answer.json()) == (
            200,
            {"status": "ok", "providers": {"down": 1, "up": 1}, "database": "up", "redis": None},
        )
        assert ask(gateway.url, "GET", "/readyz").json() == {"status": "ok"}
        shown = told(gateway, "/readyz?verbose", "the administrator")
        assert (shown["status"], shown["providers"]["up"]["failure"], shown["database"]) == ("ready", "status", "up")
        assert shown["configuration"]["generation"] == 1
        with pytest.raises(urllib.error.HTTPError) as caught:
            told(gateway, "/readyz?verbose")
        caught.value.close()
        assert caught.value.code == 401
        assert told(gateway, "/readyz") == {"status": "ready"}


def refusing(upstream: Upstream, model: str = "test-model", **server: Any) -> dict[str, Any]:
    models = {"test-model": {"provider": "up", "model": model}}
    return {**configured(upstream, server), "models": models, "health": {"unlisted_models": "refuse"}}


def test_a_start_with_models_that_a_provider_does_not_list_is_refused_where_that_is_asked_for(upstream: Upstream, tmp_path: Path):
    upstream.otherwise = GOOD
    with pytest.raises(AssertionError, match=r"did not start.*up/anohter"):
        Gateway(refusing(upstream, "anohter"), tmp_path)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Upstream]]:
    """Two workers whose provider is not checked but for its models, and that provider."""
    with Upstream(GOOD) as upstream, Gateway(refusing(upstream, workers=2), tmp_path_factory.mktemp("pair")) as gateway:
        yield gateway, upstream


def test_so_is_a_reload_and_the_workers_serve_on(pair: tuple[Gateway, Upstream]):
    gateway, upstream = pair
    before = told(gateway, "/readyz?verbose")["configuration"]
    gateway.config.write_text(yaml.safe_dump(refusing(upstream, "anohter", workers=2)))
    gateway.process.send_signal(signal.SIGHUP)
    assert "up/anohter" in gateway.wait_line("configuration_refused")["reason"]
    assert told(gateway, "/readyz?verbose")["configuration"] == before
    assert chat(gateway.url).status == 200


def test_the_workers_views_of_a_target_are_shown_beside_what_they_come_to(pair: tuple[Gateway, Upstream]):
    gateway, upstream = pair
    upstream.otherwise = BAD
    until(lambda: chat(gateway.url).status == 500 and _target(gateway)["state"] == "open")
    target = _target(gateway)
    assert (target["model"], target["serves"], len(target["workers"])) == ("test-model", ["test-model"], 2)
    assert [each["worker"] for each in target["workers"]] == [0, 1]
    assert target["until"] is not None
    open_in = sum(each["state"] == "open" for each in target["workers"])
    gateway.wait_metric(open_in, "llm_target_state", provider="up", model="test-model", state="open")
    assert told(gateway, "/admin/providers/up")["health"]["state"] == "unchecked"


def _target(gateway: Gateway) -> dict[str, Any]:
    [target] = told(gateway, "/admin/providers/up")["targets"]
    found: dict[str, Any] = target
    return found
