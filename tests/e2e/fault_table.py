"""The table at the end of docs/faults.md: which rows of the fault matrix the end-to-end tests check, and how.

`python -m tests.e2e.fault_table` runs the tests and writes it, if all of them have passed. With `--check` nothing is run: the tests are
collected, and the table in the document must be theirs.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "faults.md"

#: The files whose tests are marked; a test of this module looks that no other file's are.
NAMES = ("test_cancellation.py", "test_chaos.py", "test_event_streams.py", "test_faults_*.py")
TESTS = sorted(path for name in NAMES for path in Path(__file__).parent.glob(name))

BEGIN, END = "<!-- made by `make faults` -->\n", "<!-- end -->\n"

#: The rows that providers and clients can bring about; the others come with the parts that they are about.
ROWS = (*range(1, 41), 57, 58)

#: Of these, the ones that are another story where there is another target to ask.
SEVERAL = (*range(1, 34), 57, 58)


@dataclass
class Row:
    """What the tests of one row were, by test and case, how they sent their bytes, and whether with `several` targets too."""

    tests: dict[str, int] = field(default_factory=dict)
    cuts: set[str] = field(default_factory=set)
    several: bool = False


class Collector:
    """A pytest plug-in: notes the marks of what is collected, what was left out, and what did not pass."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self.left_out: list[str] = []
        self.failed: list[str] = []
        self.collected: set[str] = set()
        self.passed: set[str] = set()

    def pytest_collection_modifyitems(self, items: Iterable[pytest.Item]) -> None:
        for item in items:
            self.collected.add(item.nodeid)
            for mark in item.iter_markers("row"):
                for number in mark.args:
                    row = self.rows.setdefault(number, Row())
                    name = getattr(item, "originalname", item.name)
                    row.tests[name] = row.tests.get(name, 0) + 1
                    row.cuts |= cuts_of(item.name, mark.kwargs.get("cut", ""))
                    row.several |= item.get_closest_marker("several_targets") is not None

    def pytest_deselected(self, items: Iterable[pytest.Item]) -> None:
        self.left_out += [item.nodeid for item in items]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome != "passed":
            self.failed.append(report.nodeid)
        elif report.when == "call":
            self.passed.add(report.nodeid)

    def faults(self, code: int, *, ran: bool) -> list[str]:
        """Why this is not the whole of it, and must not be written; empty if it is."""
        not_run = sorted(self.collected - self.passed - set(self.failed)) if ran else []
        several = {number for number, row in self.rows.items() if row.several}
        found = {
            "pytest's exit status is not 0 but": [str(code)] if code else [],
            "not passed": self.failed,
            "left out": self.left_out,
            "not run": not_run,
            "rows without a test": [str(number) for number in sorted(set(ROWS) - set(self.rows))],
            "rows without a test of several targets": [str(number) for number in sorted(set(SEVERAL) - several)],
        }
        return [f"{what}: {', '.join(which)}" for what, which in found.items() if which]


def cuts_of(name: str, marked: str) -> set[str]:
    """How a case delivers its bytes: as its mark says, else as its parameters are called, else whole."""
    if marked == "both":
        return {"whole", "sliced"}
    words = set(re.split(r"[\[\]-]", name))
    return {marked} if marked else {"sliced"} if "sliced" in words else {"whole"}


def table(rows: dict[int, Row]) -> str:
    """Markdown. No times and no dates in it: it changes only when the tests do."""
    lines = ["| row | whole | sliced | several targets | cases | what passed |", "|---|---|---|---|---|---|"]
    for number, row in sorted(rows.items()):
        told = "; ".join(name.removeprefix("test_").replace("_", " ") for name in sorted(row.tests))
        marks = " | ".join("yes" if mark else "" for mark in ("whole" in row.cuts, "sliced" in row.cuts, row.several))
        lines.append(f"| {number} | {marks} | {sum(row.tests.values())} | {told} |")
    return "\n".join(lines) + "\n"


def written(document: Path = DOCUMENT) -> str:
    """The table in the document."""
    return _parts(document)[1].strip() + "\n"


def write(text: str, document: Path = DOCUMENT) -> None:
    """Put it in the place of the one that is there, at once or not at all. Raises ValueError for a document without that place."""
    before, _, after = _parts(document)
    fresh = document.with_suffix(".new")
    fresh.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
    fresh.replace(document)


def _parts(document: Path) -> tuple[str, str, str]:
    text = document.read_text()
    before, begun, rest = text.partition(BEGIN)
    table, ended, after = rest.partition(END)
    if not begun or not ended:
        raise ValueError(f"{document} has no place for the table: {BEGIN.strip()} and {END.strip()}")
    return before, table, after


def run(arguments: Sequence[str]) -> tuple[int, Collector]:
    """pytest over all of them, in this process, whatever the environment would have it leave out."""
    os.environ.pop("PYTEST_ADDOPTS", None)
    found = Collector()
    return int(pytest.main([*map(str, TESTS), *arguments, "-p", "no:cacheprovider"], plugins=[found])), found


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--check", action="store_true")
    check = options.parse_args().check
    code, found = run(["--collect-only", "-qq"] if check else ["-q"])
    faults = found.faults(code, ran=not check)
    if not faults and check and written() != table(found.rows):
        faults = ["docs/faults.md does not say what the tests check: run `make faults`"]
    if faults:
        sys.stderr.write("".join(f"{fault}\n" for fault in faults))
        return 1
    if not check:
        write(table(found.rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
