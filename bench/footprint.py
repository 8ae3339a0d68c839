"""What the gateway takes before it does anything: time to start, and memory idle and with streams open."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractContextManager

import uvloop

from bench import procfs, servers, streams
from bench.payload import Pace

OPEN_STREAMS = 1000
_HELD = Pace(chunks=200, interval_ms=500)  # slow and long: they all stay open while memory is read
_SETTLE_SECONDS = 2.0


def startup(bench: servers.Bench, upstream_port: int, times: int) -> list[float]:
    """Seconds from exec to the ready line, each time with a new process."""
    found = []
    for _ in range(times):
        began = time.monotonic()
        with servers.gateway(bench, upstream_port):
            found.append(time.monotonic() - began)
    return found


def memory(bench: servers.Bench, upstream_port: int) -> dict[str, dict[str, int]]:
    """Resident bytes of nginx and of the gateway: idle, and with 1,000 streams open that each had its first chunk."""
    started: list[AbstractContextManager[servers.Server]] = [
        servers.nginx(bench, upstream_port),
        servers.gateway(bench, upstream_port, pool=2 * OPEN_STREAMS),
    ]
    found = {}
    for starting in started:
        with starting as server:
            found[server.name] = _memory(server)
    return found


def _memory(server: servers.Server) -> dict[str, int]:
    streams.offer(server.stream_port, streams.Plan(streams=1, seconds=0.0, pace=Pace(4, 1)))  # what is loaded on first use
    idle = procfs.resident_bytes(server.pid)
    busy = uvloop.run(_with_streams(server))
    per_1000 = (busy - idle) * 1000 // OPEN_STREAMS
    return {"idle_bytes": idle, "open_streams": OPEN_STREAMS, "open_bytes": busy, "per_1000_streams_bytes": per_1000}


async def _with_streams(server: servers.Server) -> int:
    plan = streams.Plan(streams=OPEN_STREAMS, seconds=0.0, pace=_HELD)
    opened = await streams.open_streams(server.stream_port, plan)
    await asyncio.sleep(_SETTLE_SECONDS)
    resident = procfs.resident_bytes(server.pid)
    await opened.close()
    return resident
