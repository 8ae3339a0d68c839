"""Rows 34 and 35 of the fault matrix: requests that do not wait for answers, and bodies that wait to be asked for."""

from __future__ import annotations

import json
import threading
import time

import pytest

from tests.e2e.faults import COMMITTED
from tests.support.gateway import Gateway, error_of, stream_error_of
from tests.support.raw_client import RawClient, chat_body
from tests.support.script import CHAT, CHAT_STREAM, Gate, Reset, script
from tests.support.upstream import Upstream

MiB = 2**20
PATH = "/v1/chat/completions"
LINGER = 4.0  # seconds: a refused request's connection is read on for a moment, or its reset would take the answer with it
SIZES = pytest.mark.parametrize("size", [0, 1], ids=["whole", "sliced"])


# ------------------------------------------------------------------------------------------------------------------- row 34: pipelining
@pytest.mark.row(34)
@SIZES
def test_pipelined_requests_are_answered_in_order(gateway: Gateway, upstream: Upstream, size: int) -> None:
    with RawClient(gateway.url) as client:
        bodies = [chat_body(user=f"number-{place}", stream=place == 2) for place in range(3)]
        upstream.play(CHAT, CHAT_STREAM)
        client.send(
            client.request_bytes("POST", PATH, bodies[0])
            + client.request_bytes("POST", PATH, b"[]")
            + client.request_bytes("POST", PATH, bodies[2], chunks=[bodies[2][:9], bodies[2][9:]])
            + client.request_bytes("GET", "/v1/nothing-here"),
            size,
        )
        answers = [client.read() for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 400, 200, 404]
    assert [json.loads(request.body)["user"] for request in upstream.requests] == ["number-0", "number-2"]
    records = [gateway.record_of(answer) for answer in answers]
    assert [record["status"] for record in records] == [200, 400, 200, 404]
    assert len({record["id"] for record in records}) == 4


@pytest.mark.row(34)
def test_a_pipelined_request_waits_for_the_one_before_it(gateway: Gateway, upstream: Upstream) -> None:
    """One at a time, and each with its own record; nothing of the second goes out while the first is under way."""
    gate = threading.Event()
    upstream.play(script(Gate(gate), CHAT), *(CHAT for _ in range(199)))
    mark = gateway.mark()
    with RawClient(gateway.url) as client:
        client.send(b"".join(client.request_bytes("POST", PATH, chat_body("patient/any", user=f"{place}")) for place in range(200)))
        upstream.wait_request()
        time.sleep(0.1)
        assert len(upstream.requests) == 1
        assert gateway.metric("llm_active_requests") == 1
        gate.set()
        ids = [client.read().header("x-request-id") for _ in range(200)]
    assert [json.loads(request.body)["user"] for request in upstream.requests] == [f"{place}" for place in range(200)]
    gateway.wait_record(lambda record: record["id"] == ids[-1])
    assert [record["id"] for record in gateway.records[mark:]] == ids


@pytest.mark.row(34)
def test_pipelined_requests_do_not_fill_memory(gateway: Gateway, upstream: Upstream) -> None:
    """Only so many heads are read ahead; then the client is not read from."""
    gate = threading.Event()
    upstream.play(script(Gate(gate), CHAT))
    before = gateway.memory()
    with RawClient(gateway.url) as client:
        client.send(client.request_bytes("POST", PATH, chat_body("patient/any")))
        upstream.wait_request()
        many = client.request_bytes("GET", "/healthz", headers={"X-Long": "a" * 4000}) * 256
        client.socket.settimeout(0.5)
        sent = 0
        try:
            while sent < 64 * MiB:
                sent += client.socket.send(many)
        except TimeoutError:
            pass
        assert sent < 48 * MiB, "it reads whatever comes"
        assert gateway.memory() - before < 16 * MiB
        client.reset()
    gate.set()
    gateway.wait_metric(0, "llm_active_requests")


@pytest.mark.row(34)
def test_what_was_pipelined_behind_a_request_to_be_closed_is_not_answered(gateway: Gateway, upstream: Upstream) -> None:
    gate = threading.Event()
    upstream.play(script(Gate(gate), CHAT))
    with RawClient(gateway.url) as client:
        client.send(client.request_bytes("POST", PATH, chat_body("patient/any"), {"Connection": "close"}))
        upstream.wait_request()
        client.send(client.request_bytes("POST", PATH, chat_body()))
        gate.set()
        assert client.read().status == 200
        assert client.is_closed(LINGER)
    assert len(upstream.requests) == 1


@pytest.mark.row(8, 34)
def test_what_was_pipelined_behind_a_stream_that_breaks_takes_nothing_of_it_away(gateway: Gateway, upstream: Upstream) -> None:
    """It is answered when the error's event has gone out; then the connection goes on as any."""
    gate = threading.Event()
    upstream.play(script(*COMMITTED, Gate(gate), Reset()), CHAT)
    with RawClient(gateway.url) as client:
        client.send(client.request_bytes("POST", PATH, chat_body(stream=True)) + client.request_bytes("POST", PATH, chat_body()))
        answer = client.read_head()
        client.read_until(answer, b"there")
        gate.set()
        while client.read_piece(answer):
            pass
        assert answer.ended and stream_error_of(answer)["code"] == "stream_interrupted"
        assert client.read().status == 200
        assert not client.is_closed(LINGER)
    assert len(upstream.requests) == 2


# --------------------------------------------------------------------------------------------------------- row 35: Expect: 100-continue
@pytest.mark.row(35)
@SIZES
def test_expect_100_continue(gateway: Gateway, upstream: Upstream, size: int) -> None:
    body = chat_body()
    upstream.play(CHAT)
    with RawClient(gateway.url) as client:
        client.send(client.request_bytes("POST", PATH, body, {"Expect": "100-continue"}).removesuffix(body), size)
        assert client.read().status == 100
        assert upstream.requests == []
        client.send(body, size)
        assert client.read().status == 200
    assert upstream.requests[0].body == body
    assert upstream.requests[0].header("expect") is None


@pytest.mark.row(35)
@SIZES
@pytest.mark.parametrize(
    ("path", "status", "code"),
    [(PATH, 413, "request_too_large"), ("/v1/nothing", 404, "unknown_url"), ("/v1/models", 405, "method_not_allowed")],
    ids=["too-much", "nowhere", "no-such-method"],
)
def test_what_would_be_refused_is_not_asked_for(tight: Gateway, size: int, path: str, status: int, code: str) -> None:
    started = time.monotonic()
    with RawClient(tight.url) as client:
        client.send(client.request_bytes("POST", path, b"", {"Expect": "100-continue", "Content-Length": "99999"}), size)
        answer = client.read()
        assert client.is_closed(LINGER)
    assert answer.status == status, "the first answer is the last"
    assert (error_of(answer)["code"], answer.header("connection")) == (code, "close")
    assert time.monotonic() - started < 1, "the client waits to be asked, and nobody asks"
    record = tight.record_of(answer)
    assert (record["error"], record["attempts"]) == (code, 0), record


@pytest.mark.row(35)
def test_an_old_client_is_not_told_to_continue(gateway: Gateway, upstream: Upstream) -> None:
    """HTTP/1.0 has no interim answers (RFC 9110, 10.1.1)."""
    upstream.play(CHAT)
    with RawClient(gateway.url) as client:
        body = chat_body()
        request = client.request_bytes("POST", PATH, body, {"Expect": "100-continue"}, version="HTTP/1.0")
        client.send(request.removesuffix(body))
        time.sleep(0.05)
        client.send(body)
        assert client.read().status == 200


@pytest.mark.row(35)
def test_a_body_that_is_asked_for_and_does_not_come(tight: Gateway, upstream: Upstream) -> None:
    with RawClient(tight.url) as client:
        client.send(client.request_bytes("POST", PATH, b"", {"Expect": "100-continue", "Content-Length": "100"}))
        assert client.read().status == 100
        assert client.read().status == 408
        assert client.is_closed(LINGER)
    assert upstream.requests == []
