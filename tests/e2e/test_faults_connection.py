"""Rows 1 to 5 of the fault matrix: no connection, or one that is lost before an answer."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest

from proxy.core.call import Timeouts
from proxy.core.errors import UpstreamError
from proxy.core.protocols import UpstreamRequest
from proxy.transport import PinnedResolver, PooledTransport
from proxy.transport.client import AT_ONCE
from tests.e2e.faults import FAILURES, check_ended_well, check_failed
from tests.support.gateway import Gateway, error_of
from tests.support.raw_client import ask, chat
from tests.support.script import CHAT, CHAT_STREAM, Fin, Reset, Send, Step, Wait, json_response, script, sliced
from tests.support.upstream import Upstream


# --------------------------------------------------------------------------------------------------------------------- rows 1 to 3: connect
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("provider", "status", "code", "attempts"),
    [
        pytest.param("refusing", 502, "connect_failed", 2, marks=pytest.mark.row(1)),
        pytest.param("nowhere", 502, "dns", 1, marks=pytest.mark.row(2)),
        pytest.param("babbling", 502, "tls", 1, marks=pytest.mark.row(3)),
        pytest.param("deaf", 504, "connect_timeout", 2, marks=pytest.mark.row(1)),
    ],
)
def test_no_connection(gateway: Gateway, provider: str, status: int, code: str, attempts: int, stream: bool) -> None:
    before = gateway.metric(FAILURES, provider=provider)
    answer = chat(gateway.url, f"{provider}/any", stream=stream)
    assert answer.status == status
    record = check_failed(gateway, answer, error_of(answer), status=status, codes=[code])
    assert record["usage"] == "none", record
    assert (record["provider"], record["attempts"]) == (provider, attempts)
    gateway.wait_metric(before + attempts, FAILURES, provider=provider)


UNKNOWN = socket.gaierror(socket.EAI_NONAME, "unknown")


@pytest.mark.row(2)
async def test_a_name_that_does_not_resolve_is_not_looked_up_for_each_request() -> None:
    """Nor by each of many at once; some seconds later it is, and then served."""
    looked_up: list[str] = []
    found: list[Any] = []

    async def lookup(host: str, port: int, **_options: Any) -> list[Any]:
        looked_up.append(host)
        await asyncio.sleep(0)
        if not found:
            raise UNKNOWN
        return found

    with Upstream(script(CHAT)) as upstream:
        transport = PooledTransport(
            f"http://api.example:{upstream.port}",
            connections=50,
            keep_alive=5,
            resolver=PinnedResolver(allow_private=True, lookup=lookup),
        )
        request = UpstreamRequest("POST", f"http://api.example:{upstream.port}/v1/chat/completions", {}, b"{}")
        for _ in range(3):
            failed = await asyncio.gather(*(transport.send(request, Timeouts()) for _ in range(20)), return_exceptions=True)
            assert {(type(error), getattr(error, "kind", None)) for error in failed} == {(UpstreamError, "dns")}
        assert len(looked_up) == 1
        found.append((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", upstream.port)))
        transport._dialler._addresses_until = 0.0  # the time that a failure is believed has passed
        answer = await transport.send(request, Timeouts())
        assert (answer.status, len(looked_up)) == (200, 2)
        answer.close()
        await transport.close()


@pytest.mark.row(1, 5)
@pytest.mark.parametrize("provider", ["slamming", "greeting"])
def test_a_server_that_does_not_wait_for_the_request(gateway: Gateway, provider: str) -> None:
    """It resets, or speaks, as soon as it has accepted: which comes before the request or after it, by chance."""
    for place in range(12):
        started = time.monotonic()
        answer = chat(gateway.url, f"{provider}/any", stream=place % 2 == 0)
        assert answer.status == 502, answer.body
        assert time.monotonic() - started < 1, "it was waited for"
        check_failed(gateway, answer, error_of(answer), status=502, codes=["reset", "bad_upstream", "connect_failed"])


# -------------------------------------------------------------------------------------------------------------------- rows 4 and 5: reset
@pytest.mark.row(4)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("at_head", [False, True])
def test_reset_on_a_reused_connection(gateway: Gateway, upstream: Upstream, stream: bool, at_head: bool) -> None:
    """It may have been closed while it lay idle: it is tried once more, on a connection that no one has used."""
    upstream.play(CHAT, script(Reset(), at_head=at_head), CHAT_STREAM if stream else CHAT)
    assert chat(gateway.url).status == 200
    before = gateway.metric(FAILURES, provider="up"), gateway.metric(FAILURES, provider="up", kind="stale_connection")
    answer = chat(gateway.url, stream=stream)
    assert answer.status == 200, answer.body
    reused, fresh = upstream.wait_request(2).connection, upstream.wait_request(3).connection
    assert reused.requests >= 2 and fresh.requests == 1
    record = gateway.record_of(answer)
    assert (record["status"], record["outcome"], record["attempts"], record["usage"]) == (200, "ok", 1, "reported"), record
    gateway.wait_metric(before[0] + 1, FAILURES, provider="up")
    gateway.wait_metric(before[1] + 1, FAILURES, provider="up", kind="stale_connection")


@pytest.mark.row(4)
@pytest.mark.parametrize("size", [0, 1], ids=["whole", "sliced"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_second_try_is_like_the_first(gateway: Gateway, upstream: Upstream, stream: bool, size: int) -> None:
    """The same request, byte for byte; its answer is read as any other."""
    upstream.play(CHAT, script(Reset()), sliced(script(CHAT_STREAM if stream else CHAT), size))
    assert chat(gateway.url).status == 200
    assert chat(gateway.url, stream=stream).status == 200
    first, second = upstream.requests[1:]
    assert (first.raw_head, first.body) == (second.raw_head, second.body)


def test_what_a_provider_may_have_done_is_not_asked_for_again_behind_the_clients_back(gateway: Gateway, upstream: Upstream) -> None:
    """It worked on the request, and then lost the kept connection: that is no connection that had been closed while it lay idle."""
    upstream.play(CHAT, script(Wait(AT_ONCE + 0.1), Reset()))
    assert chat(gateway.url).status == 200
    before = gateway.metric(FAILURES, provider="up", kind="reset")
    answer = ask(gateway.url, "POST", "/v1/batches", b'{"input_file_id":"f"}')
    assert (answer.status, error_of(answer)["code"]) == (502, "bad_upstream")
    assert len(upstream.requests) == 2, "it was asked for twice"
    assert gateway.record_of(answer)["attempts"] == 1
    gateway.wait_metric(before + 1, FAILURES, provider="up", kind="reset")


@pytest.mark.row(4, 5)
@pytest.mark.parametrize("stream", [False, True])
def test_two_resets_in_a_row(single: Gateway, upstream: Upstream, stream: bool) -> None:
    upstream.play(CHAT, script(Reset()), script(Reset()))
    assert chat(single.url).status == 200
    before = single.metric(FAILURES, provider="up")
    answer = chat(single.url, stream=stream)
    assert answer.status == 502
    record = check_failed(single, answer, error_of(answer), status=502, codes=["bad_upstream"])
    assert (record["usage"], record["prompt_tokens"] > 0) == ("estimated", True), "the provider may have worked on it, and charge for it"
    single.wait_metric(before + 2, FAILURES, provider="up")
    assert len(upstream.requests) == 3
    check_ended_well(single, upstream)


@pytest.mark.row(6)
@pytest.mark.parametrize("part", [b"H", b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nContent-Type: applica"], ids=["1", "11", "40"])
@pytest.mark.parametrize("ending", [Reset(), Fin()], ids=["reset", "closed"])
def test_an_answer_that_has_begun_is_not_asked_for_again(single: Gateway, upstream: Upstream, part: bytes, ending: Step) -> None:
    """The connection was alive, so the provider has worked on the request (and charges for it): only a retry policy may repeat that."""
    upstream.play(CHAT, script(part, ending))
    assert chat(single.url).status == 200
    answer = chat(single.url)
    assert len(upstream.requests) == 2, "it was asked for again"
    assert answer.status == 502, answer.body


@pytest.mark.row(6, cut="both")
@pytest.mark.parametrize("size", [0, 1, 50])
@pytest.mark.parametrize("surplus", [json_response(200, {"choices": [{"message": {"content": "stray"}}]}), b"\r\nstray", b"HTTP/1.1 200"])
@pytest.mark.parametrize("stream", [False, True])
def test_what_follows_an_answer_is_nobodys(gateway: Gateway, upstream: Upstream, surplus: bytes, size: int, stream: bool) -> None:
    upstream.play(script(Send((CHAT_STREAM if stream else CHAT) + surplus, size)))
    first = chat(gateway.url, stream=stream)
    assert first.status == 200
    assert b"stray" not in first.body
    assert upstream.requests[0].connection.closed.wait(1), "a connection with bytes that nobody asked for is kept"
    check_ended_well(gateway, upstream)


@pytest.mark.parametrize("answer", [CHAT, CHAT_STREAM], ids=["whole", "streamed"])
def test_a_connection_that_is_to_be_closed_is_not_used_again(gateway: Gateway, upstream: Upstream, answer: bytes) -> None:
    upstream.play(answer.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
    assert chat(gateway.url, stream=answer is CHAT_STREAM).status == 200
    assert upstream.requests[0].connection.closed.wait(2)
    check_ended_well(gateway, upstream)


@pytest.mark.row(4)
def test_an_idle_connection_that_was_closed_is_not_used(gateway: Gateway, upstream: Upstream) -> None:
    for _ in range(5):
        upstream.forget()
        upstream.play(script(CHAT, Fin()), CHAT)
        assert chat(gateway.url).status == 200
        assert upstream.wait_request().connection.closed.wait(2)
        assert chat(gateway.url).status == 200
