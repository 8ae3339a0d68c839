"""One bounded run: a gateway with simulated providers (or one that is already there), locust, the figures, the verdict."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests import generator, ledger, objectives, processes, record, summary
from loadtests.plan import Plan

#: The pace of a quick model; the second provider fails, breaks off and falls silent.
CONFIG: dict[str, Any] = {
    "providers": {
        "steady": {"kind": "sim", "first_token": "20ms", "per_token": "2ms", "length": 40},
        "rough": {
            "kind": "sim",
            "first_token": "20ms",
            "per_token": "2ms",
            "length": 40,
            "error_share": 0.1,
            "cut_share": 0.1,
            "stall_share": 0.05,
        },
    },
    "models": {"steady": "steady", "rough": "rough"},
}


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be run. `url`: a gateway that is already there; then its records are its own."""

    scenarios: Sequence[str]
    plan: Plan
    workers: int = 0
    url: str | None = None


def measure(task: Task) -> dict[str, Any]:
    """The summary of a run. Raises ProcessFailed."""
    with tempfile.TemporaryDirectory(prefix="comporta-load-") as name:
        folder = Path(name)
        with nullcontext() if task.url is not None else processes.gateway(CONFIG, folder) as server:
            url = task.url if server is None else server.url
            assert url is not None
            generator.start(url, task.scenarios, task.plan, task.workers).wait(task.plan.seconds + task.plan.patience + generator.SLACK)
        requests = record.read(Path(task.plan.out))
        # Its log is complete once it has ended.
        balance = None if server is None else ledger.reconcile(requests, ledger.gateway_records(server.log))
    document = summary.summarise(requests, task.plan, balance)
    document["scenarios"], document["workers"] = list(task.scenarios), task.workers
    document["locust"] = locust_figures(Path(task.plan.out) / "locust.json")
    return document


def locust_figures(path: Path) -> dict[str, Any]:
    """What locust itself says, to be compared; empty where it wrote nothing."""
    if not path.exists():
        return {}
    found = {}
    for entry in json.loads(path.read_text(encoding="utf-8")):
        times = sorted((float(time), count) for time, count in entry["response_times"].items())
        found[entry["name"]] = {
            "requests": entry["num_requests"],
            "failures": entry["num_failures"],
            "p50_ms": _at(times, 0.5),
            "p95_ms": _at(times, 0.95),
            "p99_ms": _at(times, 0.99),
        }
    return found


def _at(times: list[tuple[float, int]], part: float) -> float | None:
    """A percentile of locust's histogram, whose times are rounded already."""
    left = part * sum(count for _, count in times)
    for time, count in times:
        left -= count
        if left <= 0:
            return time
    return None


def judge(document: dict[str, Any], limits: objectives.Objectives) -> list[objectives.Miss]:
    """What was missed; kept in the document too."""
    missed = objectives.misses(limits, document)
    document["missed"] = [str(miss) for miss in missed]
    return missed


def write(document: dict[str, Any], folder: Path) -> Path:
    """The summary, beside the raw records."""
    path = folder / "summary.json"
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return path
