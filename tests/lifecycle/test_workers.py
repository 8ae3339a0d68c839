"""Several workers: who serves, who dies and what that costs, what is counted, and how they end together."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import urllib.request
from typing import Any

import pytest

from proxy.backoff import Backoff
from proxy.supervisor import Silence
from tests.lifecycle.conftest import Start
from tests.support.gateway import Gateway, stream_error_of
from tests.support.raw_client import Closed, RawClient, chat, chat_body
from tests.support.script import CHAT, DONE, LAST_CHUNK, Gate, Stall, chat_chunks, chunk, script, stream_head
from tests.support.upstream import Upstream

CHUNKS = [chunk(event) for event in chat_chunks()]


@pytest.fixture
def gateway(start: Start) -> Gateway:
    return start({"workers": 2, "grace": "2s"})


def _told(gateway: Gateway) -> dict[str, Any]:
    with urllib.request.urlopen(f"{gateway.admin}/readyz", timeout=5) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def _pids(gateway: Gateway) -> list[int]:
    return [worker["pid"] for worker in _told(gateway)["workers"] if worker["state"] == "ready"]


def _wait_workers(gateway: Gateway, count: int = 2, but: int | None = None) -> list[int]:
    until = time.monotonic() + 10
    while len(pids := _pids(gateway)) != count or but in pids:
        assert time.monotonic() < until, _told(gateway)
        time.sleep(0.05)
    return pids


def _serving(gateway: Gateway, upstream: Upstream) -> dict[int, RawClient]:
    """A connection with a stream that goes on, for each worker; which one has it, the record of an earlier request on it tells."""
    found: dict[int, RawClient] = {}
    upstream.otherwise = script(CHAT)
    for _ in range(200):
        client = RawClient(gateway.url)
        worker = gateway.record_of(client.ask("POST", "/v1/chat/completions", chat_body()))["worker"]
        if worker in found:
            client.close()
        else:
            found[worker] = client
        if len(found) == 2:
            return found
    raise AssertionError("one worker gets every connection")


def test_all_workers_serve_and_their_numbers_are_added_up(gateway: Gateway, upstream: Upstream):
    upstream.otherwise = script(CHAT)
    assert len(set(_pids(gateway))) == 2
    assert gateway.process.pid not in _pids(gateway)
    assert [chat(gateway.url).status for _ in range(60)] == [200] * 60
    assert gateway.metric("llm_requests_total") == 60
    assert gateway.metric("llm_latency_seconds_count") == 60
    gateway.mark()
    assert {record["worker"] for record in gateway.records} == {0, 1}
    assert gateway.metric("comporta_workers_ready") == 2
    with RawClient(gateway.url) as client:
        assert client.ask("GET", "/readyz").status == 200


def test_what_nobody_wrote_is_unwritten_for_workers_too(gateway: Gateway):
    """Only a `max_body` that is written bounds uploads; only where `health.unlisted_models` is written providers are asked at the start."""

    def may_upload() -> bool:
        headers = {"Content-Length": str(100 * 2**20), "Content-Type": "application/octet-stream", "Expect": "100-continue"}
        with RawClient(gateway.url) as client:
            return client.ask("POST", "/v1/files", headers=headers).status == 100

    assert may_upload()
    gateway.process.send_signal(signal.SIGHUP)
    gateway.wait_line("configuration_applied")
    assert may_upload()
    assert gateway.metric("llm_provider_checks_total") == 0


def test_a_worker_that_is_killed_harms_only_its_own_and_comes_back(gateway: Gateway, upstream: Upstream):
    """Row 51."""
    clients = _serving(gateway, upstream)
    total = gateway.metric("llm_requests_total")
    gate = threading.Event()
    upstream.otherwise = script(stream_head() + b"".join(CHUNKS[:2]), Gate(gate), b"".join(CHUNKS[2:]) + chunk(DONE) + LAST_CHUNK)
    answers = {}
    for worker, client in clients.items():
        client.send(client.request_bytes("POST", "/v1/chat/completions", chat_body(stream=True)))
        answers[worker] = client.read_head()
        client.read_until(answers[worker], b"Hello")
    victim = next(worker for worker in _told(gateway)["workers"] if worker["worker"] == 0)["pid"]
    os.kill(victim, signal.SIGKILL)
    with pytest.raises(Closed):
        while clients[0].read_piece(answers[0]):
            pass
    gateway.wait_line("worker_ended", restart_in=0.1)
    gate.set()
    while clients[1].read_piece(answers[1]):
        pass
    assert answers[1].events[-1] == "[DONE]"
    _wait_workers(gateway, but=victim)
    assert gateway.metric("comporta_worker_restarts_total") == 1
    upstream.otherwise = script(CHAT)
    assert [chat(gateway.url).status for _ in range(20)] == [200] * 20
    # The dead worker's numbers are kept: nothing goes backwards.
    assert gateway.metric("llm_requests_total") == total + 1 + 20
    for client in clients.values():
        client.close()


def test_a_worker_that_hangs_is_killed_and_another_takes_its_place(start: Start, upstream: Upstream):
    gateway = start({"workers": 2, "worker_timeout": "2s"})
    upstream.otherwise = script(CHAT)
    victim = _pids(gateway)[0]
    os.kill(victim, signal.SIGSTOP)
    line = gateway.wait_line("worker_hung", timeout=10)
    assert (line["worker"], line["pid"]) == (0, victim)
    assert line["silent"] >= 2
    gateway.wait_line("worker_ended", worker=0, status=-signal.SIGKILL, restart_in=0.1)
    _wait_workers(gateway, but=victim)
    assert gateway.metric("comporta_worker_hung_total") == 1
    assert gateway.metric("comporta_worker_restarts_total") == 1
    assert [chat(gateway.url).status for _ in range(20)] == [200] * 20


def test_workers_that_answer_are_not_taken_for_hung(start: Start, upstream: Upstream):
    gateway = start({"workers": 2, "worker_timeout": "2s"})
    upstream.otherwise = script(CHAT)
    pids = _pids(gateway)
    until = time.monotonic() + 5
    while time.monotonic() < until:
        assert chat(gateway.url).status == 200
    assert _pids(gateway) == pids
    assert gateway.metric("comporta_worker_hung_total") == 0


def test_a_worker_that_does_not_live_long_waits_twice_as_long_each_time(gateway: Gateway):
    for wait in (0.1, 0.2, 0.4):
        victim = _pids(gateway)[0]
        os.kill(victim, signal.SIGKILL)
        gateway.wait_line("worker_ended", worker=0, restart_in=wait)
        _wait_workers(gateway, but=victim)
    assert gateway.metric("comporta_worker_restarts_total") == 3


def test_connections_that_come_while_a_worker_is_away_are_served(gateway: Gateway, upstream: Upstream):
    upstream.otherwise = script(CHAT)
    victim = _pids(gateway)[0]
    os.kill(victim, signal.SIGKILL)
    gateway.wait_line("worker_ended")
    assert [chat(gateway.url).status for _ in range(30)] == [200] * 30
    _wait_workers(gateway, but=victim)


def test_sigterm_to_the_supervisor_drains_every_worker(gateway: Gateway, upstream: Upstream):
    clients = _serving(gateway, upstream)
    upstream.otherwise = script(stream_head() + b"".join(CHUNKS[:2]), Stall())
    answers = {}
    for worker, client in clients.items():
        client.send(client.request_bytes("POST", "/v1/chat/completions", chat_body(stream=True)))
        answers[worker] = client.read_head()
        client.read_until(answers[worker], b"Hello")
    gateway.process.send_signal(signal.SIGTERM)
    for worker, client in clients.items():
        while client.read_piece(answers[worker]):
            pass
        assert stream_error_of(answers[worker])["code"] == "shutting_down"
        client.close()
    gateway.ended()
    assert [record["status"] for record in gateway.records[-2:]] == [503, 503]


def test_workers_do_not_outlive_their_supervisor(gateway: Gateway):
    pids = _pids(gateway)
    gateway.process.kill()
    gateway.process.wait(5)
    until = time.monotonic() + 5
    while any(os.path.exists(f"/proc/{pid}") for pid in pids):
        assert time.monotonic() < until, "a worker is still there"
        time.sleep(0.02)
    for pipe in (gateway.process.stdout, gateway.process.stderr):
        assert pipe is not None
        pipe.close()


def test_a_worker_that_is_told_to_stop_drains_and_another_takes_its_place(gateway: Gateway, upstream: Upstream):
    upstream.otherwise = script(CHAT)
    assert [chat(gateway.url).status for _ in range(20)] == [200] * 20
    victim = _pids(gateway)[0]
    os.kill(victim, signal.SIGTERM)
    _wait_workers(gateway, but=victim)
    assert gateway.metric("llm_requests_total") == 20


def test_a_taken_address_is_refused_with_workers_too(gateway: Gateway, start: Start):
    with pytest.raises(AssertionError, match="did not start"):
        _another(start, gateway)


def _another(start: Start, gateway: Gateway) -> None:
    address = gateway.url.removeprefix("http://")
    start({"workers": 2}, listen=address)


# --------------------------------------------------------------------------------------------------------------------------- back-off
def test_the_wait_doubles_to_ten_seconds_and_starts_over_after_a_minute_of_life():
    backoff = Backoff()
    assert [backoff.after(1) for _ in range(9)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    assert backoff.after(59.9) == 10.0
    assert [backoff.after(60), backoff.after(1)] == [0.1, 0.2]


# --------------------------------------------------------------------------------------------------------------------------- silence
def test_silence_adds_up_until_something_is_heard():
    silence = Silence()
    for _ in range(3):
        silence.turn(1.5)
    assert silence.seconds == 4.5
    silence.heard()
    silence.turn(1.5)
    assert silence.seconds == 0
    silence.turn(1.5)
    assert silence.seconds == 1.5


def test_a_pause_of_the_whole_machine_is_no_silence():
    silence = Silence()
    silence.turn(3600)
    assert silence.seconds == 2
