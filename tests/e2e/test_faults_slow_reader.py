"""Row 33 of the fault matrix: a client that reads slowly, or not at all, while its provider has much to say."""

from __future__ import annotations

import time

import pytest

from tests.e2e.faults import settled
from tests.support.gateway import Gateway
from tests.support.raw_client import RawClient, chat_body
from tests.support.script import DONE, LAST_CHUNK, Pour, Script, chunk, delta, event, head, script, stream_head
from tests.support.upstream import Upstream

MiB = 2**20
FLAT = 16 * MiB  # what a process may grow by while 200 MB stand waiting
KERNEL = 32 * MiB  # what the sockets on the way can hold between them

EVENT = event(delta("a" * 1000))
EVENTS = chunk(EVENT) * 60  # about 64 kB
ENDING = chunk(event(delta(finish="stop"))) + chunk(DONE) + LAST_CHUNK
OCTETS = head(200, [("Content-Type", "application/octet-stream"), ("Content-Length", str(200 * MiB))])


def streamed(mebibytes: int) -> Script:
    return script(stream_head(), Pour(EVENTS, mebibytes * MiB // len(EVENTS)), ENDING)


def asked(gateway: Gateway, what: str, model: str = "patient/any") -> RawClient:
    client = RawClient(gateway.url, timeout=10)
    if what == "stream":
        client.send(client.request_bytes("POST", "/v1/chat/completions", chat_body(model, stream=True)))
    else:
        client.send(client.request_bytes("GET", "/v1/files/file-1/content"))
    return client


@pytest.mark.row(33)
@pytest.mark.parametrize("what", ["stream", "file"])
def test_a_client_that_does_not_read_costs_no_memory(gateway: Gateway, upstream: Upstream, what: str) -> None:
    upstream.play(streamed(200) if what == "stream" else script(OCTETS, Pour(b"x" * 65536, 3200)))
    before, mark = gateway.memory(), gateway.mark()
    client = asked(gateway, what)
    connection = upstream.wait_request().connection
    assert settled(connection) < KERNEL
    assert gateway.memory() - before < FLAT, "what the client does not take is kept"
    client.close()
    assert connection.closed.wait(1)
    record = gateway.record_since(mark)
    assert (record["status"], record["outcome"]) == (499, "cancelled"), record


@pytest.mark.row(33)
def test_a_client_that_reads_after_a_while_gets_it_all(gateway: Gateway, upstream: Upstream) -> None:
    """The pause is longer than the provider's `idle`: it is the client's silence, not the provider's."""
    upstream.play(streamed(16))
    with asked(gateway, "stream", "lasting/any") as client:
        assert settled(upstream.wait_request().connection) < 16 * MiB, "it did not have to wait"
        time.sleep(1.0)
        answer = client.read()
    assert answer.ended and answer.body.endswith(DONE)
    assert answer.body.count(EVENT) == 16 * MiB // len(EVENTS) * 60
    assert gateway.record_of(answer)["outcome"] == "ok"


@pytest.mark.row(33)
def test_a_file_that_is_read_after_a_while_is_whole(gateway: Gateway, upstream: Upstream) -> None:
    size = 16 * MiB
    upstream.play(script(OCTETS.replace(b"%d" % (200 * MiB), b"%d" % size), Pour(b"x" * 65536, size // 65536)))
    with asked(gateway, "file") as client:
        settled(upstream.wait_request().connection)
        time.sleep(1.0)
        answer = client.read()
    assert answer.ended and len(answer.body) == size
    assert gateway.record_of(answer)["outcome"] == "ok"


@pytest.mark.row(33)
def test_a_write_that_stalls_ends_the_request(tight: Gateway, upstream: Upstream) -> None:
    """`server.write_timeout` after the client has last taken anything: its connection is cut, the provider's too."""
    upstream.play(streamed(200))
    mark = tight.mark()
    failures = tight.metric("llm_upstream_failures_total")
    with asked(tight, "stream") as client:
        connection = upstream.wait_request().connection
        settled(connection)
        assert connection.closed.wait(3), "nobody reads, and it goes on"
        record = tight.record_since(mark)
        assert (record["status"], record["outcome"], record["usage"]) == (499, "cancelled", "estimated"), record
        assert record["completion_tokens"] > 0, record
        answer = client.read()
        assert not answer.ended, "an answer that was cut looks whole"
    assert tight.metric("llm_upstream_failures_total") == failures, "the provider is blamed"
    tight.wait_metric(0, "llm_active_requests")


@pytest.mark.row(33)
def test_a_trickle_is_no_stall(tight: Gateway, upstream: Upstream) -> None:
    """Each read comes within `server.write_timeout`: slow is allowed, for longer than that in all."""
    upstream.play(streamed(12))
    with asked(tight, "stream") as client:
        answer = client.read_head()
        started = time.monotonic()
        while client.read_piece(answer):
            if len(answer.body) // MiB > (time.monotonic() - started) * 6:
                time.sleep(0.15)
        assert time.monotonic() - started > 1.5
    assert answer.body.endswith(DONE)
    assert tight.record_of(answer)["outcome"] == "ok"


@pytest.mark.row(33)
def test_slow_readers_do_not_slow_others_down(gateway: Gateway, upstream: Upstream) -> None:
    upstream.play(*(streamed(200) for _ in range(4)))
    idle = [asked(gateway, "stream") for _ in range(4)]
    upstream.wait_request(4)
    settled(upstream.requests[-1].connection)
    try:
        took = []
        for _ in range(20):
            upstream.play(streamed(0))
            started = time.monotonic()
            with asked(gateway, "stream") as client:
                assert client.read().ended
            took.append(time.monotonic() - started)
        assert sorted(took)[10] < 0.1, took
    finally:
        for client in idle:
            client.close()
    gateway.wait_metric(0, "llm_active_requests")
