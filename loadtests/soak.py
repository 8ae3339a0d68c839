"""Ten minutes of mixed traffic, clients that leave, and faults, on one gateway process: what it holds stays flat, and no request is lost.

`python -m loadtests.soak`, or `make soak` (SOAK_SECONDS=600). Exit status: 0; 1 when something was not as it must be, each with a line that
says what; 2 when it could not be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loadtests import generator, ledger, plot, processes, record, summary
from loadtests.flatness import Flatness, Margin, flatness
from loadtests.plan import Plan
from loadtests.sample import Sample, Sampler

MIB = 2**20

#: Upstream connections that the gateway may have open.
POOL = 16

#: What counts as flat after warm-up. At 100 requests a second, 0.5 MiB a minute would be 87 bytes left behind by each request.
MARGINS = {
    "rss": Margin(per_minute=0.5 * MIB, least=2 * MIB, above=8 * MIB),
    "descriptors": Margin(per_minute=1, least=4, above=32),
    "threads": Margin(per_minute=0.2, least=1, above=2),
    "tasks": Margin(per_minute=2, least=16, above=64),
}
_WARM_SHARE, _MOST_WARM = 0.25, 60.0
_MOST_ERRORS = 0.001
_SETTLE_SECONDS = 15.0
_SPARE_DESCRIPTORS = 2
_SPARE_TASKS = 4
_FEWEST_SAMPLES = 0.8
_SHORTEST, _LONGEST = 10.0, 3600.0

Checks = dict[str, list[str]]
"""What was looked at -> what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Watched:
    """All that was seen. `idle`: before the load; `after`: when all clients had left."""

    idle: Sample
    samples: list[Sample]
    after: Sample
    failed: list[str]


def config(upstream_url: str) -> dict[str, Any]:
    """A gateway with a simulated provider, a rough one, one behind sockets, and one that is not there; and models with several targets.

    Of `helped` one target always fails and one is slow, and every request must end well all the same; of `torn` one loses its answers after
    content, which nobody can repair.
    """
    simulated = {"kind": "sim", "first_token": "10ms", "per_token": "2ms", "length": 20}
    patience = {"connect": "1s", "first_token": "1s", "idle": "1s", "total": "10s"}
    return {
        "providers": {
            "steady": simulated,
            "rough": {**simulated, "error_share": 0.1, "cut_share": 0.1, "stall_share": 0.02},
            "sockets": {"kind": "openai", "base_url": f"{upstream_url}/v1", "timeouts": patience, "pool": {"connections": POOL}},
            "gone": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "timeouts": patience},
        },
        "models": {
            "steady": "steady",
            "rough": "rough",
            "far": "sockets",
            "wild": "sockets",
            "gone": "gone",
            "helped": {"targets": _behind("down", "slow", "far"), "fallback": ["steady"]},
            "torn": {"targets": _behind("breaks", "down", "wild", "far"), "strategy": "least_busy", "fallback": ["helped"]},
        },
        "policies": {"retry": {"base": "20ms", "cap": "200ms"}, "circuit_breaker": {"ejection": "2s", "longest": "4s"}},
    }


def _behind(*models: str) -> list[dict[str, str]]:
    """Targets, all of them behind the sockets."""
    return [{"provider": "sockets", "model": model} for model in models]


def plan(seconds: float, users: int, out: Path) -> Plan:
    """Mixed traffic and faults at once."""
    return Plan(
        seconds=seconds,
        users=users,
        shape="soak",
        patience=3.0,
        gaps=False,
        models=("steady", "far", "helped"),
        rough_models=("rough", "wild", "wild", "gone", "torn"),
        out=str(out),
    )


# -- what is looked at --


def warm_up(seconds: float) -> float:
    """Seconds of which nothing is asked but that no request is lost."""
    return min(_MOST_WARM, seconds * _WARM_SHARE)


def series(samples: Sequence[Sample], name: str) -> list[tuple[float, float]]:
    """(seconds, value) of a field, where it was measured."""
    return [(sample.at, float(value)) for sample in samples if (value := getattr(sample, name)) is not None]


def lines(watched: Watched, warm: float, seconds: float) -> list[Flatness]:
    """How flat each figure is, between warm-up and the end of the load."""
    kept = [sample for sample in watched.samples if warm <= sample.at <= seconds]
    return [flatness(name, points, margin) for name, margin in MARGINS.items() if (points := series(kept, name))]


def check_samples(watched: Watched, seconds: float) -> list[str]:
    """Enough of them, and none that failed."""
    found = [f"{len(watched.failed)} samples failed: {watched.failed[:3]}"] if watched.failed else []
    if len(watched.samples) < seconds * _FEWEST_SAMPLES:
        found.append(f"only {len(watched.samples)} samples in {seconds:g} s")
    if watched.after.tasks is None:
        found.append("the gateway has no metric comporta_tasks")
    return found


def check_end(watched: Watched) -> list[str]:
    """All that was taken has been given back."""
    idle, after = watched.idle, watched.after
    found = []
    if after.active:
        found.append(f"llm_active_requests is {after.active:g} after the last client has left")
    if after.closing:
        found.append(f"{after.closing} connections that the upstream has closed are still open")
    most = max([after.upstream, *(sample.upstream for sample in watched.samples)])
    if most > POOL:
        found.append(f"there were {most} upstream connections; the pool's bound is {POOL}")
    allowed = idle.descriptors + after.upstream + _SPARE_DESCRIPTORS
    if after.descriptors > allowed:
        found.append(f"{after.descriptors} file descriptors are open; {idle.descriptors} were before, and {after.upstream} are the pool's")
    if idle.tasks is not None and after.tasks is not None and after.tasks > idle.tasks + after.upstream + _SPARE_TASKS:
        found.append(f"{after.tasks:g} tasks have not ended; there were {idle.tasks:g} before")
    return found


def check_help(after: Sample) -> list[str]:
    """Retries and fallback had something to do, or the rest says nothing of them."""
    return [f"there were no {name}" for name in ("retries", "switches") if not getattr(after, name)]


def check_ledger(balance: ledger.Ledger, counted: float) -> list[str]:
    """Clients, log and metrics tell of the same requests."""
    found = [f"not the same: {line}" for line in balance.differing[:5]]
    if balance.lost:
        found.append(f"{balance.lost} requests are lost: {balance.document()}")
    if counted != balance.records:
        found.append(f"llm_requests_total is {counted:g}, and the log has {balance.records} records")
    return found


def check_clients(figures: dict[str, Any]) -> list[str]:
    """Requests ended as they were meant to."""
    if figures["requests"] and figures["error_share"] <= _MOST_ERRORS:
        return []
    return [f"{figures['errors']} of {figures['requests']} requests ended otherwise than they were meant to: {figures['error_kinds']}"]


def check_log(log: Path) -> list[str]:
    """The gateway found no fault of its own."""
    marks = ('"level":"error"', '"level":"critical"', '"internal_error"', "Traceback")
    with log.open(encoding="utf-8", errors="replace") as told:
        bad = [line.strip() for line in told if any(mark in line for mark in marks)]
    return [f"the gateway logged {len(bad)} errors, the first: {bad[0][:500]}"] if bad else []


# -- the run --


def watch(seconds: float, users: int, out: Path, folder: Path) -> tuple[Watched, Path]:
    """Start everything, load it, sample it, end it. Returns what was seen and the gateway's log. Raises ProcessFailed."""
    with processes.upstream(folder) as upstream, processes.gateway(config(upstream.url), folder) as gateway:
        sampler = Sampler(gateway, int(upstream.url.rsplit(":", 1)[1]))
        idle = sampler.now()
        sampler.start()
        try:
            generator.start(gateway.url, ["mixed", "faults"], plan(seconds, users, out)).wait(seconds + generator.SLACK)
            after = settle(sampler)
        finally:
            sampler.stop()
        return Watched(idle, sampler.samples, after, sampler.failed), gateway.log


def settle(sampler: Sampler) -> Sample:
    """What is left once nothing is in flight any more, or what still is after a while."""
    end = time.monotonic() + _SETTLE_SECONDS
    while True:
        sample = sampler.now()
        if (not sample.active and not sample.closing) or time.monotonic() > end:
            # The connections of clients that have just left are closed by the loop's next turns, and tasks are counted once a second.
            time.sleep(2.0)
            return sampler.now()
        time.sleep(0.2)


def soak(seconds: float, users: int, out: Path) -> dict[str, Any]:
    """The whole of it as a document. Raises ProcessFailed."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="comporta-soak-") as name:
        watched, log = watch(seconds, users, out, Path(name))
        requests = record.read(out)
        balance = ledger.reconcile(requests, ledger.gateway_records(log))
        log_faults = check_log(log)
    warm = warm_up(seconds)
    document = summary.summarise(requests, replace(plan(seconds, users, out), out=""), balance)
    flat = lines(watched, warm, seconds)
    checks: Checks = {
        "samples": check_samples(watched, seconds),
        "ledger": check_ledger(balance, watched.after.requests),
        "clients": check_clients(document["operations"][summary.ALL]),
        "end": check_end(watched),
        "help": check_help(watched.after),
        "log": log_faults,
        **{line.name: line.faults for line in flat},
    }
    document["warm_up_s"] = warm
    document["flatness"] = [line.document() for line in flat]
    document["checks"] = checks
    document["idle"], document["after"] = watched.idle.document(), watched.after.document()
    document["samples"] = [sample.document() for sample in watched.samples]
    (out / "soak.svg").write_text(picture(watched.samples, warm), encoding="utf-8")
    (out / "soak.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return document


def picture(samples: Sequence[Sample], warm: float) -> str:
    """Resident memory, descriptors, connections, tasks and requests in flight over time."""
    memory = [(at, value / MIB) for at, value in series(samples, "rss")]
    shown = [plot.Line("resident memory, MiB", memory)]
    names = {"descriptors": "file descriptors", "upstream": "upstream connections", "active": "requests in flight", "tasks": "tasks"}
    shown += [plot.Line(title, points) for name, title in names.items() if (points := series(samples, name))]
    return plot.svg(shown, warm)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.soak", description=(__doc__ or "").splitlines()[0])
    default = float(os.environ.get("SOAK_SECONDS") or 600)
    parser.add_argument("--seconds", type=float, default=default, help="how long (SOAK_SECONDS, else 600)")
    parser.add_argument("--users", type=int, default=12, help="clients at once (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/soak"), help="folder for the results (%(default)s)")
    given = parser.parse_args(arguments)
    if not _SHORTEST <= given.seconds <= _LONGEST or given.users < 2:
        parser.error(f"a soak takes {_SHORTEST:g} to {_LONGEST:g} seconds and at least 2 users")
    try:
        document = soak(given.seconds, given.users, given.out)
    except (processes.ProcessFailed, OSError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 2
    sys.stdout.write(report(document))
    sys.stdout.write(f"{given.out / 'soak.json'}, {given.out / 'soak.svg'}\n")
    return 1 if any(document["checks"].values()) else 0


def report(document: dict[str, Any]) -> str:
    """For people."""
    text = summary.table(document) + "\n"
    for line in document["flatness"]:
        scale, unit = (MIB, " MiB") if line["name"] == "rss" else (1, "")
        figures = [line["median"] / scale, line["most"] / scale, line["per_minute"] / scale]
        text += "{}: median {:.2f}{unit}, most {:.2f}{unit}, {:+.3f}{unit} a minute\n".format(line["name"], *figures, unit=unit)
    for name, faults in document["checks"].items():
        text += "".join(f"WRONG {name}: {fault}\n" for fault in faults) or f"ok    {name}\n"
    return text


if __name__ == "__main__":
    sys.exit(main())
