"""The table at the end of docs/faults.md: which rows of the fault matrix the end-to-end tests check, and how.

`python -m tests.e2e.fault_table` runs the tests and writes it, if they have all passed. With `--check` nothing is run: the tests are
collected, and the table in the document must be theirs.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "faults.md"
TESTS = ["tests/e2e", "--ignore=tests/e2e/sdk", "--ignore=tests/e2e/test_fault_table.py"]
BEGIN, END = "<!-- made by `make faults` -->\n", "<!-- end -->\n"

#: The rows that one provider and its clients can bring about; the others come with the parts that they are about.
ROWS = (*range(1, 11), *range(11, 41))


@dataclass
class Row:
    """What the tests of one row were, by test and case, and how they sent their bytes."""

    tests: dict[str, int] = field(default_factory=dict)
    cuts: set[str] = field(default_factory=set)


class Collector:
    """A pytest plug-in: notes the marks of what is collected, and what did not pass."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self.failed: list[str] = []

    def pytest_collection_modifyitems(self, items: Iterable[pytest.Item]) -> None:
        for item in items:
            for mark in item.iter_markers("row"):
                for number in mark.args:
                    row = self.rows.setdefault(number, Row())
                    name = getattr(item, "originalname", item.name)
                    row.tests[name] = row.tests.get(name, 0) + 1
                    row.cuts |= cuts_of(item.name, mark.kwargs.get("cut", ""))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome != "passed":
            self.failed.append(report.nodeid)


def cuts_of(name: str, marked: str) -> set[str]:
    """How a case delivers its bytes: as its mark says, else as its parameters are called, else whole."""
    if marked == "both":
        return {"whole", "sliced"}
    words = set(re.split(r"[\[\]-]", name))
    return {marked} if marked else {"sliced"} if "sliced" in words else {"whole"}


def table(rows: dict[int, Row]) -> str:
    """Markdown. No times and no dates in it: it changes only when the tests do."""
    lines = ["| row | whole | sliced | cases | what passed |", "|---|---|---|---|---|"]
    for number, row in sorted(rows.items()):
        told = "; ".join(name.removeprefix("test_").replace("_", " ") for name in sorted(row.tests))
        cuts = " | ".join("yes" if cut in row.cuts else "" for cut in ("whole", "sliced"))
        lines.append(f"| {number} | {cuts} | {sum(row.tests.values())} | {told} |")
    return "\n".join(lines) + "\n"


def written() -> str:
    """The table in the document."""
    return DOCUMENT.read_text().partition(BEGIN)[2].partition(END)[0].strip() + "\n"


def write(text: str) -> None:
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--check", action="store_true")
    check = options.parse_args().check
    found = Collector()
    how = ["--collect-only", "-qq"] if check else ["-q"]
    code = pytest.main([*TESTS, *how, "-p", "no:cacheprovider"], plugins=[found])
    missing = sorted(set(ROWS) - set(found.rows))
    if code or found.failed or missing:
        sys.stderr.write(f"exit {code}; not passed: {found.failed}; rows without a test: {missing}\n")
        return 1
    if not check:
        write(table(found.rows))
    elif written() != table(found.rows):
        sys.stderr.write("docs/faults.md does not say what the tests check: run `make faults`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
