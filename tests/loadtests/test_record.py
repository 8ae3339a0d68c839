"""A record says the same after it was written and read."""

from __future__ import annotations

import pytest

from loadtests import record
from loadtests.plan import VARIABLE, Plan, read
from loadtests.record import Record
from tests.loadtests.records import request


def test_written_and_read():
    for found in (request(gaps_ms=[1.5, 2.25], tokens=3), request(outcome="lost", id=None, first_token=None, error="why")):
        line = found.encode()
        assert line.endswith("}\n") and line.count("\n") == 1
        assert Record.decode(line) == found


def test_latency_counts_from_the_intended_start_and_service_from_the_sending():
    found = request(wait=0.5, seconds=0.6, first=0.55)
    assert found.latency == pytest.approx(0.6)
    assert found.service == pytest.approx(0.1)
    assert found.time_to_first_token == pytest.approx(0.55)


def test_records_of_all_processes_are_read_in_the_order_of_their_start(tmp_path):
    (tmp_path / "records-1.jsonl").write_text(request(3).encode() + request(1).encode())
    (tmp_path / "records-2.jsonl").write_text(request(2).encode())
    assert [found.id for found in record.read(tmp_path)] == ["req_1", "req_2", "req_3"]


def test_a_plan_reaches_another_process():
    plan = Plan(seconds=7, models=("a", "b"), shape="ramp")
    assert read({VARIABLE: plan.encode()}) == plan
    assert read({}) == Plan()
    with pytest.raises(ValueError, match="no colour"):
        Plan.decode('{"colour": 1}')
