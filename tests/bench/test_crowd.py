"""Every stream of a crowd is counted: by its client, by the upstream, by the server."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from bench import crowd, upstream
from bench.crowd import Client, Found, Seen


class Wire(asyncio.Transport):
    """Keeps what was written, and whether it was closed."""

    def __init__(self):
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data):
        self.written += data

    def close(self):
        self.closed = True

    abort = close


def client(wanted=4):
    seen, over = Seen(), []
    made = Client(b"request", wanted, seen, lambda: over.append(True))
    made.connection_made(Wire())
    return made, seen, over


STREAM = b"".join(upstream.stream_writes(4, usage=False))


@pytest.mark.parametrize("size", [1, 2, 7, 100, 10_000])
def test_chunks_are_counted_however_they_are_cut(size):
    made, seen, over = client()
    first = STREAM.index(b"\r\n\r\n")
    parts = [STREAM[:first], *(STREAM[start : start + size] for start in range(first, len(STREAM), size))]
    for part in parts:
        made.data_received(part)
    assert (seen.begun, seen.most, seen.open, seen.whole, seen.chunks, over) == (1, 1, 0, 1, 4, [True])
    assert not seen.faults


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (STREAM[:-60], "cut after 4 chunks"),
        (b"HTTP/1.1 503 Busy\r\n\r\n", "answered b'HTTP/1.1 503 Busy"),
        (b"", "refused"),
        (STREAM.replace(b"data: {", b"data: [", 1), "3 of 4 chunks"),
    ],
)
def test_a_stream_that_is_not_whole_is_named(data, fault):
    made, seen, over = client()
    if data:
        made.data_received(data)
    made.connection_lost(None)
    assert seen.whole == 0
    assert [name[: len(fault)] for name in seen.faults] == [fault]
    assert (seen.open, over) == (0, [True])


def found(**changed):
    seen = Seen(most=2, begun=2, whole=2, chunks=20)
    whole = Found(asked=2, seen=seen, sent_chunks=20, recorded=2, idle_bytes=10, most_bytes=50, begin_s=1.0, total_s=2.0)
    return replace(whole, **changed)


def test_nothing_is_lost_when_all_three_count_the_same():
    assert found().lost == []
    assert found().per_stream_bytes == 20


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"asked": 3}, "only 2 of 3"),
        ({"sent_chunks": 21}, "20 of 21 chunks"),
        ({"recorded": 1}, "1 of 2 streams were counted"),
    ],
)
def test_each_way_to_lose_is_told(changed, said):
    assert any(line.startswith(said) for line in found(**changed).lost)


def test_no_more_streams_are_asked_for_than_files_allow():
    assert crowd.most_streams(10) == 10
    assert crowd.most_streams(10**9) < 10**9
