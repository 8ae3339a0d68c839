"""A run's result as data, and the data as a table."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from bench import procfs, ratios, slots
from bench.ratios import Sample, Spread

Result = dict[str, Any]

SUBJECT, REFERENCE = "comporta", "nginx"
_ADDED = (  # figure, slot, what a reader calls it
    ("p50_ms", slots.LATENCY, "request, one at a time, p50"),
    ("p99_ms", slots.LATENCY, "request, one at a time, p99"),
    ("first_p50_ms", slots.CHUNK, "first token, p50"),
    ("first_p99_ms", slots.CHUNK, "first token, p99"),
    ("total_p50_ms", slots.CHUNK, "whole stream, p50"),
    ("total_p99_ms", slots.CHUNK, "whole stream, p99"),
)
_SATURATED = 0.85  # share of the core: beyond it reads begin to hold more than one chunk
_SEPARATE = 0.9  # reads per chunk: below it chunks were put together
_OTHERS = 0.1  # share of the server's core that something else used
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Run:
    """What a run did and found: where (machine, versions, the cores of load and server), how, and every figure.

    `startup` are seconds from exec to ready; `memory` is by server, None where it was not measured.
    """

    machine: Mapping[str, str | int]
    versions: Mapping[str, str]
    cores: tuple[int, int]
    parameters: slots.Parameters
    samples: Sequence[Sample]
    startup: Sequence[float]
    memory: Mapping[str, Mapping[str, int]] | None


def document(run: Run, date: datetime) -> Result:
    """The run as JSON: everything that it found, and the summary that the table shows."""
    load_core, server_core = run.cores
    return {
        "schema": 1,
        "kind": "overhead",
        "date": date.isoformat(timespec="seconds"),
        "machine": dict(run.machine),
        "versions": dict(run.versions),
        "parameters": asdict(run.parameters)
        | {"load_core": load_core, "server_core": server_core, "cpu_resolution_s": procfs.tick_seconds()},
        "summary": summary(run.samples),
        "startup_s": {"median": statistics.median(run.startup), "each": list(run.startup)} if run.startup else None,
        "memory": None if run.memory is None else {server: dict(found) for server, found in run.memory.items()},
        "warnings": warnings(run.samples),
        "samples": [asdict(sample) | {"cost_us": sample.cost_us} for sample in run.samples],
    }


def summary(samples: Sequence[Sample]) -> dict[str, Any]:
    """Costs and ratios by slot, and added latencies by figure: medians over the rounds, with the least and the greatest."""
    measures = dict.fromkeys(sample.measure for sample in samples if sample.measure != slots.LATENCY)
    cost = {
        measure: {
            "unit": "us of CPU per " + ("chunk" if measure == slots.CHUNK else "request"),
            REFERENCE: _spread(ratios.costs(samples, measure, REFERENCE)),
            SUBJECT: _spread(ratios.costs(samples, measure, SUBJECT)),
            "ratio": _spread(ratios.paired_ratios(samples, measure, SUBJECT, REFERENCE)),
            "ratios": ratios.paired_ratios(samples, measure, SUBJECT, REFERENCE),
        }
        for measure in measures
    }
    added = {
        f"{measure}.{figure}": {
            server: _spread(ratios.paired_differences(samples, measure, figure, server, slots.DIRECT)) for server in (REFERENCE, SUBJECT)
        }
        for figure, measure, _ in _ADDED
    }
    return {"cost": cost, "added_ms": added}


def warnings(samples: Iterable[Sample]) -> dict[str, list[str]]:
    """What makes a figure doubtful, by kind; `failed` is the one that makes a run wrong."""
    found: dict[str, list[str]] = {"failed": [], "saturated": [], "coalesced": [], "disturbed": []}
    for sample in samples:
        name = f"{sample.measure} {sample.server} round {sample.round + 1}"
        if sample.failed or not sample.count:
            found["failed"].append(f"{name}: {sample.failed} failed, {sample.count} right")
        if sample.measure == slots.CHUNK and sample.cpu_s is not None:
            if sample.cpu_s / sample.wall_s > _SATURATED:
                found["saturated"].append(f"{name}: {sample.cpu_s / sample.wall_s:.0%} of its core")
            if sample.figures.get("reads_per_chunk", 1.0) < _SEPARATE:
                found["coalesced"].append(f"{name}: {sample.figures['reads_per_chunk']:.2f} reads per chunk")
        if sample.others_share > _OTHERS and sample.cpu_s is not None:
            found["disturbed"].append(f"{name}: others had {sample.others_share:.0%} of its core")
    return found


def table(result: Result) -> str:
    """The summary for people."""
    chosen = result["parameters"]
    pace, machine, versions = chosen["pace"], result["machine"], result["versions"]
    parts = [
        f"comporta against nginx before the same upstream: {chosen['rounds']} paired rounds, median (least - greatest)\n"
        f"{machine['processor']}, kernel {machine['kernel']}, {versions['python']}, {versions['nginx']}\n"
        f"{chosen['connections']} connections; {chosen['streams']} streams of {pace['chunks']} chunks, {pace['interval_ms']} ms apart\n",
        grid(["CPU of the server process", "nginx", "comporta", "ratio"], cost_rows(result["summary"]["cost"])),
        grid(["added to asking directly", "nginx", "comporta"], added_rows(result["summary"]["added_ms"])),
        *_footprint(result),
        *_notes(result["warnings"]),
    ]
    return "\n".join(parts)


def cost_rows(cost: dict[str, Any]) -> list[list[str]]:
    """Cells: what, nginx, comporta, ratio."""
    return [
        [title(measure), show(found[REFERENCE], ".1f", " us"), show(found[SUBJECT], ".1f", " us"), show(found["ratio"], ".2f", " x")]
        for measure, found in cost.items()
    ]


def added_rows(added: dict[str, Any]) -> list[list[str]]:
    """Cells: what, nginx, comporta."""
    titles = {f"{measure}.{figure}": title for figure, measure, title in _ADDED}
    return [[titles[name], show(found[REFERENCE], ".3f", " ms"), show(found[SUBJECT], ".3f", " ms")] for name, found in added.items()]


def _footprint(result: Result) -> list[str]:
    rows = []
    if result["memory"]:
        nginx, gateway = result["memory"][REFERENCE], result["memory"][SUBJECT]
        for title, name in (("resident, idle", "idle_bytes"), ("more per 1,000 open streams", "per_1000_streams_bytes")):
            rows.append([title, f"{nginx[name] / _MIB:.1f} MiB", f"{gateway[name] / _MIB:.1f} MiB"])
    if result["startup_s"]:
        rows.append(["exec to ready", "", f"{result['startup_s']['median']:.3f} s"])
    return [grid(["the process", "nginx", "comporta"], rows)] if rows else []


def _notes(found: dict[str, list[str]]) -> list[str]:
    says = {
        "failed": "WRONG: not everything was answered as it should",
        "saturated": "note: the server had no room left while streaming; chunks wait for each other, use a longer --interval-ms",
        "coalesced": "note: chunks were put together on their way, so a cost per chunk is too low",
        "disturbed": "note: something else ran on the server's core",
    }
    lines = [f"{says[kind]} ({len(lines)} slots; {lines[0]})\n" for kind, lines in found.items() if lines]
    return ["".join(lines)] if lines else []


def title(measure: str) -> str:
    """A measure in words."""
    return "per streamed chunk" if measure == slots.CHUNK else f"per request, {measure.removeprefix('request_').removesuffix('k')} KiB"


def _spread(values: Iterable[float]) -> dict[str, float] | None:
    found = ratios.spread(values)
    return None if found is None else asdict(found)


def show(found: dict[str, float] | None, digits: str, unit: str) -> str:
    """Median (least - greatest)."""
    if found is None:
        return "-"
    value = Spread(**found)
    return f"{value.median:{digits}}{unit} ({value.low:{digits}} - {value.high:{digits}})"


def grid(head: list[str], rows: list[list[str]]) -> str:
    """Columns in line, the first to the left and the others to the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = []
    for row in [head, ["-" * width for width in widths], *rows]:
        cells = list(zip(row, widths, strict=True))
        lines.append("  ".join([cells[0][0].ljust(cells[0][1]), *(cell.rjust(width) for cell, width in cells[1:])]))
    return "\n".join(line.rstrip() for line in lines) + "\n"
