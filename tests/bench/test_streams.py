"""A stream counts only when every chunk of it is right; a real stream over a real socket is."""

from __future__ import annotations

import asyncio

import pytest

from bench import payload, roundtrips, streams, upstream
from bench.payload import Pace
from bench.streams import Plan

_RIGHT = b"".join(upstream.stream_writes(4, usage=False))


def rechunked(content: bytes, size: int) -> bytes:
    """A response with the same content in other chunks, as a proxy may send it."""
    parts = [content[start : start + size] for start in range(0, len(content), size)]
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + b"".join(map(upstream.http_chunk, parts)) + b"0\r\n\r\n"


def content() -> bytes:
    return streams.dechunk(_RIGHT.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize("size", [1, 7, 100, 100_000])
def test_how_a_proxy_frames_its_chunks_does_not_matter(size):
    assert streams.check(rechunked(content(), size), 4) == (4, None)


def test_pings_between_events_are_let_pass():
    assert streams.check(rechunked(b": ping\n\n" + content(), 50), 4) == (4, None)


@pytest.mark.parametrize(
    ("name", "response", "fault"),
    [
        ("no [DONE]", rechunked(content().replace(b"data: [DONE]\n\n", b""), 50), "no [DONE]"),
        ("a chunk missing", rechunked(content().replace(payload.events(4, False)[1], b""), 50), "chunk 1 is"),
        ("the last missing", rechunked(content().replace(payload.events(4, False)[3], b""), 50), "3 of 4 chunks"),
        ("a chunk twice", rechunked(content().replace(payload.events(4, False)[2], payload.events(4, False)[2] * 2), 50), "chunk 3 is"),
        ("other text", rechunked(content().replace(payload.token(2).encode(), b"flood"), 50), "chunk 2 is"),
        ("an error event", rechunked(b'data: {"error":{"message":"cut"}}\n\ndata: [DONE]\n\n', 50), "error event"),
        ("not the end of the body", _RIGHT[:-5], "without its end"),
        ("broken framing", _RIGHT.replace(b"\r\n\r\n", b"\r\n\r\n1", 1), "another length"),
        ("an error status", b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 2\r\n\r\n{}", "answered"),
        ("nothing", b"", "answered"),
    ],
)
def test_what_is_wrong_is_said(name, response, fault):
    right, found = streams.check(response, 4)
    assert found is not None and fault in found, name
    assert right < 4


@pytest.fixture
async def listening():
    """The upstream's port and counts, served on this loop."""
    sent = upstream.Sent()
    server = await asyncio.get_running_loop().create_server(lambda: upstream.Connection(sent, {}), "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], sent
    server.close()
    await server.wait_closed()


async def test_client_and_upstream_count_the_same(listening):
    port, sent = listening
    plan = Plan(streams=3, seconds=0.0, pace=Pace(5, 1))
    exchanges = await streams.run(port, plan)
    assert [exchange.fault for exchange in exchanges] == [None] * 3
    assert (sum(exchange.chunks for exchange in exchanges), sent.streams, sent.chunks) == (15, 3, 15)
    assert all(0 < exchange.first_s <= exchange.total_s for exchange in exchanges)


async def test_streams_that_are_held_open_can_be_left(listening):
    port, sent = listening
    opened = await streams.open_streams(port, Plan(streams=3, seconds=0.0, pace=Pace(50, 1000)))
    assert (len(opened.clients), sent.chunks) == (3, 6)
    await opened.close()
    assert [task.result().fault is not None for task in opened.tasks] == [True] * 3


async def test_single_requests_are_timed_and_compared(listening):
    port, sent = listening
    found = await asyncio.to_thread(roundtrips.offer, {"direct": port, "again": port}, payload.chat_body(1024), 0.05)
    assert found["direct"].failed == 0
    assert sent.answers == len(found["direct"].seconds) + len(found["again"].seconds) > 0


def test_an_answer_is_right_when_its_json_is():
    answer = payload.answer()
    assert roundtrips.is_right(upstream.http_answer(answer))
    assert roundtrips.is_right(upstream.http_answer(answer.replace(b'":', b'": ', 1)))
    assert not roundtrips.is_right(upstream.http_answer(answer.replace(b"floodgate", b"gate")))
    assert not roundtrips.is_right(b"HTTP/1.1 502 Bad Gateway\r\n\r\n" + answer)


def test_a_response_ends_where_its_length_says():
    response = upstream.http_answer(b"{}")
    assert [roundtrips.response_length(response[:end]) for end in (0, 10)] == [None, None]
    assert roundtrips.response_length(response) == len(response)
    with pytest.raises(ValueError, match="without content-length"):
        roundtrips.response_length(b"HTTP/1.1 200 OK\r\n\r\n")
