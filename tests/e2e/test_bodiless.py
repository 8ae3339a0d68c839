"""Answers that have no body: to HEAD, and a provider's 204. What else went out would be taken for the connection's next answer."""

from __future__ import annotations

import threading

import pytest

from tests.support.gateway import Gateway
from tests.support.raw_client import RawClient, chat_body
from tests.support.script import (
    CHAT,
    LAST_CHUNK,
    Gate,
    Script,
    Stall,
    Wait,
    chunk,
    completion,
    event,
    head,
    response,
    script,
    stream_head,
)
from tests.support.upstream import Upstream

CHUNKED = head(200, [("content-type", "application/json"), ("transfer-encoding", "chunked")])

#: A file whose content is an answer, with one byte before it, so that a body that is cut after its first piece begins a second answer.
FORGED = response(200, b'{"forged": true}')
HOSTILE = head(200, [("content-type", "application/octet-stream"), ("content-length", str(1 + len(FORGED)))])


def check_in_step(client: RawClient, gateway: Gateway, upstream: Upstream) -> None:
    """The connection goes on, and what it carries next is the next request's own."""
    upstream.play(CHAT)
    answer = client.ask("POST", "/v1/chat/completions", chat_body())
    assert (answer.status, answer.json(), answer.ended) == (200, completion(), True)
    assert client.received.endswith(answer.body)


@pytest.mark.parametrize(
    ("file", "length"),
    [
        (script(response(200, b'{"object":"list"}')), "17"),
        (script(CHUNKED, chunk(b'{"object":"list"}'), LAST_CHUNK), None),
        (script(HOSTILE, b"a", Wait(0.05), FORGED), str(1 + len(FORGED))),
        (script(HOSTILE, b"a", Stall()), str(1 + len(FORGED))),
        (script(stream_head(), chunk(event({"n": 1})), Wait(0.05), chunk(event({"n": 2})), LAST_CHUNK), None),
    ],
    ids=["whole", "chunked", "a body that is a forged answer", "a body that never ends", "events"],
)
def test_a_head_of_what_is_passed_through_is_a_head_alone(gateway: Gateway, upstream: Upstream, file: Script, length: str | None) -> None:
    upstream.play(file)
    with RawClient(gateway.url) as client:
        answer = client.ask("HEAD", "/v1/files/file-1/content")
        assert (answer.status, answer.header("content-length")) == (200, length)
        assert answer.header("transfer-encoding") is None
        assert answer.header("connection") is None
        record = gateway.record_of(answer)
        assert (record["status"], record["outcome"], record["bytes_out"]) == (200, "ok", 0)
        check_in_step(client, gateway, upstream)
    upstream.hang_up()


def test_what_a_head_has_left_unread_is_no_later_answer(gateway: Gateway, upstream: Upstream) -> None:
    """The provider's connection is used again only once its body's end has come by."""
    upstream.hang_up()
    rest = threading.Event()
    upstream.play(script(HOSTILE, b"a", Gate(rest), FORGED))
    with RawClient(gateway.url) as client:
        assert client.ask("HEAD", "/v1/files/file-1/content").status == 200
        for _ in range(3):
            check_in_step(client, gateway, upstream)
            rest.set()
        assert upstream.requests[1].connection.number != upstream.requests[0].connection.number


@pytest.mark.parametrize("fields", [(), (("content-type", "application/json"),)], ids=["bare", "with a type"])
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_a_providers_204_is_a_head_without_framing(
    gateway: Gateway, upstream: Upstream, fields: tuple[tuple[str, str], ...], version: str
) -> None:
    upstream.play(head(204, fields, "No Content"))
    with RawClient(gateway.url) as client:
        keep = [("Connection", "keep-alive")] if version == "HTTP/1.0" else []
        answer = client.ask("DELETE", "/v1/files/file-1", headers=keep, version=version)
        assert answer.status == 204
        assert (answer.header("transfer-encoding"), answer.header("content-length")) == (None, None)
        check_in_step(client, gateway, upstream)


@pytest.mark.parametrize("first", [head(100), head(103, [("link", "</a>")])], ids=["100", "103"])
def test_what_a_provider_says_before_its_answer_stays_here(gateway: Gateway, upstream: Upstream, first: bytes) -> None:
    upstream.play(script(first, Wait(0.02), head(204)))
    with RawClient(gateway.url) as client:
        answer = client.ask("DELETE", "/v1/files/file-1")
        assert (answer.status, answer.header("link")) == (204, None)
        check_in_step(client, gateway, upstream)


@pytest.mark.parametrize(("status", "attempts"), [(101, 2), (304, 1)])
def test_a_status_without_a_body_that_answers_nothing_is_the_providers_failure(
    gateway: Gateway, upstream: Upstream, status: int, attempts: int
) -> None:
    upstream.play(*[head(status, [("etag", "a")])] * attempts)
    with RawClient(gateway.url) as client:
        answer = client.ask("GET", "/v1/files/file-1")
        assert (answer.status, answer.json()["error"]["code"]) == (502, "bad_upstream")
        check_in_step(client, gateway, upstream)
