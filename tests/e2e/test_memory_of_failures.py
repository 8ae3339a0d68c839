"""What a failed answer held is free when its request is over, and not when the garbage collector happens to come by."""

from __future__ import annotations

import json
import time

import pytest

from tests.support.gateway import Gateway
from tests.support.raw_client import ask, chat
from tests.support.script import Pour, Reset, Script, Step, delta, event, head, script, sse, stream_head
from tests.support.upstream import Upstream

MiB = 1024 * 1024

#: What each answer is of, in chunks of a MiB.
SIZE = 24
FAILURES = 5

#: An answer or two may be held while its request ends.
FLAT = 2.5 * SIZE * MiB

CHUNKED = head(200, [("Content-Type", "application/json"), ("Transfer-Encoding", "chunked")])
PAGE = head(200, [("Content-Type", "text/html"), ("Transfer-Encoding", "chunked")])


def chunk_of(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def big(start: bytes, piece: bytes, *end: Step | bytes) -> Script:
    return script(start, Pour(chunk_of(piece), SIZE), *end)


#: A request's own body is held by what failed, too.
LONG = "x" * 900_000
REQUESTS = 60

LATE = {
    "an error event": ("/v1/chat/completions", "messages", sse([event(delta("a")), event({"error": {"message": "m"}})], done=False)),
    "a failed response": (
        "/v1/responses",
        "input",
        sse([event({"type": "response.output_text.delta", "delta": "a"}), event({"type": "error", "message": "m"})], done=False),
    ),
}

SPACES = b" " * MiB
BROKEN = {
    "no JSON": big(CHUNKED, SPACES, chunk_of(b"{"), b"0\r\n\r\n"),
    "cut": big(CHUNKED, SPACES, Reset()),
    "a page": big(PAGE, SPACES, b"0\r\n\r\n"),
    "events without content": big(stream_head(), b'data: {"choices":[],"pad":"%b"}\n\n' % (b"x" * MiB), b"0\r\n\r\n"),
}


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("retried", [False, True], ids=["asked once", "asked twice"])
def test_a_failed_answer_is_not_kept(single: Gateway, gateway: Gateway, upstream: Upstream, what: str, retried: bool) -> None:
    asked = gateway if retried else single
    stream = what == "events without content"
    before = asked.memory()
    for _ in range(FAILURES):
        upstream.play(*[BROKEN[what]] * (2 if retried else 1))
        assert chat(asked.url, stream=stream).status == 502
    assert_flat(asked, before)


@pytest.mark.parametrize("what", LATE)
def test_a_stream_that_failed_later_is_not_kept_with_its_request(single: Gateway, upstream: Upstream, what: str) -> None:
    path, member, answer = LATE[what]
    body = json.dumps({"model": "test-model", member: [{"role": "user", "content": LONG}], "stream": True}).encode()
    before = single.memory()
    for _ in range(REQUESTS):
        upstream.play(script(answer))
        assert b"error" in ask(single.url, "POST", path, body).body
    assert_flat(single, before)


def assert_flat(asked: Gateway, before: int) -> None:
    ends = time.monotonic() + 5
    while asked.memory() - before > FLAT and time.monotonic() < ends:
        time.sleep(0.02)
    assert asked.memory() - before < FLAT
