"""Waiting and time: pings, the client's deadline; and old HTTP on either side."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.request

import pytest

from tests.support.gateway import Gateway, error_of, stream_error_of
from tests.support.raw_client import RawClient, ask, chat, chat_body
from tests.support.script import (
    CHAT,
    CHAT_STREAM,
    DONE,
    LAST_CHUNK,
    Fin,
    Gate,
    Reset,
    Send,
    Stall,
    Wait,
    chat_chunks,
    chunk,
    completion,
    delta,
    event,
    head,
    response,
    role_chunk,
    script,
    stream_head,
    usage_chunk,
)
from tests.support.upstream import Upstream

PATH = "/v1/chat/completions"


# ------------------------------------------------------------------------------------------------------------------------- waiting and time
def test_pings_while_waiting_and_in_between(tight: Gateway, upstream: Upstream) -> None:
    events = chat_chunks(used=None)
    steps = (Wait(1.0), stream_head() + chunk(events[0] + events[1]), Wait(1.0), b"".join(map(chunk, [*events[2:], DONE])) + LAST_CHUNK)
    upstream.play(script(*steps))
    started = time.monotonic()
    answer = chat(tight.url, "patient/any", stream=True)
    assert answer.status == 200 and answer.ended
    pings = [at - started for at, piece in answer.pieces if piece.startswith(b": ping")]
    content = next(at - started for at, piece in answer.pieces if piece.startswith(b"data:"))
    assert 0.25 < pings[0] < 0.6, pings
    assert len([at for at in pings if at < content]) in (2, 3), pings
    assert len([at for at in pings if at > content]) in (2, 3), pings
    assert answer.body.replace(b": ping\n\n", b"") == b"".join(events) + DONE
    assert tight.record_of(answer)["outcome"] == "ok"


def test_a_subscription_begins_before_its_first_event_and_is_pinged(tight: Gateway, upstream: Upstream) -> None:
    """An agent's session is subscribed to before it is told to do anything; what is told to it only then is what brings events."""
    told = threading.Event()
    events = [
        b'event: error\ndata: {"type":"error","event_id":"e1","error":{"type":"server_error","message":"m"}}\n\n',
        b'event: agent.session.idle\ndata: {"type":"agent.session.idle","event_id":"e2"}\n\n',
    ]
    upstream.play(script(stream_head(), Gate(told), *map(chunk, events), LAST_CHUNK))
    with urllib.request.urlopen(f"{tight.url}/v1/agents/sessions/s1/events", timeout=5) as answer:
        assert answer.status == 200
        assert answer.readline() == b": ping\n"
        told.set()
        assert answer.read().replace(b": ping\n\n", b"").lstrip() == b"".join(events)


def test_a_stored_response_is_pinged_while_it_stands_still(tight: Gateway, upstream: Upstream) -> None:
    first, last = (
        b'event: response.%b\ndata: {"type":"response.%b","response":{}}\n\n' % (kind, kind) for kind in (b"queued", b"completed")
    )
    upstream.play(script(stream_head() + chunk(first), Wait(0.7), chunk(last) + LAST_CHUNK))
    with RawClient(tight.url) as client:
        answer = client.ask("GET", "/v1/responses/resp_1?stream=true")
    assert answer.body in (first + b": ping\n\n" * count + last for count in (1, 2))


@pytest.mark.parametrize("path", ["/v1/responses/resp_1?stream=true", "/v1/agents/sessions/s1/events"])
def test_a_stream_of_named_events_that_a_get_asked_for_breaks_with_a_named_one(tight: Gateway, upstream: Upstream, path: str) -> None:
    upstream.play(script(stream_head() + chunk(b'event: x\ndata: {"type":"x","sequence_number":4}\n\n'), Reset()))
    last = ask(tight.url, "GET", path).body.split(b"\n\n")[1]
    name, _, data = last.partition(b"\ndata: ")
    assert (name, json.loads(data)["type"], json.loads(data)["sequence_number"]) == (b"event: error", "error", 5)
    assert json.loads(data)["error"]["code"] == "stream_interrupted"


def test_no_pings_while_events_come(tight: Gateway, upstream: Upstream) -> None:
    more = [step for _ in range(12) for step in (Wait(0.1), Send(chunk(event(delta(" more")))))]
    upstream.play(script(stream_head() + chunk(event(role_chunk())), *more, chunk(event(delta(finish="stop"))) + chunk(DONE) + LAST_CHUNK))
    assert b": ping" not in chat(tight.url, "patient/any", stream=True).body


def test_no_pings_into_a_json_answer(tight: Gateway, upstream: Upstream) -> None:
    upstream.play(script(Wait(0.8), CHAT))
    answer = chat(tight.url, "patient/any")
    assert (answer.status, answer.json()) == (200, completion())


def test_a_failure_after_a_ping_is_told_in_the_stream(tight: Gateway, upstream: Upstream) -> None:
    """The status is out with the first ping; what fails after it can only be an event."""
    upstream.play(script(Stall()))
    with RawClient(tight.url) as client:
        answer = client.ask("POST", PATH, chat_body("hasty/any", stream=True))
        assert client.is_closed()
    assert answer.body.startswith(b": ping\n\n")
    assert stream_error_of(answer)["code"] == "upstream_timeout"
    record = tight.record_of(answer)
    assert (record["status"], record["outcome"], record["error"]) == (504, "upstream_error", "upstream_timeout"), record


@pytest.mark.parametrize("stream", [False, True])
def test_the_clients_own_deadline(gateway: Gateway, upstream: Upstream, stream: bool) -> None:
    upstream.play(script(Stall()))
    started = time.monotonic()
    answer = chat(gateway.url, "patient/any", stream=stream, headers={"x-stainless-read-timeout": "0.6"})
    took = time.monotonic() - started
    assert answer.status == 504, answer.body
    assert error_of(answer)["code"] == "deadline_exceeded"
    assert took < 1.2, took
    assert upstream.requests[0].connection.closed.wait(1)
    assert upstream.requests[0].header("x-stainless-read-timeout") in (None, "0.6")


@pytest.mark.parametrize("value", ["600", "NaN", "-1", "0", "soon", "1e400", ""])
def test_a_deadline_that_is_far_or_none_changes_nothing(gateway: Gateway, upstream: Upstream, value: str) -> None:
    upstream.play(script(Wait(0.1), CHAT))
    assert chat(gateway.url, headers={"x-stainless-read-timeout": value}).status == 200


# --------------------------------------------------------------------------------------------------------------------------------- old HTTP
def test_http_1_0(gateway: Gateway, upstream: Upstream) -> None:
    upstream.play(CHAT)
    with RawClient(gateway.url) as client:
        answer = client.ask("POST", PATH, chat_body(), version="HTTP/1.0")
        assert client.is_closed()
    assert (answer.status, answer.json()) == (200, completion())
    assert answer.header("transfer-encoding") is None


def test_http_1_0_streamed(gateway: Gateway, upstream: Upstream) -> None:
    upstream.play(CHAT_STREAM)
    with RawClient(gateway.url) as client:
        answer = client.ask("POST", PATH, chat_body(stream=True), version="HTTP/1.0")
        assert client.is_closed()
    assert answer.status == 200
    assert answer.header("transfer-encoding") is None
    assert answer.body == b"".join(chat_chunks(used=None)) + DONE


@pytest.mark.parametrize("ends", [Fin(), Reset(), Stall()], ids=["ended", "reset", "silent"])
@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
def test_sound_that_breaks_off_is_no_whole_one_to_an_old_client_either(
    tight: Gateway, upstream: Upstream, version: str, ends: Fin | Reset | Stall
) -> None:
    """What only the close ends must not be closed then."""
    sound = head(200, [("Content-Type", "audio/mpeg"), ("Transfer-Encoding", "chunked")]) + chunk(b"d" * 5000)
    upstream.play(script(sound, LAST_CHUNK), script(sound, Wait(0.05), ends))
    endings = []
    for _ in range(2):
        with RawClient(tight.url) as client:
            body = b'{"model": "hasty/any", "input": "x", "voice": "alloy"}'
            client.send(client.request_bytes("POST", "/v1/audio/speech", body, {"Connection": "close"}, version=version))
            endings.append(_ending(client.socket))
    last = LAST_CHUNK if version == "HTTP/1.1" else b"d"
    assert endings[0][0].endswith(last) and endings[0][1] == "closed"
    assert b"d" * 5000 in endings[1][0]
    assert endings[1][1] == "reset" or not endings[1][0].endswith(last)


def _ending(connection: socket.socket) -> tuple[bytes, str]:
    """What still comes, and how it ends."""
    received = b""
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionResetError:
        return received, "reset"
    return received, "closed"


def test_connection_close_is_heeded(gateway: Gateway, upstream: Upstream) -> None:
    upstream.play(CHAT, CHAT_STREAM)
    for stream in (False, True):
        with RawClient(gateway.url) as client:
            answer = client.ask("POST", PATH, chat_body(stream=stream), headers={"Connection": "close"})
            assert answer.status == 200 and answer.ended
            assert client.is_closed()


def test_a_connection_serves_many_requests(gateway: Gateway, upstream: Upstream) -> None:
    upstream.play(CHAT, CHAT_STREAM, CHAT)
    with RawClient(gateway.url) as client:
        for stream in (False, True, False):
            assert client.ask("POST", PATH, chat_body(stream=stream)).status == 200
        assert client.ask("GET", "/v1/models").status == 200
    assert len({request.connection.number for request in upstream.requests}) == 1, "the pool did not give back its connection"


def test_an_upstream_of_http_1_0(gateway: Gateway, upstream: Upstream) -> None:
    plain = json.dumps(completion()).encode()
    upstream.play(script(head(200, [("Content-Type", "application/json")]).replace(b"HTTP/1.1", b"HTTP/1.0", 1) + plain, Fin()))
    answer = chat(gateway.url)
    assert (answer.status, answer.body) == (200, plain)


def test_interim_answers_of_an_upstream_are_skipped(gateway: Gateway, upstream: Upstream) -> None:
    upstream.play(b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n" + CHAT)
    assert chat(gateway.url).status == 200


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(single: Gateway, upstream: Upstream, status: int) -> None:
    upstream.play(response(status, b"", "text/plain", [("Location", f"http://127.0.0.1:{upstream.port}/v1/elsewhere")]))
    answer = chat(single.url)
    assert answer.status == 502, (answer.status, answer.headers)
    error_of(answer)
    assert answer.header("location") is None
    assert len(upstream.requests) == 1


def test_usage_that_was_asked_for_comes_last(gateway: Gateway, upstream: Upstream) -> None:
    upstream.play(CHAT_STREAM)
    body = chat_body(stream=True, stream_options={"include_usage": True})
    answer = ask(gateway.url, "POST", PATH, body)
    assert answer.values[-1] == usage_chunk(7, 3)
    assert answer.events[-1] == "[DONE]"
