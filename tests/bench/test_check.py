"""A ratio that is worse than the margin and the spread fails; noise does not."""

from __future__ import annotations

import json

import pytest

from bench import check, slots
from tests.bench.results import overhead

BASELINE = check.baseline_of(overhead((5.0, 6.0, 7.0), (2.0, 2.0, 2.0)))


def verdict(measure, *results, margin=0.15):
    return {found.measure: found for found in check.compare(BASELINE, results, margin)}[measure]


@pytest.mark.parametrize(("now", "is_worse"), [((6.9, 6.9, 6.9), False), ((7.85, 7.85, 7.85), False), ((7.95, 7.95, 7.95), True)])
def test_the_limit_is_the_margin_and_the_spread_that_was_seen(now, is_worse):
    found = verdict("request_1k", overhead(now))
    assert found.limit == pytest.approx(6.0 * 1.15 + 1.0)  # half of 5 to 7
    assert found.is_worse is is_worse


def test_the_wider_spread_of_the_two_counts():
    assert verdict("chunk", overhead(chunks=(2.0, 2.6, 3.2))).limit == pytest.approx(2.0 * 1.15 + 0.6)


def test_all_rounds_of_a_second_look_decide_together():
    first, second = overhead(chunks=(3.0, 3.0, 3.0)), overhead(chunks=(2.0, 2.0, 2.0))
    assert verdict("chunk", first).is_worse
    assert not verdict("chunk", first, second).is_worse


def test_what_was_not_measured_any_more_is_a_failure():
    result = overhead()
    del result["summary"]["cost"]["chunk"]
    found = verdict("chunk", result)
    assert (found.now, found.is_worse) == (None, True)


def test_the_table_says_what_is_worse_and_what_is_better():
    text = check.table(check.compare(BASELINE, [overhead((3.0, 3.0, 3.0), (9.0, 9.0, 9.0))], 0.15))
    lines = {line[:11]: line for line in text.splitlines()}
    assert lines["per request"].endswith("better")
    assert lines["per streamed"[:11]].endswith("WORSE")


def test_other_versions_and_machines_are_told():
    found = check.changes(BASELINE, overhead(versions={"nginx": "nginx version: nginx/1.30"}))
    assert found == ["nginx: nginx version: nginx/1.22, now nginx version: nginx/1.30"]


def test_a_baseline_survives_its_file_and_is_measured_again_in_the_same_way():
    parameters = check.parameters_of(json.loads(json.dumps(BASELINE)))
    assert parameters == slots.Parameters(3, 1, 32, (1,), 64, check.SHORT.pace, False)


def test_without_a_baseline_nothing_is_measured(tmp_path, capsys):
    assert check.main(["--baseline", str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err


def test_the_committed_baseline_can_be_compared_with():
    baseline = json.loads(check.BASELINE.read_text())
    assert baseline["kind"] == "baseline"
    assert baseline["cost"].keys() >= {"request_1k", "chunk"}
    check.parameters_of(baseline)
