"""The slots of a round: what is offered to each server, and what its process spent meanwhile."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from bench import payload, procfs, roundtrips, streams, wrk
from bench.payload import Pace
from bench.ratios import Sample, percentile
from bench.servers import Bench, Server

DIRECT = "direct"
LATENCY = "latency"
CHUNK = "chunk"


class WrongAnswer(RuntimeError):
    """A server does not answer as the upstream does; measuring it would be pointless."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a run does. `seconds` is the length of a slot; `usage`: whether streaming clients ask for usage."""

    rounds: int
    seconds: int
    connections: int
    bodies_kib: tuple[int, ...]
    streams: int
    pace: Pace
    usage: bool


@dataclass(frozen=True, slots=True)
class Stage:
    """All that runs: the upstream (measured as `direct`, for latencies), the servers under test, and where progress is told."""

    bench: Bench
    upstream: Server
    servers: tuple[Server, ...]
    parameters: Parameters
    tell: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Clocks:
    """Readings of everything that a slot is charged by."""

    wall_s: float
    cpu_s: float
    kernel_s: float
    upstream_s: float
    core_s: float
    sent: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What the load generator counted, and the slot's own figures."""

    count: int
    failed: int
    figures: dict[str, float]


def request_measure(kib: int) -> str:
    """The name of the slot with bodies of that size."""
    return f"request_{kib}k"


def order(servers: tuple[Server, ...], number: int) -> tuple[Server, ...]:
    """Turned every other round, so that a steady drift of the machine falls on each alike."""
    return servers if number % 2 == 0 else servers[::-1]


def run(stage: Stage) -> list[Sample]:
    """Check, warm up, and measure all rounds."""
    everyone = (stage.upstream, *stage.servers)
    bodies = _write_bodies(stage)
    for server in everyone:
        check(server)
    short = replace(stage, parameters=replace(stage.parameters, seconds=1, pace=Pace(32, stage.parameters.pace.interval_ms)))
    for server in stage.servers:  # pools filled, code warm; not kept
        _requests(short, server, 0, next(iter(bodies.items())))
        _streams(short, server, 0)
    samples = []
    for number in range(stage.parameters.rounds):
        for body in bodies.items():
            samples += [_requests(stage, server, number, body) for server in order(stage.servers, number)]
        samples += _latencies(stage, number)
        samples += [_streams(stage, server, number) for server in order(everyone, number)]
        stage.tell(f"round {number + 1} of {stage.parameters.rounds}")
    return samples


def check(server: Server) -> None:
    """One request: the answer is the upstream's. Raises WrongAnswer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    headers = {"content-type": "application/json", "authorization": "Bearer sk-bench"}
    try:
        connection.request("POST", payload.PATH, payload.chat_body(1024), headers)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise WrongAnswer(f"{server.name} does not answer: {error}") from error
    finally:
        connection.close()
    if response.status != 200 or json.loads(body) != json.loads(payload.answer()):
        raise WrongAnswer(f"{server.name} answers {response.status} {body[:300]!r}")


def _write_bodies(stage: Stage) -> dict[str, Path]:
    found = {}
    for kib in stage.parameters.bodies_kib:
        path = stage.bench.directory / f"body-{kib}k.json"
        path.write_bytes(payload.chat_body(kib * 1024))
        found[request_measure(kib)] = path
    return found


def _requests(stage: Stage, server: Server, number: int, body: tuple[str, Path]) -> Sample:
    before = _read(stage, server)
    load = wrk.offer(server.port, body[1], connections=stage.parameters.connections, seconds=stage.parameters.seconds)
    after = _read(stage, server)
    missing = max(0, load.answered - (after.sent["answers"] - before.sent["answers"]))  # answered by somebody else than the upstream
    figures = {"p50_ms": load.p50_ms, "p99_ms": load.p99_ms, "bytes": load.bytes}
    return _sample((before, after), number, body[0], server, _Outcome(load.answered, load.failed + missing, figures))


def _latencies(stage: Stage, number: int) -> list[Sample]:
    """All servers in one slot, request by request in turn; nobody's CPU is charged here."""
    everyone = order((stage.upstream, *stage.servers), number)
    ports = {server.name: server.port for server in everyone}
    body = payload.chat_body(stage.parameters.bodies_kib[0] * 1024)
    before = _read(stage, stage.upstream)
    try:
        trips = roundtrips.offer(ports, body, stage.parameters.seconds)
    except ValueError as error:
        raise WrongAnswer(str(error)) from error
    after = _read(stage, stage.upstream)
    return [
        replace(_sample((before, after), number, LATENCY, stage.upstream, _trip_outcome(found)), server=name)
        for name, found in trips.items()
    ]


def _trip_outcome(trips: roundtrips.Trips) -> _Outcome:
    taken = [seconds * 1000 for seconds in trips.seconds]
    figures = {"p50_ms": percentile(taken, 0.5), "p99_ms": percentile(taken, 0.99)} if taken else {}
    return _Outcome(len(taken), trips.failed, figures)


def _streams(stage: Stage, server: Server, number: int) -> Sample:
    chosen = stage.parameters
    plan = streams.Plan(streams=chosen.streams, seconds=chosen.seconds, pace=chosen.pace, usage=chosen.usage)
    before = _read(stage, server)
    exchanges = streams.offer(server.stream_port, plan)
    after = _read(stage, server)
    good = [exchange for exchange in exchanges if exchange.fault is None]
    for fault in {exchange.fault for exchange in exchanges if exchange.fault is not None}:
        stage.tell(f"{server.name}: a stream went wrong: {fault}")
    chunks = sum(exchange.chunks for exchange in good)
    lost = abs(after.sent["chunks"] - before.sent["chunks"] - sum(exchange.chunks for exchange in exchanges))
    failed = max(len(exchanges) - len(good), int(lost > 0))
    return _sample((before, after), number, CHUNK, server, _Outcome(chunks, failed, _stream_figures(good, chunks)))


def _stream_figures(good: list[streams.Exchange], chunks: int) -> dict[str, float]:
    """Latencies in ms, and reads per chunk: near 1 (and a little above, for the ends) when chunks came one by one."""
    if not good:
        return {}
    first = [exchange.first_s * 1000 for exchange in good]
    total = [exchange.total_s * 1000 for exchange in good]
    return {
        "first_p50_ms": percentile(first, 0.5),
        "first_p99_ms": percentile(first, 0.99),
        "total_p50_ms": percentile(total, 0.5),
        "total_p99_ms": percentile(total, 0.99),
        "reads_per_chunk": sum(exchange.reads for exchange in good) / chunks,
        "streams": len(good),
    }


def sent(upstream: Server) -> dict[str, int]:
    """What the upstream says it has sent."""
    connection = http.client.HTTPConnection("127.0.0.1", upstream.port, timeout=10)
    connection.request("GET", "/bench/stats")
    found: dict[str, int] = json.loads(connection.getresponse().read())
    connection.close()
    return found


def _read(stage: Stage, server: Server) -> _Clocks:
    return _Clocks(
        sent=sent(stage.upstream),
        wall_s=time.monotonic(),
        cpu_s=procfs.cpu_seconds(server.pid),
        kernel_s=procfs.kernel_seconds(server.pid),
        upstream_s=procfs.cpu_seconds(stage.upstream.pid),
        core_s=procfs.core_seconds(stage.bench.server_core),
    )


def _sample(clocks: tuple[_Clocks, _Clocks], number: int, measure: str, server: Server, outcome: _Outcome) -> Sample:
    before, after = clocks
    wall, cpu, is_upstream = after.wall_s - before.wall_s, after.cpu_s - before.cpu_s, server.name == DIRECT
    return Sample(
        round=number,
        measure=measure,
        server=server.name,
        count=outcome.count,
        failed=outcome.failed,
        wall_s=wall,
        cpu_s=None if is_upstream else cpu,
        upstream_cpu_s=after.upstream_s - before.upstream_s,
        others_share=0.0 if is_upstream else max(0.0, (after.core_s - before.core_s - cpu) / wall),
        figures=outcome.figures | ({} if is_upstream else {"kernel_share": (after.kernel_s - before.kernel_s) / cpu if cpu else 0.0}),
    )
