"""The marks of many iterations as figures, and the figures as a table."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench import report, rig, seams, timeline
from bench.timeline import HARNESS, Segments

REQUEST, STREAM, CHUNK = "request", "stream", "chunk"

TITLES = {
    REQUEST: "a request of 1 KiB with a JSON answer",
    STREAM: "a stream: its beginning with two chunks, and its end",
    CHUNK: "a further chunk of a stream",
}


@dataclass(slots=True)
class Found:
    """What one round found.

    `iterations` are nanoseconds by layer, one entry for each request, stream or chunk; `pairs` how many pairs of marks a layer is put
    together from; `log_seconds` the processor time of the log's thread for one record.
    """

    iterations: dict[str, list[Segments]] = field(default_factory=lambda: {REQUEST: [], STREAM: [], CHUNK: []})
    pairs: dict[str, dict[str, int]] = field(default_factory=dict)
    log_seconds: float = 0.0
    connection_ns: float = 0.0

    def add(self, what: str, *parts: rig.Marks) -> None:
        """Take one iteration, whose marks may come in several parts with something else in between."""
        spent, pairs = Counter[str](), Counter[str]()
        for marks in parts:
            more, counts = timeline.segments(marks, seams.RULES)
            spent.update(more)
            pairs.update(counts)
        self.iterations[what].append(dict(spent))
        self.pairs.setdefault(what, {}).update(pairs)

    def medians(self, what: str) -> dict[str, float]:
        return timeline.medians(self.iterations[what])


def driven(what: str, bare: Sequence[Found], marked: Sequence[Found], measured: dict[str, float] | None) -> dict[str, Any]:
    """The layers of one kind of traffic, in microseconds: medians of the rounds, with the least and the greatest.

    `in_process_us` is timed without marks. The log's thread is beside it; `system_us` is what the real process (`measured_us`) spends more.
    The kernel's part of that is known; the rest is the event loop's, and what comes of many requests at once.
    """
    rounds = [found.medians(what) for found in marked]
    pairs = {name: count for found in marked for name, count in found.pairs[what].items()}
    known = dict.fromkeys(name for one in rounds for name in one)
    layers = [name for name in known if name != HARNESS and any(one.get(name) for one in rounds)]  # not what few have passed through
    harness = statistics.median(one.get(HARNESS, 0.0) for one in rounds)
    inside = statistics.median(found.medians(what).get(seams.WHOLE, 0.0) for found in bare) - harness
    with_marks = sum(statistics.median(one.get(name, 0.0) for one in rounds) for name in layers)
    each = max(0.0, with_marks - inside) / sum(pairs[name] for name in layers)
    log_thread = None if what == CHUNK else statistics.median(found.log_seconds for found in bare) * 1e6
    spent = inside / 1e3 + (log_thread or 0.0)
    return {
        "layers": [_row(name, rounds, each * pairs[name]) for name in layers],
        "mark_us": each / 1e3,
        "in_process_us": inside / 1e3,
        "log_thread_us": log_thread,
        "measured_us": measured,
        "system_us": None if measured is None else measured["median"] - spent,
    }


def _row(name: str, rounds: Sequence[dict[str, float]], marks_ns: float) -> dict[str, Any]:
    each = sorted(max(0.0, one.get(name, 0.0) - marks_ns) / 1e3 for one in rounds)
    return {"layer": name, "us": statistics.median(each), "low": each[0], "high": each[-1]}


def table(result: report.Result) -> str:
    """The result for people."""
    where, versions = result["machine"], result["versions"]
    parts = [f"{where['processor']}, kernel {where['kernel']}, {versions['python']}, commit {versions['commit']}\n"]
    for what, found in result["driven"].items():
        parts.append(report.grid([TITLES[what], "us", "least - greatest", "share"], rows(found)))
    parts.append(f"a client that connects and leaves: {result['connection_us']:.1f} us in the process\n")
    return "\n".join(parts)


def rows(found: dict[str, Any]) -> list[list[str]]:
    """Cells of a table: layer, microseconds, spread, share of all that is known."""
    measured = found["measured_us"]
    whole = measured["median"] if measured else found["in_process_us"] + (found["log_thread_us"] or 0.0)

    def row(title: str, us: float, spread: str = "") -> list[str]:
        return [title, f"{us:.2f}", spread, f"{us / whole:.0%}"]

    cells = [row(one["layer"], one["us"], f"{one['low']:.2f} - {one['high']:.2f}") for one in found["layers"]]
    cells.append(row("= in the process, timed without marks", found["in_process_us"]))
    if found["log_thread_us"] is not None:
        cells.append(row("the log's thread", found["log_thread_us"]))
    if measured:
        cells.append(row("the kernel: sockets, waiting for them", measured["kernel"]))
        cells.append(row("the loop, traffic from many at once", found["system_us"] - measured["kernel"]))
        cells.append(row("= CPU of the real process", measured["median"], f"{measured['low']:.2f} - {measured['high']:.2f}"))
    return cells
