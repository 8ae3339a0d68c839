"""Every request is on both accounts, or it is told."""

from __future__ import annotations

from loadtests.ledger import gateway_records, reconcile
from tests.loadtests.records import line, request


def test_the_same_on_both_sides():
    ledger = reconcile([request(1), request(2, outcome="cancelled")], [line(2, "cancelled"), line(1)])
    assert ledger.is_balanced
    assert ledger.pairs == {"cancelled = cancelled": 1, "ok = ok": 1}


def test_a_request_without_a_record_is_lost():
    ledger = reconcile([request(1), request(2)], [line(1)])
    assert (ledger.missing, ledger.lost) == (["req_2"], 1)


def test_a_record_without_a_request_is_lost():
    assert reconcile([request(1)], [line(1), line(2)]).lost == 1


def test_two_records_of_one_request():
    assert reconcile([request(1)], [line(1), line(1)]).lost == 1


def test_a_client_that_left_before_the_head_accounts_for_one_record_of_a_client_that_left():
    left = request(1, outcome="cancelled", id=None)
    assert reconcile([left], [line(7, "cancelled")]).lost == 0
    assert reconcile([left], []).lost == 0
    assert reconcile([left], [line(7, "cancelled"), line(8, "cancelled")]).lost == 1
    assert reconcile([left], [line(7, "client_error")]).lost == 1


def test_records_that_tell_something_else():
    ledger = reconcile([request(1), request(2, outcome="broken")], [line(1, "cancelled"), line(2, "ok")])
    assert len(ledger.differing) == 2
    assert not ledger.is_balanced


def test_only_the_request_lines_of_a_log_are_records(tmp_path):
    log = tmp_path / "log"
    log.write_text('{"event":"ready"}\nnot JSON\n[1]\n{"event": "request", "id": "a", "outcome": "ok"}\n')
    assert [found["id"] for found in gateway_records(log)] == ["a"]
