"""A client that leaves: its upstream request ends within 100 ms, everything is released, and one record says 499.

The time is from the client's `close()` to the upstream's side of the connection being seen to close, both in this process. What is
allowed beyond the 100 ms is for a busy machine.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import PATIENT
from tests.support.gateway import Gateway, Record, provider
from tests.support.raw_client import RawClient, chat, chat_body
from tests.support.script import (
    CHAT,
    CHAT_STREAM,
    Gate,
    Script,
    Send,
    Stall,
    Wait,
    chunk,
    delta,
    event,
    role_chunk,
    script,
    stream_head,
    usage,
)
from tests.support.upstream import Request, Upstream

PATH = "/v1/chat/completions"
ALLOWED = 0.1 + 0.25
BEGUN = stream_head() + b"".join(chunk(event(value)) for value in (role_chunk(), delta("Hello"), delta(" there")))
TOKENS = tuple(step for _ in range(400) for step in (Wait(0.01), Send(chunk(event(delta(" more"))))))

Leave = Callable[[RawClient], float]
pytestmark = pytest.mark.row(32)


def check_left(gateway: Gateway, request: Request, left: float, mark: int) -> Record:
    assert request.connection.closed.wait(3), "the upstream request goes on"
    assert request.connection.closed_at is not None
    took = request.connection.closed_at - left
    assert took < ALLOWED, f"it took {took * 1000:.0f} ms"
    record = gateway.record_since(mark)
    assert (record["status"], record["outcome"], record["operation"]) == (499, "cancelled", "chat"), record
    assert record["usage"] in ("reported", "estimated"), record
    assert record["prompt_tokens"] > 0, record
    gateway.wait_metric(0, "llm_active_requests")
    return record


@pytest.fixture(params=["closes", "resets"])
def leave(request: pytest.FixtureRequest) -> Leave:
    return RawClient.reset if request.param == "resets" else RawClient.close


@pytest.mark.parametrize(
    ("stream", "answer"),
    [
        (True, script(Stall())),
        (True, script(stream_head(), Stall())),
        (True, script(stream_head() + chunk(b": wait\n\n"), Stall())),
        (True, script(stream_head() + chunk(event(role_chunk())), Stall())),
        (False, script(Stall())),
        (False, script(CHAT[:20], Stall())),
        (False, script(CHAT[:-40], Stall())),
    ],
    ids=["streamed", "streamed-headers", "streamed-comment", "streamed-role", "whole", "whole-headers", "whole-half-a-body"],
)
def test_leaving_while_waiting(gateway: Gateway, upstream: Upstream, leave: Leave, stream: bool, answer: Script) -> None:
    upstream.play(answer)
    mark = gateway.mark()
    client = RawClient(gateway.url)
    client.send(client.request_bytes("POST", PATH, chat_body("patient/any", stream=stream)))
    request = upstream.wait_request()
    gateway.wait_metric(1, "llm_active_requests")
    record = check_left(gateway, request, leave(client), mark)
    assert record["usage"] == "estimated", record
    assert record["stream"] is stream, record
    assert record["provider"] == "patient", record


@pytest.mark.parametrize("then", ["silence", "tokens"])
def test_leaving_mid_stream(gateway: Gateway, upstream: Upstream, leave: Leave, then: str) -> None:
    upstream.play(script(BEGUN, Stall()) if then == "silence" else script(BEGUN, *TOKENS))
    mark = gateway.mark()
    client = RawClient(gateway.url)
    client.send(client.request_bytes("POST", PATH, chat_body("patient/any", stream=True)))
    client.read_until(client.read_head(), b" there")
    record = check_left(gateway, upstream.wait_request(), leave(client), mark)
    assert record["usage"] == "estimated", record
    assert record["completion_tokens"] > 0, record


def test_usage_that_was_reported_before_leaving_is_kept(gateway: Gateway, upstream: Upstream, leave: Leave) -> None:
    upstream.play(script(BEGUN + chunk(event({**delta(" you"), "usage": usage(11, 3)})), Stall()))
    mark = gateway.mark()
    client = RawClient(gateway.url)
    client.send(client.request_bytes("POST", PATH, chat_body("patient/any", stream=True)))
    client.read_until(client.read_head(), b" you")
    record = check_left(gateway, upstream.wait_request(), leave(client), mark)
    assert (record["usage"], record["prompt_tokens"], record["completion_tokens"]) == ("reported", 11, 3), record


def test_leaving_between_two_pings(tight: Gateway, upstream: Upstream) -> None:
    upstream.play(script(Stall()))
    mark = tight.mark()
    client = RawClient(tight.url)
    client.send(client.request_bytes("POST", PATH, chat_body("patient/any", stream=True)))
    client.read_until(client.read_head(), b": ping")
    check_left(tight, upstream.wait_request(), client.close(), mark)


def test_leaving_before_the_body_is_sent(gateway: Gateway, upstream: Upstream, leave: Leave) -> None:
    """Half a request: nothing reaches the upstream, and what is recorded of it is recorded once."""
    mark = gateway.mark()
    client = RawClient(gateway.url)
    client.send(client.request_bytes("POST", PATH, chat_body())[:-10])
    time.sleep(0.05)
    leave(client)
    record = gateway.record_since(mark)
    assert (record["status"], record["outcome"], record["usage"]) == (499, "cancelled", "none"), record
    gateway.wait_metric(0, "llm_active_requests")
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("behind", "leave"),
    [("forty", RawClient.reset), ("forty", RawClient.close), ("large", RawClient.reset)],
    ids=["forty more, resets", "forty more, closes", "a large one, resets"],
)
def test_leaving_with_more_requests_behind_than_are_read(gateway: Gateway, upstream: Upstream, behind: str, leave: Leave) -> None:
    upstream.play(script(Stall()))
    client = RawClient(gateway.url)
    asked = client.request_bytes("POST", PATH, chat_body("patient/any"))
    large = client.request_bytes("POST", PATH, chat_body("patient/any", padding="y" * 900_000))
    mark = gateway.mark()
    client.send(asked + (asked * 40 if behind == "forty" else large))
    request = upstream.wait_request()
    gateway.wait_metric(1, "llm_active_requests")
    time.sleep(0.1)
    left = leave(client)
    assert request.connection.closed.wait(3), "the upstream request goes on"
    assert (request.connection.closed_at or 0) - left < ALLOWED
    gateway.wait_record(lambda _: len(gateway.records) > mark)
    gateway.wait_metric(0, "llm_active_requests")
    assert {record["status"] for record in gateway.records[mark:]} == {499}


def test_leaving_an_upload_that_is_taken_slowly(tmp_path: Path) -> None:
    """Nothing is read from the client meanwhile. What is recorded is not the provider's doing."""
    with socket.create_server(("127.0.0.1", 0)) as slow:
        config = {
            "providers": {"slow": provider(f"http://127.0.0.1:{slow.getsockname()[1]}", timeouts=PATIENT)},
            "default_provider": "slow",
        }
        with Gateway(config, tmp_path) as gateway:
            client = RawClient(gateway.url, timeout=0.5)
            headers = {"Content-Type": "application/octet-stream", "Content-Length": "90000000"}
            client.send(client.request_bytes("POST", "/v1/files", headers=headers))
            with pytest.raises(TimeoutError):
                client.send(b"x" * 90_000_000)
            left = client.reset()
            record = gateway.wait_record(lambda _: True)
            assert time.monotonic() - left < ALLOWED
            assert (record["status"], record["error"]) == (499, "client_disconnected"), record


def test_a_client_that_had_its_answer_has_not_left(gateway: Gateway, upstream: Upstream, leave: Leave) -> None:
    for answer, stream in ((CHAT, False), (CHAT_STREAM, True)):
        upstream.play(answer)
        client = RawClient(gateway.url)
        got = client.ask("POST", PATH, chat_body(stream=stream))
        leave(client)
        record = gateway.record_of(got)
        assert (record["status"], record["outcome"], record["usage"]) == (200, "ok", "reported"), record


def test_one_that_leaves_does_not_disturb_another(gateway: Gateway, upstream: Upstream) -> None:
    """Two streams, one gone: the other is served to its end."""
    gate = threading.Event()
    ending = chunk(event(delta(finish="stop"))) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    upstream.play(script(BEGUN, Stall()), script(BEGUN, Gate(gate), ending))
    mark = gateway.mark()
    goes, stays = RawClient(gateway.url), RawClient(gateway.url)
    for count, client in enumerate((goes, stays), 1):
        client.send(client.request_bytes("POST", PATH, chat_body("patient/any", stream=True)))
        upstream.wait_request(count)
    client_answer = stays.read_head()
    stays.read_until(client_answer, b" there")
    goes.read_until(goes.read_head(), b" there")
    left = goes.close()
    assert upstream.requests[0].connection.closed.wait(3)
    assert (upstream.requests[0].connection.closed_at or 0) - left < ALLOWED
    assert gateway.record_since(mark)["status"] == 499
    gateway.wait_metric(1, "llm_active_requests")
    gate.set()
    while stays.read_piece(client_answer):
        pass
    stays.close()
    assert client_answer.events[-1] == "[DONE]"
    gateway.wait_metric(0, "llm_active_requests")


def test_many_that_leave_at_once(gateway: Gateway, upstream: Upstream) -> None:
    count = 40
    upstream.play(*(script(BEGUN, Stall()) if place % 2 else script(Stall()) for place in range(count)))
    mark = gateway.mark()
    clients = [RawClient(gateway.url) for _ in range(count)]
    for client in clients:
        client.send(client.request_bytes("POST", PATH, chat_body("patient/any", stream=True)))
    upstream.wait_request(count)
    gateway.wait_metric(count, "llm_active_requests")
    for client in clients:
        client.close()
    for request in upstream.requests:
        assert request.connection.closed.wait(3)
    gateway.wait_metric(0, "llm_active_requests")

    def left() -> list[int]:  # a line of the test before may have been written since the mark
        return [record["status"] for record in gateway.records[mark:] if record["provider"] == "patient"]

    gateway.wait_record(lambda _: len(left()) >= count)
    assert left() == [499] * count
    upstream.play(CHAT)
    assert chat(gateway.url).status == 200
