"""`python -m loadtests chat streaming`, or `make load`: start a gateway with simulated providers, load it, judge what was measured.

Exit status: 0; 1 when an objective of the file was missed; 2 when it could not be measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from loadtests import generator, objectives, run, summary
from loadtests.plan import Plan
from loadtests.processes import ProcessFailed
from loadtests.stages import CURVES

_MOST_SECONDS = 3600.0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(prog="python -m loadtests", description="Load a gateway and judge the answers.")
    add = found.add_argument
    add("scenarios", nargs="*", default=["mixed"], metavar="SCENARIO", help=f"{', '.join(generator.SCENARIOS)} (mixed)")
    add("--seconds", type=float, default=30.0, help="how long (%(default)g)")
    add("--users", type=int, default=10, help="clients at the peak of a closed loop (%(default)s)")
    add(
        "--rate",
        type=float,
        default=0.0,
        help="open loop: requests a second at the peak, each sent at its time whatever became of the others",
    )
    add("--shape", choices=sorted(CURVES), default="flat", help="how the load grows and falls (%(default)s)")
    add("--workers", type=int, default=0, help="locust processes beside a master; 0: one process in all")
    add("--zipf", type=float, default=1.1, help="exponent of the prompts' popularity (%(default)s)")
    add("--prompts", type=int, default=1000, help="size of the catalogue of prompts (%(default)s)")
    add("--seed", type=int, default=0, help="of the arrival times of an open loop")
    add("--patience", type=float, default=3.0, help="seconds that a client waits for the next bytes (%(default)g)")
    add("--model", action="append", help="what to ask for, instead of the simulated provider; may be given often")
    add("--url", help="a gateway that already runs (http://127.0.0.1:8080); its records are not compared")
    add("--slo", type=Path, default=objectives.FILE, help="objectives (loadtests/slo.yaml)")
    add("--out", type=Path, default=Path("build/load"), help="folder for raw records and summary (%(default)s)")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns the exit status."""
    commands = parser()
    given = commands.parse_args(arguments)
    if unknown := set(given.scenarios) - set(generator.SCENARIOS):
        commands.error(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(generator.SCENARIOS)}")
    if not 0 < given.seconds <= _MOST_SECONDS or given.users < 1 or given.rate < 0 or given.prompts < 1 or given.zipf < 0:
        commands.error(f"seconds are more than 0 and at most {_MOST_SECONDS:g}; users and prompts at least 1; rate and zipf at least 0")
    try:
        limits = objectives.read(given.slo)
        document = run.measure(run.Task(given.scenarios, plan_of(given), given.workers, given.url))
    except (ProcessFailed, objectives.BadObjectives, OSError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 2
    missed = run.judge(document, limits)
    path = run.write(document, given.out)
    sys.stdout.write(summary.table(document))
    sys.stdout.write(f"raw records and summary: {path.parent}\n")
    for miss in missed:
        sys.stdout.write(f"MISSED {miss}\n")
    return 1 if missed else 0


def plan_of(given: argparse.Namespace) -> Plan:
    """An open loop has a generator in each process instead of users."""
    users = max(1, given.workers) if given.rate else given.users
    return Plan(
        seconds=given.seconds,
        users=users,
        rate=given.rate,
        shape=given.shape,
        zipf=given.zipf,
        prompts=given.prompts,
        seed=given.seed,
        patience=given.patience,
        out=str(given.out),
        models=tuple(given.model or Plan().models),
    )


if __name__ == "__main__":
    sys.exit(main())
