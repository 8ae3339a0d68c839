"""The table in docs/faults.md is the tests'."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.e2e import fault_table
from tests.e2e.fault_table import ROOT, Row


def test_the_committed_table_is_what_the_tests_check() -> None:
    """In a process of its own: the tests that run now may be a part of them."""
    command = [sys.executable, "-m", "tests.e2e.fault_table", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_row_is_checked_whole() -> None:
    told = dict(line.split(" | ", 1) for line in fault_table.written().splitlines()[2:])
    assert {int(row.strip("| ")) for row in told} >= set(fault_table.ROWS)
    assert all(rest.startswith("yes | ") for rest in told.values())


@pytest.mark.parametrize(
    ("name", "marked", "cuts"),
    [
        ("test_a", "", {"whole"}),
        ("test_a[whole-x]", "", {"whole"}),
        ("test_a[x-sliced]", "", {"sliced"}),
        ("test_a[x]", "both", {"whole", "sliced"}),
        ("test_a[x]", "sliced", {"sliced"}),
    ],
)
def test_how_bytes_are_delivered_is_marked_or_read_from_the_name(name: str, marked: str, cuts: set[str]) -> None:
    assert fault_table.cuts_of(name, marked) == cuts


def test_rows_stand_in_order() -> None:
    text = fault_table.table({10: Row({"test_b_c": 2}, {"whole"}), 9: Row({"test_a": 1}, {"whole", "sliced"})})
    assert text.splitlines()[2:] == ["| 9 | yes | yes | 1 | a |", "| 10 | yes |  | 2 | b c |"]
