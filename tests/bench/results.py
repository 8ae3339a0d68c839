"""Results as runs write them, for what reads them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from bench import report, slots
from bench.payload import Pace
from bench.ratios import Sample

PLACE: dict[str, str | int] = {"processor": "a processor", "architecture": "x86_64", "cores": 2, "memory_bytes": 2**33, "kernel": "6.1"}
VERSIONS = {"python": "CPython 3.11", "nginx": "nginx version: nginx/1.22", "wrk": "wrk 4.1", "commit": "0123456789ab"}


def sample(number, measure, server, cpu_s, **changed):
    figures = dict.fromkeys(("p50_ms", "p99_ms", "first_p50_ms", "first_p99_ms", "total_p50_ms", "total_p99_ms"), 1.0 + number)
    fields: dict[str, Any] = {
        "count": 10_000,
        "failed": 0,
        "wall_s": 2.0,
        "upstream_cpu_s": 0.1,
        "others_share": 0.0,
        "figures": figures,
    } | changed
    return Sample(round=number, measure=measure, server=server, cpu_s=cpu_s, **fields)


def overhead(requests=(5.0, 6.0, 7.0), chunks=(2.0, 2.0, 2.0), *, date=datetime(2025, 1, 2, tzinfo=UTC), versions=None, **changed):
    """A result in which the gateway's ratios to nginx are these, round by round."""
    samples = []
    for number, (request, chunk) in enumerate(zip(requests, chunks, strict=True)):
        for measure, ratio in (("request_1k", request), (slots.CHUNK, chunk)):
            samples += [sample(number, measure, "nginx", 0.1), sample(number, measure, "comporta", 0.1 * ratio, **changed)]
        samples += [sample(number, slots.LATENCY, server, None) for server in (slots.DIRECT, "nginx", "comporta")]
        samples.append(sample(number, slots.CHUNK, slots.DIRECT, None))
    parameters = slots.Parameters(len(requests), 1, 32, (1,), 64, Pace(256, 8), False)
    run = report.Run(PLACE, VERSIONS | (versions or {}), (0, 1), parameters, samples, [0.3], None)
    return report.document(run, date)
