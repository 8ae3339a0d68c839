"""The table in docs/faults.md is the tests'."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import fault_table
from tests.e2e.fault_table import ROOT, Collector, Row


def test_the_committed_table_is_what_the_tests_check() -> None:
    """In a process of its own: the tests that run now may be a part of them."""
    command = [sys.executable, "-m", "tests.e2e.fault_table", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_no_other_tests_are_marked() -> None:
    others = set(ROOT.glob("tests/**/test_*.py")) - {*fault_table.TESTS, Path(__file__)}
    assert len(others) > len(fault_table.TESTS) > 10
    assert [path.name for path in others if "mark.row" in path.read_text()] == []


def test_every_row_is_checked_whole_and_where_it_matters_with_several_targets() -> None:
    lines = [[cell.strip() for cell in line.split("|")[1:]] for line in fault_table.written().splitlines()[2:]]
    told = {int(line[0]): line[1:4] for line in lines}
    assert set(told) >= set(fault_table.ROWS)
    assert all(whole == "yes" for whole, _, _ in told.values())
    assert {number for number, (_, _, several) in told.items() if several} >= set(fault_table.SEVERAL)


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
    text = fault_table.table({10: Row({"test_b_c": 2}, {"whole"}), 9: Row({"test_a": 1}, {"whole", "sliced"}, several=True)})
    assert text.splitlines()[2:] == ["| 9 | yes | yes | yes | 1 | a |", "| 10 | yes |  |  | 2 | b c |"]


def whole() -> Collector:
    """What is left of a run in which all is well."""
    found = Collector()
    found.rows = {number: Row({"test_a": 1}, {"whole"}, several=True) for number in fault_table.ROWS}
    found.collected = found.passed = {"test_a"}
    return found


def test_a_whole_run_has_no_faults() -> None:
    assert whole().faults(0, ran=True) == []


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"failed": ["test_a"]}, "not passed: test_a"),
        ({"left_out": ["test_b"]}, "left out: test_b"),
        ({"collected": {"test_a", "test_c"}}, "not run: test_c"),
        ({"rows": {number: Row(several=True) for number in fault_table.ROWS if number != 7}}, "rows without a test: 7"),
        ({"rows": {number: Row(several=number != 8) for number in fault_table.ROWS}}, "rows without a test of several targets: 8"),
    ],
)
def test_a_run_that_is_only_a_part_is_told_and_not_written(changed: dict[str, Any], fault: str) -> None:
    found = whole()
    for name, value in changed.items():
        setattr(found, name, value)
    assert fault in found.faults(0, ran=True)


def test_a_run_that_was_broken_off_is_told() -> None:
    assert whole().faults(2, ran=True) == ["pytest's exit status is not 0 but: 2"]


def test_the_table_takes_the_place_of_the_old_one_and_of_nothing_else(tmp_path: Path) -> None:
    document = tmp_path / "faults.md"
    document.write_text(f"before\n{fault_table.BEGIN}\nold\n\n{fault_table.END}after\n")
    fault_table.write("new\n", document)
    assert document.read_text() == f"before\n{fault_table.BEGIN}\nnew\n\n{fault_table.END}after\n"
    assert fault_table.written(document) == "new\n"


def test_a_document_without_a_place_for_the_table_is_left_alone(tmp_path: Path) -> None:
    document = tmp_path / "faults.md"
    document.write_text(f"before\n{fault_table.BEGIN}all that is left\n")
    with pytest.raises(ValueError, match="no place for the table"):
        fault_table.write("new\n", document)
    assert "all that is left" in document.read_text()
