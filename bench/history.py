"""What each change brought: a file for each under bench/results/history/, in the order of their numbers.

`python -m bench.history add --note "..."` measures the checked-out commit shortly and adds it. Its `before` is what the entry before it
found; `--before` and `--after` take kept results of `bench.overhead` instead (measured with the same parameters), and then nothing is run.

An entry holds `number`, `date`, `commit`, `subject`, `note`, `machine`, `versions`, `parameters`, and under `before` (null in the first)
and `after`, for each measure, `nginx_us`, `comporta_us` and `ratio`, each as median, low and high over the rounds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import check, overhead, report, servers

HISTORY = overhead.RESULTS / "history"


def figures(cost: Mapping[str, Any]) -> dict[str, Any]:
    """Of the costs in a result's summary what an entry keeps."""
    return {
        measure: {"nginx_us": found[report.REFERENCE], "comporta_us": found[report.SUBJECT], "ratio": found["ratio"]}
        for measure, found in cost.items()
    }


def entries(directory: Path = HISTORY) -> list[dict[str, Any]]:
    """All entries, the oldest first."""
    return sorted((json.loads(path.read_text()) for path in directory.glob("*.json")), key=lambda entry: int(entry["number"]))


def entry(result: report.Result, before: dict[str, Any] | None, number: int, subject: str, note: str) -> dict[str, Any]:
    """An entry made of a result."""
    kept = {name: result[name] for name in ("date", "machine", "versions", "parameters")}
    told = {"number": number, "commit": result["versions"]["commit"], "subject": subject, "note": note}
    return {"schema": 1, "kind": "history", **told, **kept, "before": before, "after": figures(result["summary"]["cost"])}


def add(directory: Path, result: report.Result, before: report.Result | None, subject: str, note: str) -> Path:
    """Write the next entry; returns where."""
    known = entries(directory)
    number = int(known[-1]["number"]) + 1 if known else 1
    earlier = figures(before["summary"]["cost"]) if before is not None else known[-1]["after"] if known else None
    made = entry(result, earlier, number, subject, note)
    path = directory / f"{number:04d}-{str(made['commit']).rstrip('+')[:12] or 'unknown'}.json"
    directory.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.history", description=(__doc__ or "").splitlines()[0])
    adding = parser.add_subparsers(required=True).add_parser("add", help="add an entry")
    adding.add_argument("--note", required=True, help="what was changed, in a line")
    adding.add_argument("--subject", help="of the commit (that of HEAD)")
    adding.add_argument("--before", type=Path, help="a kept result; without it, what the last entry found")
    adding.add_argument("--after", type=Path, help="a kept result; without it, a short run of now")
    given = parser.parse_args(arguments)
    try:
        after = check.short() if given.after is None else json.loads(given.after.read_text())
        before = None if given.before is None else json.loads(given.before.read_text())
    except (*overhead.FAILURES, FileNotFoundError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if after["warnings"]["failed"]:
        sys.stderr.write("not added, something was answered wrongly:\n" + "\n".join(after["warnings"]["failed"]) + "\n")
        return 1
    sys.stdout.write(f"added {add(HISTORY, after, before, given.subject or _subject(), given.note)}; now `make performance-doc`\n")
    return 0


def _subject() -> str:
    command = ["git", "log", "-1", "--format=%s"]
    return subprocess.run(command, cwd=servers.ROOT, capture_output=True, text=True, timeout=10, check=False).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
