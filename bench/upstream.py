"""The upstream of a measurement: the cheapest server that answers chat completions, as JSON or as a paced stream.

`python -m bench.upstream --port N` (0: any free port) prints one JSON line when it listens. `GET /bench/stats` says what it has sent.
It reads as little of a request as it can: nothing here is a model for how to parse HTTP.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import sys
import time
from dataclasses import asdict, dataclass
from typing import cast

import uvloop

from bench import payload

_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:\s*chunked", re.IGNORECASE)
_STREAM = re.compile(rb'"stream"\s*:\s*true')
_USAGE = re.compile(rb'"include_usage"\s*:\s*true')
_CHUNKS = re.compile(rb'"bench_chunks"\s*:\s*"(\d+)"')
_INTERVAL = re.compile(rb'"bench_interval_ms"\s*:\s*"(\d+)"')
_LEAST = 0.001  # seconds between two writes of a stream: the resolution of the loop's timers
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\nx-request-id: req_bench\r\n\r\n"
)


@dataclass(slots=True)
class Sent:
    """What the upstream has sent since it started. `chunks` are content events; each but the first was a write of its own."""

    answers: int = 0
    streams: int = 0
    chunks: int = 0
    aborted: int = 0


def request_length(data: bytes | bytearray) -> int | None:
    """Bytes of the first request in `data`, head and body; None while it is incomplete."""
    head = data.find(b"\r\n\r\n")
    if head < 0:
        return None
    length = _LENGTH.search(data, 0, head + 2)
    if length is not None:
        end = head + 4 + int(length[1])
        return end if len(data) >= end else None
    if _CHUNKED.search(data, 0, head + 2):
        last = data.find(b"\r\n0\r\n\r\n", head + 2)
        return None if last < 0 else last + 7
    return head + 4


def http_answer(body: bytes) -> bytes:
    """A whole keep-alive JSON response."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_bench\r\ncontent-length: %d\r\n\r\n" % len(body)
    return head + body


def http_chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def stream_writes(chunks: int, usage: bool) -> list[bytes]:
    """What a stream writes, one entry per write: head, role and first text together, then event by event, then the end.

    The first text does not wait for a timer, so that the time to it is the proxy's and not the pace's. Usage comes with the end, so that a
    gateway that asks for it has no longer stream than a client that does not.
    """
    events = [http_chunk(event) for event in payload.events(chunks, usage)]
    writes = [_STREAM_HEAD + b"".join(events[:2]), *events[2:]]
    end = http_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    return [*writes, http_chunk(payload.usage_event(chunks)) + end if usage else end]


@dataclass(slots=True)
class _Flow:
    """One stream on its way: its writes, which of them is the last with a content event, and when the next is due."""

    writes: list[bytes]
    last_chunk: int
    interval: float
    due: float


class Connection(asyncio.Protocol):
    """One connection: requests one after the other, a JSON answer or a paced stream to each."""

    def __init__(self, sent: Sent, streams: dict[tuple[int, bool], list[bytes]]) -> None:
        self._sent = sent
        self._streams = streams
        self._answer = http_answer(payload.answer())
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, but does not derive from it

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._sent.aborted += 1

    def data_received(self, data: bytes) -> None:
        if not self._buffer and request_length(data) == len(data):
            self._serve(data)
            return
        self._buffer += data
        while (length := request_length(self._buffer)) is not None:
            request = bytes(self._buffer[:length])
            del self._buffer[:length]
            self._serve(request)

    def _serve(self, request: bytes) -> None:
        if request.startswith(b"GET /bench/stats"):
            self._transport.write(http_answer(json.dumps(asdict(self._sent)).encode()))
        elif _STREAM.search(request):
            self._stream(request)
        else:
            self._sent.answers += 1
            self._transport.write(self._answer)

    def _stream(self, request: bytes) -> None:
        chunks = int(found[1]) if (found := _CHUNKS.search(request)) else 256
        interval = int(found[1]) if (found := _INTERVAL.search(request)) else 8
        key = (chunks, _USAGE.search(request) is not None)
        writes = self._streams.get(key) or self._streams.setdefault(key, stream_writes(*key))
        self._sent.streams += 1
        self._next(_Flow(writes, chunks - 2, interval / 1000, time.monotonic()), 0)

    def _next(self, flow: _Flow, index: int) -> None:
        """Write one entry and set the timer for the next.

        The schedule is absolute, so that a stream's length does not depend on how late each timer is; but whoever is late by a whole
        interval does not catch up, for that would put two events into one read.
        """
        self._transport.write(flow.writes[index])
        if index <= flow.last_chunk:
            self._sent.chunks += 1 if index else 2  # the first write holds two
        index += 1
        if index == len(flow.writes):
            self._timer = None
            return
        now = time.monotonic()
        flow.due = max(flow.due + flow.interval, now + _LEAST)
        self._timer = self._loop.call_later(flow.due - now, self._next, flow, index)


async def serve(port: int) -> None:
    """Listen on loopback until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    sent, streams, stop = Sent(), dict[tuple[int, bool], list[bytes]](), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(lambda: Connection(sent, streams), "127.0.0.1", port, backlog=4096)
    address = server.sockets[0].getsockname()
    sys.stdout.write(json.dumps({"event": "ready", "pid": os.getpid(), "port": address[1]}) + "\n")
    sys.stdout.flush()
    await stop.wait()
    server.close()


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m bench.upstream", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=0)
    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
