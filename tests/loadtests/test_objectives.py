"""Objectives decide, and say what was missed."""

from __future__ import annotations

import pytest

from loadtests import objectives, summary
from loadtests.ledger import Ledger, reconcile
from loadtests.objectives import BadObjectives
from tests.loadtests.records import document, line, request


def missed(limits, records, ledger=None):
    return [str(miss) for miss in objectives.misses(limits, document(records, ledger))]


def test_the_file_is_right_and_kept_by_a_quick_run():
    limits = objectives.read(objectives.FILE)
    assert set(limits["default"]) == {"error_share", "lost_records", "first_token_p95_ms", "first_token_p99_ms", "latency_p99_ms"}
    assert missed(limits, [request(number) for number in range(50)]) == []


def test_a_value_at_its_limit_is_kept_and_one_above_is_missed():
    records = [request(number, seconds=0.125) for number in range(10)]
    assert missed({"default": {"latency_p99_ms": 125}}, records) == []
    assert missed({"default": {"latency_p99_ms": 124.9}}, records) == ["streaming: latency_p99_ms is 125 ms; at most 124.9 ms are allowed"]


def test_an_error_is_an_outcome_that_was_not_meant():
    records = [request(0), request(1, outcome="broken"), request(2, outcome="broken", meant=["broken"])]
    assert missed({"default": {"error_share": 0.3}}, records) == ["streaming: error_share is 0.333333; at most 0.3 are allowed"]


def test_an_operations_own_limit_stands_before_the_default():
    records = [request(0, seconds=2.0)]
    assert missed({"default": {"latency_p99_ms": 1}, "streaming": {"latency_p99_ms": 3000}}, records) == []


def test_a_default_of_streams_says_nothing_of_what_has_none_but_an_own_one_does():
    whole = [request(0, operation="chat", first_token=None)]
    assert missed({"default": {"first_token_p95_ms": 1}}, whole) == []
    assert missed({"chat": {"first_token_p95_ms": 1}}, whole) == ["chat: first_token_p95_ms was not measured; at most 1 ms are allowed"]


def test_lost_records():
    ledger = reconcile([request(0)], [line(1)])
    assert missed({"default": {"lost_records": 0}}, [request(0)], ledger) == ["all: lost_records is 2; at most 0 are allowed"]
    assert missed({"default": {"lost_records": 0}}, [request(0)], Ledger()) == []


def test_nothing_asked_keeps_nothing():
    assert missed({}, []) == ["all: requests was not measured; at most 0 are allowed"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", "no table of operations"),
        ("default: 3", "default is no table"),
        ("default: {speed: 1}", "has no objective speed"),
        ("chat: {lost_records: 1}", "has no objective lost_records"),
        ("default: {error_share: -1}", "no limit"),
        ("default: {error_share: yes}", "no limit"),
        ("default: {", "no YAML"),
    ],
)
def test_a_file_that_is_wrong_says_where(tmp_path, text, message):
    path = tmp_path / "slo.yaml"
    path.write_text(text)
    with pytest.raises(BadObjectives, match=message):
        objectives.read(path)


def test_a_table_shows_each_operation_and_what_went_wrong():
    text = summary.table(document([request(0), request(1, outcome="lost", error="reset")]))
    assert "streaming" in text and "1 x lost: reset" in text
