"""Very many streams open at a time: what memory they take, and whether every one of them comes to its end.

Chunks come slowly, so that all streams are open together and nobody is short of time. The client keeps nothing of a stream but counts: of
its events, and of its bytes up to the end, which must be the upstream's.
"""

from __future__ import annotations

import asyncio
import re
import resource
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import cast

import uvloop

from bench import machine, payload, procfs, report, servers, slots, streams
from bench.payload import Pace

#: What a process needs beside its two connections for each stream: libraries, pipes, its loop, listening sockets, a few spare.
SPARE_FILES = 64

_EVENT = b"data: {"
_END = b"data: [DONE]\n\n\r\n0\r\n\r\n"
_OPENING = 200  # streams that are begun at a time
_READ_EVERY = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class Plan:
    """How many streams, how each comes, and in how many seconds they must all have begun and have ended."""

    streams: int
    pace: Pace = field(default_factory=lambda: Pace(chunks=10, interval_ms=5000))
    begin_seconds: float = 40.0
    end_seconds: float = 45.0


@dataclass(slots=True)
class Seen:
    """What the clients saw. `open` is how many streams have begun and not ended, `most` the most at a time; `faults` by what went wrong."""

    open: int = 0
    most: int = 0
    begun: int = 0
    whole: int = 0
    chunks: int = 0
    faults: Counter[str] = field(default_factory=Counter)


class Client(asyncio.Protocol):
    """One connection, one stream."""

    __slots__ = ("_chunks", "_ended", "_request", "_seen", "_state", "_tail", "_transport", "_wanted")

    def __init__(self, request: bytes, wanted: int, seen: Seen, ended: Callable[[], None]) -> None:
        self._request = request
        self._wanted = wanted
        self._seen = seen
        self._ended = ended
        self._chunks = 0
        self._tail = b""
        self._state = "asked"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._state == "asked":
            self._begin(data)
        joined = self._tail + data
        # An event's first bytes that are cut in two are counted with the second part; those in the tail have been counted.
        self._chunks += joined.count(_EVENT) - self._tail.count(_EVENT)
        self._tail = joined[-len(_END) :]
        if self._tail == _END:
            self._finish(None if self._chunks == self._wanted else f"{self._chunks} of {self._wanted} chunks")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._state != "ended":
            self._finish(f"cut after {self._chunks} chunks" if self._state == "open" else "refused")

    def _begin(self, data: bytes) -> None:
        if not data.startswith(b"HTTP/1.1 200 "):
            self._finish(f"answered {data[:60]!r}")
            self._transport.abort()
            return
        self._state = "open"
        seen = self._seen
        seen.begun += 1
        seen.open += 1
        seen.most = max(seen.most, seen.open)

    def _finish(self, fault: str | None) -> None:
        if self._state == "ended":
            return
        seen = self._seen
        seen.open -= self._state == "open"
        self._state = "ended"
        seen.chunks += self._chunks
        if fault is None:
            seen.whole += 1
        else:
            seen.faults[fault] += 1
        self._ended()
        if fault is None:
            self._transport.close()


@dataclass(frozen=True, slots=True)
class Found:
    """What a run found. Bytes are resident memory of the server; `recorded` is what its metrics count as answered with status 200."""

    asked: int
    seen: Seen
    sent_chunks: int
    recorded: int
    idle_bytes: int
    most_bytes: int
    begin_s: float
    total_s: float

    @property
    def per_stream_bytes(self) -> float:
        return (self.most_bytes - self.idle_bytes) / max(1, self.seen.most)

    @property
    def lost(self) -> list[str]:
        """What is missing, in words; empty when every stream came whole and was counted by all three."""
        streams_, seen = self.seen.whole, self.seen
        found = [f"{count} streams: {fault}" for fault, count in seen.faults.most_common(5)]
        if seen.most < self.asked:
            found.append(f"only {seen.most} of {self.asked} were open at a time")
        if seen.chunks != self.sent_chunks:
            found.append(f"{seen.chunks} of {self.sent_chunks} chunks that were sent have arrived")
        if self.recorded != streams_:
            found.append(f"{self.recorded} of {streams_} streams were counted by the server")
        return found


def document(found: Found, plan: Plan, wanted: int, date: datetime) -> report.Result:
    """The run as JSON. `wanted` is how many streams were asked for on the command line."""
    return {
        "schema": 1,
        "kind": "open_streams",
        "date": date.isoformat(timespec="seconds"),
        "machine": machine.description(),
        "versions": machine.versions(),
        "parameters": {"wanted": wanted, "file_limit": resource.getrlimit(resource.RLIMIT_NOFILE)[1], **asdict(plan)},
        "streams": {"most_open": found.seen.most, "whole": found.seen.whole, "recorded": found.recorded},
        "chunks": {"sent": found.sent_chunks, "arrived": found.seen.chunks},
        "seconds": {"to_begin_all": found.begin_s, "in_all": found.total_s},
        "memory": {"idle_bytes": found.idle_bytes, "most_bytes": found.most_bytes, "per_stream_bytes": round(found.per_stream_bytes)},
        "warnings": {"failed": found.lost},
    }


def table(result: report.Result) -> str:
    """The result for people."""
    streams_, memory, asked = result["streams"], result["memory"], result["parameters"]
    rows = [
        ["open at a time", f"{streams_['most_open']}"],
        ["came to their end, whole", f"{streams_['whole']}"],
        ["counted by the server", f"{streams_['recorded']}"],
        ["chunks sent, arrived", f"{result['chunks']['sent']}, {result['chunks']['arrived']}"],
        ["seconds until all had begun, in all", f"{result['seconds']['to_begin_all']:.1f}, {result['seconds']['in_all']:.1f}"],
        ["resident memory, idle", f"{memory['idle_bytes'] / 1e6:.1f} MB"],
        ["resident memory, at most", f"{memory['most_bytes'] / 1e6:.1f} MB"],
        ["for each stream", f"{memory['per_stream_bytes'] / 1e3:.1f} kB"],
    ]
    notes = [f"WRONG: {line}\n" for line in result["warnings"]["failed"]]
    if asked["streams"] < asked["wanted"]:
        notes.append(
            f"{asked['wanted']} were asked for: a limit of {asked['file_limit']} open files a process lets in {asked['streams']}\n"
        )
    return "\n".join([report.grid(["streams", "comporta"], rows), *notes])


def most_streams(asked: int) -> int:
    """As many of the streams that are asked for as this process's file limit lets one server hold: it needs two files for each."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(asked, (hard - SPARE_FILES) // 2)


def run(upstream: servers.Server, gateway: servers.Server, plan: Plan) -> Found:
    """Open all streams, read the server's memory while they are, wait for their ends. Raises TimeoutError when they begin late."""
    streams.offer(gateway.stream_port, streams.Plan(streams=1, seconds=0.0, pace=Pace(4, 1)))  # what is loaded on first use
    recorded, sent = answered(gateway), slots.sent(upstream)["chunks"]
    idle = procfs.resident_bytes(gateway.pid)
    seen, memory, begin_s, total_s = uvloop.run(_crowd(gateway, plan))
    return Found(
        asked=plan.streams,
        seen=seen,
        sent_chunks=slots.sent(upstream)["chunks"] - sent,
        recorded=answered(gateway) - recorded,
        idle_bytes=idle,
        most_bytes=max(memory, default=idle),
        begin_s=begin_s,
        total_s=total_s,
    )


async def _crowd(gateway: servers.Server, plan: Plan) -> tuple[Seen, list[int], float, float]:
    loop, seen, memory = asyncio.get_running_loop(), Seen(), list[int]()
    body = payload.stream_body(1024, plan.pace, usage=False)
    request = streams.http_request(gateway.stream_port, body)
    left, over = plan.streams, asyncio.Event()

    def ended() -> None:
        nonlocal left
        left -= 1
        if not left:
            over.set()

    def client() -> Client:
        return Client(request, plan.pace.chunks, seen, ended)

    began = time.monotonic()
    try:
        async with asyncio.timeout(plan.begin_seconds):
            for first in range(0, plan.streams, _OPENING):
                fresh = range(min(_OPENING, plan.streams - first))
                await asyncio.gather(*(loop.create_connection(client, "127.0.0.1", gateway.stream_port) for _ in fresh))
                while seen.begun + sum(seen.faults.values()) < first + len(fresh):
                    await asyncio.sleep(0.002)
    except TimeoutError:
        raise TimeoutError(
            f"{seen.begun} of {plan.streams} streams had begun after {plan.begin_seconds:.0f} s; {dict(seen.faults)}"
        ) from None
    begin_s = time.monotonic() - began
    end = time.monotonic() + plan.pace.seconds + plan.end_seconds
    while not over.is_set() and time.monotonic() < end:
        memory.append(procfs.resident_bytes(gateway.pid))
        try:
            await asyncio.wait_for(over.wait(), _READ_EVERY)
        except TimeoutError:
            continue
    if left:
        seen.faults["no end in time"] += left
    return seen, memory, begin_s, time.monotonic() - began


def answered(gateway: servers.Server) -> int:
    """Streams and requests that the server has counted as answered with status 200."""
    if gateway.admin_port is None:
        raise servers.ServerFailed(f"{gateway.name} has no admin port")
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.admin_port}/metrics", timeout=10) as response:
        text = response.read().decode()
    counts = re.findall(r'^llm_requests_total\{[^}]*status="200"[^}]*\} ([0-9.e+]+)$', text, re.MULTILINE)
    return round(sum(map(float, counts)))
