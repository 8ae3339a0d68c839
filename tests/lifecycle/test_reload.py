"""SIGHUP: another configuration takes the old one's place between two requests, or not at all."""

from __future__ import annotations

import json
import os
import resource
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lifecycle.conftest import Start, configured
from tests.lifecycle.test_certificate import write_certificate
from tests.support.gateway import Gateway
from tests.support.raw_client import RawClient, ask, chat, chat_body
from tests.support.script import CHAT, DONE, LAST_CHUNK, Gate, chat_chunks, chunk, completion, json_response, script, stream_head
from tests.support.upstream import Upstream

CHUNKS = [chunk(event) for event in chat_chunks()]
OTHER = json_response(200, completion("from the other one"))


@pytest.fixture
def other() -> Iterator[Upstream]:
    with Upstream(script(OTHER)) as server:
        yield server


def _reload(gateway: Gateway, config: dict[str, Any] | str) -> None:
    gateway.config.write_text(config if isinstance(config, str) else yaml.safe_dump(config, sort_keys=False))
    gateway.process.send_signal(signal.SIGHUP)


def _text(gateway: Gateway, model: str = "test-model") -> str:
    answer = chat(gateway.url, model)
    assert answer.status == 200, answer
    return str(answer.json()["choices"][0]["message"]["content"])


@pytest.mark.parametrize("workers", [1, 2])
def test_requests_after_it_are_served_by_the_new_one(start: Start, upstream: Upstream, other: Upstream, workers: int):
    gateway = start({"workers": workers})
    upstream.otherwise = script(CHAT)
    assert _text(gateway) == "Hello there you"
    _reload(gateway, configured(other, {"workers": workers}))
    gateway.wait_line("configuration_applied")
    assert [_text(gateway) for _ in range(10)] == ["from the other one"] * 10
    assert gateway.metric("comporta_config_reloads_total", outcome="applied") == 1
    assert gateway.metric("comporta_config_last_reload_success_timestamp_seconds") == pytest.approx(time.time(), abs=10)
    assert gateway.metric("comporta_config_info") == 1


def test_a_request_in_flight_keeps_what_it_began_with(start: Start, upstream: Upstream, other: Upstream):
    gateway, gate = start(), threading.Event()
    upstream.play(script(stream_head() + b"".join(CHUNKS[:2]), Gate(gate), b"".join(CHUNKS[2:]) + chunk(DONE) + LAST_CHUNK))
    with RawClient(gateway.url) as client:
        client.send(client.request_bytes("POST", "/v1/chat/completions", chat_body(stream=True)))
        answer = client.read_head()
        client.read_until(answer, b"Hello")
        _reload(gateway, configured(other))
        gateway.wait_line("configuration_applied")
        assert _text(gateway) == "from the other one"
        assert not upstream.connections[0].closed.wait(0.6)
        gate.set()
        while client.read_piece(answer):
            pass
        assert answer.events[-1] == "[DONE]"
    # With the last request that used them, the old one's connections go.
    assert upstream.connections[0].closed.wait(2)


def test_a_provider_that_did_not_change_keeps_its_connections(start: Start, upstream: Upstream):
    gateway = start()
    upstream.otherwise = script(CHAT)
    _text(gateway)
    config = configured(upstream)
    config["models"]["more"] = "up"
    _reload(gateway, config)
    gateway.wait_line("configuration_applied")
    _text(gateway, "more")
    time.sleep(0.5)
    _text(gateway, "more")
    assert len(upstream.connections) == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_one_is_refused_and_the_old_kept(start: Start, upstream: Upstream, workers: int):
    """Row 49."""
    gateway = start({"workers": workers})
    upstream.otherwise = script(CHAT)
    _reload(gateway, "server: {workers: 1}\nproviders:\n  up: {kind: openai, base_url: 'http://127.0.0.1:1/v1', api_kye: 'env:X'}\n")
    line = gateway.wait_line("configuration_refused")
    problem = line["problems"][0]
    assert (problem["line"], problem["path"]) == (3, "providers.up.api_kye")
    assert "did you mean 'api_key'?" in problem["hint"]
    assert line["level"] == "error"
    assert gateway.metric("comporta_config_reloads_total", outcome="refused") == 1
    assert gateway.metric("comporta_config_last_reload_successful") == 0
    assert _text(gateway) == "Hello there you"
    _reload(gateway, configured(upstream, {"workers": workers}))
    gateway.wait_line("configuration_applied")
    assert gateway.metric("comporta_config_last_reload_successful") == 1


@pytest.mark.parametrize("text", ["providers: {up: [", "providers: {up: {kind: nobody}}", "\x00", "- a list"])
def test_whatever_the_file_holds_it_goes_on(start: Start, upstream: Upstream, text: str):
    gateway = start()
    upstream.otherwise = script(CHAT)
    _reload(gateway, text)
    assert gateway.wait_line("configuration_refused")["problems"]
    assert _text(gateway) == "Hello there you"


def test_what_only_a_restart_can_change_is_said_and_kept(start: Start, upstream: Upstream, other: Upstream):
    gateway = start()
    _reload(gateway, configured(other, {"workers": 3, "grace": "1s"}))
    assert gateway.wait_line("configuration_needs_restart")["kept"] == ["server.workers"]
    assert _text(gateway) == "from the other one"


def test_limits_change_without_a_restart(start: Start, upstream: Upstream):
    gateway = start()
    upstream.otherwise = script(CHAT)
    _text(gateway)
    _reload(gateway, configured(upstream, {"max_body": "16B"}))
    gateway.wait_line("configuration_applied")
    assert chat(gateway.url).status == 413


def test_a_key_that_was_changed_where_it_is_kept_is_used(start: Start, upstream: Upstream, tmp_path):
    key = tmp_path / "key"
    key.write_text("first-key")
    key.chmod(0o600)
    gateway = start(api_key=f"file:{key}")
    upstream.otherwise = script(CHAT)
    _text(gateway)
    key.write_text("second-key")
    gateway.process.send_signal(signal.SIGHUP)
    gateway.wait_line("configuration_applied")
    _text(gateway)
    assert [request.header("authorization") for request in upstream.requests] == ["Bearer first-key", "Bearer second-key"]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_administrators_key_is_another_one_after_it(start: Start, upstream: Upstream, tmp_path: Path, workers: int):
    key = tmp_path / "admin"
    key.touch(mode=0o600)
    key.write_text("the first key of all\n")
    server = {"admin_key": f"file:{key}", "workers": workers}
    gateway = start(server)
    assert [_administers(gateway, shown) for shown in ("the first key of all", "the second one")] == [200, 401]
    key.write_text("the second one\n")
    gateway.process.send_signal(signal.SIGHUP)
    gateway.wait_line("configuration_applied")
    assert [_administers(gateway, shown) for shown in ("the first key of all", "the second one")] == [401, 200]
    # Neither one that is not there nor a configuration that is refused for something else takes it away.
    for config in (
        configured(upstream, {**server, "admin_key": f"file:{tmp_path}/nothing"}),
        configured(upstream, {"workers": workers}, ca=str(key)),
    ):
        gateway.lines.clear()
        _reload(gateway, config)
        gateway.wait_line("configuration_refused")
        assert [_administers(gateway, shown) for shown in ("", "the second one")] == [401, 200]


def _administers(gateway: Gateway, key: str) -> int:
    return ask(gateway.admin, "GET", "/admin/config", headers={"Authorization": f"Bearer {key}"}).status


def test_reloading_under_load_loses_nothing(start: Start, upstream: Upstream, other: Upstream):
    gateway = start()
    upstream.otherwise = script(CHAT)
    statuses: list[int] = []
    ending = threading.Event()

    def hammer() -> None:
        with RawClient(gateway.url) as client:
            while not ending.is_set():
                statuses.append(client.ask("POST", "/v1/chat/completions", chat_body()).status)

    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for count in range(6):
        _reload(gateway, configured((other, upstream)[count % 2]))
        until = time.monotonic() + 5
        while gateway.metric("comporta_config_reloads_total", outcome="applied") != count + 1:
            assert time.monotonic() < until
            time.sleep(0.02)
    ending.set()
    for thread in threads:
        thread.join(10)
    assert set(statuses) == {200}
    assert gateway.process.poll() is None


def test_a_worker_that_is_started_after_a_refused_reload_has_what_the_others_have(start: Start, upstream: Upstream):
    """The file is bad by now; it is not read again for a worker."""
    gateway = start({"workers": 2})
    upstream.otherwise = script(CHAT)
    _reload(gateway, "nonsense: {}")
    gateway.wait_line("configuration_refused")
    with urllib.request.urlopen(f"{gateway.admin}/readyz", timeout=5) as answer:
        os.kill(json.load(answer)["workers"][0]["pid"], signal.SIGKILL)
    gateway.wait_line("worker_ended")
    assert [_text(gateway) for _ in range(20)] == ["Hello there you"] * 20
    gateway.mark()
    assert {record["worker"] for record in gateway.records} == {0, 1}


def test_what_one_worker_alone_cannot_take_is_taken_by_none(start: Start, upstream: Upstream, other: Upstream):
    """One of three may open no more files, and so cannot read the certificates that the new configuration trusts."""
    gateway = start({"workers": 3})
    upstream.otherwise = script(CHAT)
    other.otherwise = script(OTHER)
    before = _workers(gateway)
    write_certificate(gateway.config.parent, "gateway.test")
    ca = gateway.config.with_name("cert.pem")
    victim = before[1]["pid"]
    limit = resource.prlimit(victim, resource.RLIMIT_NOFILE)
    resource.prlimit(victim, resource.RLIMIT_NOFILE, (3, limit[1]))
    _reload(gateway, configured(other, {"workers": 3}, ca=str(ca)))
    assert "worker 1 refused it" in gateway.wait_line("configuration_refused")["reason"]
    resource.prlimit(victim, resource.RLIMIT_NOFILE, limit)
    assert _said_by_each(gateway, 3) == {"Hello there you"}
    assert (other.requests, _workers(gateway)) == ([], before)
    assert gateway.metric("comporta_config_reloads_total", outcome="refused") == 1
    assert gateway.metric("comporta_config_last_reload_successful") == 0
    gateway.process.send_signal(signal.SIGHUP)
    gateway.wait_line("configuration_applied")
    assert _said_by_each(gateway, 3) == {"from the other one"}
    assert _workers(gateway) == before


def test_a_worker_that_does_not_answer_has_the_others_keep_what_they_have(start: Start, upstream: Upstream, other: Upstream):
    gateway = start({"workers": 2, "worker_timeout": "2s"})
    upstream.otherwise = script(CHAT)
    other.otherwise = script(OTHER)
    victim = _workers(gateway)[0]["pid"]
    os.kill(victim, signal.SIGSTOP)
    _reload(gateway, configured(other, {"workers": 2}))
    # It hangs, so it is killed; what starts in its place must have what the other has kept.
    gateway.wait_line("worker_hung", timeout=10)
    assert "worker 0 refused it: no answer" in gateway.wait_line("configuration_refused")["reason"]
    assert _said_by_each(gateway, 2) == {"Hello there you"}


def _said_by_each(gateway: Gateway, workers: int) -> set[str]:
    """What is answered, until each worker has."""
    mark, said = gateway.mark(), set()
    for _ in range(300):
        said.add(_text(gateway))
        gateway.mark()
        if len({record["worker"] for record in gateway.records[mark:]}) == workers:
            return said
    raise AssertionError(f"not every worker has answered: {gateway.tail()}")


def _workers(gateway: Gateway) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{gateway.admin}/readyz", timeout=5) as answer:
        found: list[dict[str, Any]] = json.load(answer)["workers"]
        return found
