"""Has it become slower? A short run, compared with a committed one as ratios to nginx.

`python -m bench.check`, or `make bench-check`. Ratios are compared, not times, because nginx meets the same noise in the same round. A
ratio may be worse by the margin (15 %) and by the spread that was seen (half of the range of the rounds, of whichever run has the wider
one). One that is worse than that is measured a second time, and all rounds together decide.

Exit status: 0; 1 when a ratio is past its limit or something was answered wrongly; 2 when it cannot be measured or compared.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import overhead, ratios, report, servers, slots
from bench.payload import Pace
from bench.ratios import Spread

BASELINE = overhead.RESULTS / "baseline.json"
MARGIN = 0.15

#: What every short run does: this one, the baseline, and the entries of the history. About a minute.
SHORT = slots.Parameters(rounds=5, seconds=1, connections=32, bodies_kib=(1,), streams=64, pace=Pace(256, 8), usage=False)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One ratio then and now, and how far it might have gone. `now` is None where it was not measured."""

    measure: str
    before: Spread
    now: Spread | None
    limit: float

    @property
    def is_worse(self) -> bool:
        return self.now is None or self.now.median > self.limit


def compare(baseline: Mapping[str, Any], results: Sequence[report.Result], margin: float) -> list[Verdict]:
    """Each ratio of the baseline against the same of all rounds of `results`."""
    found = []
    for measure, cost in baseline["cost"].items():
        before = ratios.spread(cost["ratios"])
        each = [ratio for result in results for ratio in result["summary"]["cost"].get(measure, {}).get("ratios", [])]
        now = ratios.spread(each)
        if before is not None:
            seen = max((one.high - one.low) / 2 for one in (before, now) if one is not None)
            found.append(Verdict(measure, before, now, before.median * (1 + margin) + seen))
    return found


def changes(baseline: Mapping[str, Any], result: report.Result) -> list[str]:
    """What else is different from the baseline: versions and machine."""
    lines = []
    for part in ("versions", "machine"):
        for name, value in result[part].items():
            before = baseline[part].get(name, "absent")
            if before != value:
                lines.append(f"{name}: {before}, now {value}")
    return lines


def baseline_of(result: report.Result) -> report.Result:
    """What a baseline keeps of a run."""
    kept = {name: result[name] for name in ("schema", "date", "machine", "versions", "parameters", "startup_s")}
    return {**kept, "kind": "baseline", "cost": result["summary"]["cost"]}


def table(verdicts: Sequence[Verdict]) -> str:
    """For people."""
    rows = [
        [
            report.title(verdict.measure),
            f"{verdict.before.median:.2f} x",
            report.show(None if verdict.now is None else asdict(verdict.now), ".2f", " x"),
            f"{verdict.limit:.2f} x",
            "WORSE" if verdict.is_worse else "better" if verdict.now and verdict.now.high < verdict.before.low else "",
        ]
        for verdict in verdicts
    ]
    return report.grid(["CPU against nginx", "baseline", "now", "limit", ""], rows)


def short(parameters: slots.Parameters = SHORT) -> report.Result:
    """A short run. Raises as `overhead.measure`."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise servers.ServerFailed("two cores are needed: one for upstream and load, one for the server under test")
    mine = os.sched_getaffinity(0)
    try:
        return overhead.measure(overhead.Options(parameters, (cores[0], cores[1]), 3, False, None, False, None))
    finally:
        os.sched_setaffinity(0, mine)


def parameters_of(document: Mapping[str, Any]) -> slots.Parameters:
    """How a kept result was measured; only the like can be compared with it."""
    given = document["parameters"]
    names = ("rounds", "seconds", "connections", "streams", "usage")
    return slots.Parameters(**{name: given[name] for name in names}, bodies_kib=tuple(given["bodies_kib"]), pace=Pace(**given["pace"]))


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.check", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--baseline", type=Path, default=BASELINE, help="what to compare with (bench/results/baseline.json)")
    parser.add_argument("--margin", type=float, default=MARGIN, help="share by which a ratio may be worse (%(default)s)")
    parser.add_argument("--keep", action="store_true", help="make this run the baseline instead of comparing it")
    given = parser.parse_args(arguments)
    try:
        return _keep(given.baseline) if given.keep else _check(given.baseline, given.margin)
    except (*overhead.FAILURES, KeyError, FileNotFoundError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 2


def _keep(path: Path) -> int:
    result = short()
    sys.stdout.write(report.table(result))
    if result["warnings"]["failed"]:
        return 1
    path.write_text(json.dumps(baseline_of(result), indent=1) + "\n")
    sys.stderr.write(f"kept in {path}\n")
    return 0


def _check(path: Path, margin: float) -> int:
    baseline = json.loads(path.read_text())
    parameters = parameters_of(baseline)
    results = [short(parameters)]
    verdicts = compare(baseline, results, margin)
    if any(verdict.is_worse for verdict in verdicts):
        sys.stderr.write("worse than the limit: once more\n")
        results.append(short(parameters))
        verdicts = compare(baseline, results, margin)
    sys.stdout.write(table(verdicts))
    for line in changes(baseline, results[-1]):
        sys.stdout.write(f"changed: {line}\n")
    failed = [line for result in results for line in result["warnings"]["failed"]]
    for line in failed:
        sys.stdout.write(f"WRONG: {line}\n")
    return 1 if failed or any(verdict.is_worse for verdict in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
