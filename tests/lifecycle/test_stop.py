"""SIGTERM: what runs may finish, what cannot is told, and each request has its one record."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.lifecycle.conftest import Start, configured
from tests.support.gateway import Gateway, error_of, stream_error_of
from tests.support.raw_client import Closed, RawClient, chat, chat_body
from tests.support.script import CHAT, CHAT_STREAM, DONE, LAST_CHUNK, Gate, Stall, chat_chunks, chunk, script, stream_head
from tests.support.upstream import Upstream

CHUNKS = [chunk(event) for event in chat_chunks()]


def _ask(client: RawClient, *, stream: bool) -> None:
    client.send(client.request_bytes("POST", "/v1/chat/completions", chat_body(stream=stream)))


def _terminate(gateway: Gateway) -> None:
    gateway.process.send_signal(signal.SIGTERM)
    gateway.wait_line("stopping")


def _is_refused(url: str) -> bool:
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname, parts.port), 1):
            return False
    except ConnectionRefusedError:
        return True


def _wait_refused(url: str) -> None:
    until = time.monotonic() + 2
    while not _is_refused(url):
        assert time.monotonic() < until, "it still accepts connections"
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_gateway_ends_at_once(start: Start, number: signal.Signals):
    """It waits for nothing; only a busy machine takes its time to end a process."""
    gateway = start({"grace": "60s"})
    begun = time.monotonic()
    gateway.process.send_signal(number)
    gateway.ended()
    assert time.monotonic() - begun < 5


def test_a_running_stream_is_finished_and_no_connection_accepted_meanwhile(start: Start, upstream: Upstream):
    gateway, gate = start(), threading.Event()
    upstream.play(script(stream_head() + b"".join(CHUNKS[:2]), Gate(gate), b"".join(CHUNKS[2:]) + chunk(DONE) + LAST_CHUNK))
    with RawClient(gateway.url) as client:
        _ask(client, stream=True)
        answer = client.read_head()
        client.read_until(answer, b"Hello")
        _terminate(gateway)
        _wait_refused(gateway.url)
        gate.set()
        while client.read_piece(answer):
            pass
        assert answer.events[-1] == "[DONE]"
        assert client.is_closed()
    gateway.ended()
    assert [(record["status"], record["outcome"]) for record in gateway.records] == [(200, "ok")]


def test_an_answer_that_begins_while_it_drains_says_that_the_connection_closes(start: Start, upstream: Upstream):
    gateway, gate = start(), threading.Event()
    upstream.play(script(Gate(gate), CHAT))
    with RawClient(gateway.url) as client:
        _ask(client, stream=False)
        upstream.wait_request()
        _terminate(gateway)
        _wait_refused(gateway.url)
        gate.set()
        answer = client.read()
        assert (answer.status, answer.header("connection")) == (200, "close")
        assert client.is_closed()
    gateway.ended()
    assert [record["outcome"] for record in gateway.records] == ["ok"]


def test_a_body_that_is_still_being_sent_is_taken(start: Start, upstream: Upstream):
    gateway = start()
    upstream.play(CHAT)
    with RawClient(gateway.url) as client:
        data = client.request_bytes("POST", "/v1/chat/completions", chat_body())
        client.send(data[:-20])
        gateway.wait_metric(1, "llm_active_requests")
        _terminate(gateway)
        _wait_refused(gateway.url)
        client.send(data[-20:])
        answer = client.read()
        assert (answer.status, answer.header("connection")) == (200, "close")
    gateway.ended()


def test_idle_connections_are_closed_and_fresh_ones_may_still_ask(start: Start, upstream: Upstream):
    gateway = start()
    upstream.play(CHAT, CHAT)
    with RawClient(gateway.url) as idle, RawClient(gateway.url) as fresh:
        assert idle.ask("POST", "/v1/chat/completions", chat_body()).status == 200
        _terminate(gateway)
        assert idle.is_closed(0.5)
        answer = fresh.ask("POST", "/v1/chat/completions", chat_body())
        assert (answer.status, answer.header("connection")) == (200, "close")
    gateway.ended()
    assert len(gateway.records) == 2


def test_what_outlasts_the_grace_time_is_told_and_recorded_as_503(start: Start, upstream: Upstream):
    """Row 50: a stream gets one error event and no [DONE], a request that waits gets 503; nobody has left, so nothing is 499."""
    gateway = start({"grace": "500ms"})
    upstream.play(script(stream_head() + b"".join(CHUNKS[:2]), Stall()), script(Stall()))
    with RawClient(gateway.url) as streaming, RawClient(gateway.url) as waiting:
        _ask(streaming, stream=True)
        answer = streaming.read_head()
        streaming.read_until(answer, b"Hello")
        _ask(waiting, stream=False)
        upstream.wait_request(2)
        _terminate(gateway)
        refused = waiting.read()
        error = error_of(refused)
        assert (refused.status, error["code"], error["type"]) == (503, "shutting_down", "server_error")
        assert int(refused.header("retry-after") or 0) >= 1
        assert refused.header("connection") == "close"
        while streaming.read_piece(answer):
            pass
        told = stream_error_of(answer)
        assert told["code"] == "shutting_down"
        assert streaming.is_closed() and waiting.is_closed()
    gateway.ended()
    records = gateway.records
    assert [(record["status"], record["outcome"], record["error"]) for record in records] == [(503, "gateway_error", "shutting_down")] * 2
    assert {record["usage"] for record in records} == {"estimated"}
    assert gateway.wait_line("stopped")["interrupted"] == 2
    assert all(connection.closed.wait(2) for connection in upstream.connections)


def test_a_stream_that_has_only_had_pings_gets_the_event_too(start: Start, upstream: Upstream):
    gateway = start({"grace": "500ms", "ping": "100ms"})
    upstream.play(script(stream_head(), Stall()))
    with RawClient(gateway.url) as client:
        _ask(client, stream=True)
        answer = client.read_head()
        client.read_until(answer, b": ping")
        _terminate(gateway)
        while client.read_piece(answer):
            pass
        assert stream_error_of(answer)["code"] == "shutting_down"
    gateway.ended()
    assert [record["status"] for record in gateway.records] == [503]


def test_a_body_that_never_comes_does_not_outlast_the_grace_time(start: Start):
    gateway = start({"grace": "300ms"})
    with RawClient(gateway.url) as client:
        client.send(client.request_bytes("POST", "/v1/chat/completions", chat_body())[:-20])
        gateway.wait_metric(1, "llm_active_requests")
        _terminate(gateway)
        assert client.read().status == 503
    gateway.ended()
    assert [record["status"] for record in gateway.records] == [503]


def test_a_client_that_leaves_while_it_drains_is_recorded_as_having_left(start: Start, upstream: Upstream):
    gateway = start()
    upstream.play(script(Stall()))
    with RawClient(gateway.url) as client:
        _ask(client, stream=False)
        upstream.wait_request()
        _terminate(gateway)
    gateway.ended()
    assert [(record["status"], record["outcome"]) for record in gateway.records] == [(499, "cancelled")]


def test_a_second_signal_ends_it_at_once(start: Start, upstream: Upstream):
    gateway = start({"grace": "30s"})
    upstream.play(script(Stall()))
    with RawClient(gateway.url) as client:
        _ask(client, stream=False)
        upstream.wait_request()
        _terminate(gateway)
        begun = time.monotonic()
        gateway.process.send_signal(signal.SIGTERM)
        assert client.read().status == 503
    gateway.ended()
    assert time.monotonic() - begun < 2
    assert [record["status"] for record in gateway.records] == [503]


def test_a_client_that_does_not_read_cannot_hold_it(start: Start, upstream: Upstream):
    gateway = start({"grace": "300ms"})
    upstream.play(script(stream_head() + b"".join(CHUNKS[:4]) + CHUNKS[2] * 40_000, Stall()))
    with RawClient(gateway.url) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        _ask(client, stream=True)
        client.read_head()
        begun = time.monotonic()
        _terminate(gateway)
        gateway.ended()
        assert time.monotonic() - begun < 10  # a client that closes is given 30 s for the rest
    assert [record["status"] for record in gateway.records] == [503]


def test_not_ready_is_told_before_connections_are_refused(start: Start, upstream: Upstream):
    """`drain_delay`: load balancers look elsewhere first, and what still comes meanwhile is served."""
    gateway = start({"drain_delay": "600ms"})
    upstream.play(CHAT)
    with RawClient(gateway.url) as client:
        assert client.ask("GET", "/readyz").status == 200
    _terminate(gateway)
    with RawClient(gateway.url) as client:
        assert client.ask("GET", "/readyz").status == 503
        assert client.ask("GET", "/healthz").status == 200
    assert chat(gateway.url).status == 200
    gateway.ended()


def test_many_at_once_each_have_one_record(start: Start, upstream: Upstream):
    gateway = start({"grace": "400ms"})
    upstream.otherwise = script(stream_head() + b"".join(CHUNKS[:2]), Stall())
    clients = [RawClient(gateway.url) for _ in range(60)]
    for client in clients:
        _ask(client, stream=True)
    answers = [client.read_head() for client in clients]
    for client, answer in zip(clients, answers, strict=True):
        client.read_until(answer, b"Hello")
    _terminate(gateway)
    for client, answer in zip(clients, answers, strict=True):
        while client.read_piece(answer):
            pass
        assert stream_error_of(answer)["code"] == "shutting_down"
        client.close()
    gateway.ended()
    assert [record["status"] for record in gateway.records] == [503] * 60


def test_whole_answers_are_not_cut_by_the_end(start: Start, upstream: Upstream):
    gateway = start()
    upstream.otherwise = script(CHAT_STREAM)
    gateway_url, answers = gateway.url, []

    def hammer() -> None:
        while True:
            try:
                answers.append(chat(gateway_url, stream=True))
            except (OSError, Closed):
                return

    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(answers) < 40:
        time.sleep(0.01)
    os.kill(gateway.process.pid, signal.SIGTERM)
    for thread in threads:
        thread.join(10)
    gateway.ended()
    assert all(answer.ended and answer.events[-1] == "[DONE]" for answer in answers)
    assert len(gateway.records) == len(answers)


class Unread(Gateway):
    """Nobody reads its log, for which a pipe of one page is soon full."""

    def _read(self) -> None:
        assert self.process.stderr is not None
        fcntl.fcntl(self.process.stderr, fcntl.F_SETPIPE_SZ, 4096)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_log_that_nobody_reads_does_not_hold_it(upstream: Upstream, tmp_path: Path, workers: int):
    gateway = Unread(configured(upstream, {"workers": workers}), tmp_path)
    with RawClient(gateway.url) as client:
        for _ in range(100):
            assert client.ask("GET", "/v1/nothing").status == 404
    gateway.process.send_signal(signal.SIGTERM)
    gateway.ended(10)
