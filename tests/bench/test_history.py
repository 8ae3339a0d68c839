"""Entries are numbered, each begins where the one before ended, and none is made of a wrong run."""

from __future__ import annotations

import json

import pytest

from bench import history
from tests.bench.results import overhead


def test_entries_follow_each_other(tmp_path):
    first = history.add(tmp_path, overhead(chunks=(2.0, 2.0, 2.0)), None, "Begin", "how it was")
    second = history.add(tmp_path, overhead(chunks=(1.5, 1.5, 1.5)), None, "Faster", "no task for a chunk")
    assert (first.name, second.name) == ("0001-0123456789ab.json", "0002-0123456789ab.json")
    found = history.entries(tmp_path)
    assert [entry["number"] for entry in found] == [1, 2]
    assert found[0]["before"] is None
    assert found[1]["before"] == found[0]["after"]
    assert found[1]["after"]["chunk"]["ratio"]["median"] == pytest.approx(1.5)
    assert (found[1]["subject"], found[1]["note"]) == ("Faster", "no task for a chunk")


def test_a_result_from_before_can_be_given(tmp_path):
    history.add(tmp_path, overhead(chunks=(2.0, 2.0, 2.0)), None, "Begin", "how it was")
    history.add(tmp_path, overhead(chunks=(1.5, 1.5, 1.5)), overhead(chunks=(1.8, 1.8, 1.8)), "Faster", "measured on both sides")
    assert history.entries(tmp_path)[1]["before"]["chunk"]["ratio"]["median"] == pytest.approx(1.8)


def test_a_run_that_answered_wrongly_is_not_added(tmp_path, capsys):
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(overhead(failed=1)))
    assert history.main(["add", "--note", "x", "--after", str(path)]) == 1
    assert "answered wrongly" in capsys.readouterr().err


def test_a_result_that_is_not_there_is_told(tmp_path, capsys):
    assert history.main(["add", "--note", "x", "--after", str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err


def test_committed_entries_are_numbered_without_gaps():
    found = history.entries()
    assert [entry["number"] for entry in found] == list(range(1, len(found) + 1))
    assert all(entry["note"] and entry["after"] for entry in found)
