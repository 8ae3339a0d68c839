"""The upstream finds the ends of requests, and writes the stream that the client expects."""

from __future__ import annotations

import json

import pytest

from bench import payload, streams, upstream
from bench.payload import Pace

_WITH_LENGTH = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
_CHUNKED = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
_BODILESS = b"GET /bench/stats HTTP/1.1\r\nHost: a\r\n\r\n"
_EMPTY_CHUNKED = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"


@pytest.mark.parametrize("request_bytes", [_WITH_LENGTH, _CHUNKED, _BODILESS, _EMPTY_CHUNKED])
def test_a_request_is_complete_at_its_last_byte_and_not_before(request_bytes):
    assert [upstream.request_length(request_bytes[:end]) for end in range(len(request_bytes))] == [None] * len(request_bytes)
    assert upstream.request_length(request_bytes) == len(request_bytes)
    assert upstream.request_length(request_bytes + b"POST") == len(request_bytes)


def test_a_length_in_the_body_is_not_the_length_of_the_body():
    request = b"POST / HTTP/1.1\r\ncontent-length: 22\r\n\r\n\r\ncontent-length: 9999\r\n"
    assert upstream.request_length(request) == len(request) - 2


@pytest.mark.parametrize("usage", [False, True])
def test_the_whole_stream_is_what_the_client_checks_for(usage):
    response = b"".join(upstream.stream_writes(20, usage))
    assert streams.check(response, 20) == (20, None)
    assert (b'"usage":{' in response) is usage


def test_every_chunk_after_the_first_text_is_a_write_of_its_own():
    writes = upstream.stream_writes(20, usage=False)
    assert [write.count(b"data: ") for write in writes] == [2] + [1] * 19


def test_sizes_are_those_of_real_traffic():
    assert 500 < len(payload.answer()) < 700
    assert all(200 < len(event) < 350 for event in payload.events(256, False))


@pytest.mark.parametrize("kib", [1, 32])
def test_a_request_body_has_about_the_size_asked_for(kib):
    body = payload.chat_body(kib * 1024)
    assert kib * 1024 <= len(body) < kib * 1024 + 64
    assert json.loads(body)["messages"][0]["role"] == "system"


def test_a_stream_request_tells_its_pace_and_whether_usage_is_wanted():
    asked = json.loads(payload.stream_body(1024, Pace(7, 3), usage=True))
    assert asked["metadata"] == {"bench_chunks": "7", "bench_interval_ms": "3"}
    assert (asked["stream"], asked["stream_options"]) == (True, {"include_usage": True})
    assert "stream_options" not in json.loads(payload.stream_body(1024, Pace(7, 3), usage=False))
