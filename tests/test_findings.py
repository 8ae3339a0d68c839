"""What one worker finds the others are told, and those that start later too."""

from __future__ import annotations

from typing import Any

from proxy.core.unpaid import Unpaid
from proxy.core.whereabouts import Whereabouts
from proxy.findings import Findings


class Worker:
    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def tell(self, name: str, value: Any = None) -> None:
        self.told.append((name, value))


def test_what_one_has_found_the_others_are_told_and_it_is_not():
    one, other, third = Worker(), Worker(), Worker()
    findings = Findings([one, other, third], Whereabouts(), Unpaid())
    findings.heard(one, "health", {"a": "up"})
    findings.heard(other, "whereabouts", [["resp_1", "a"]])
    findings.heard(one, "numbers", {})
    assert (one.told, other.told) == ([("whereabouts", [["resp_1", "a"]])], [("health", {"a": "up"})])
    assert third.told == [*other.told, *one.told]


def test_who_starts_when_nothing_is_known_is_told_nothing():
    worker = Worker()
    Findings([worker], Whereabouts(), Unpaid()).heard(worker, "ready", ([], []))
    assert worker.told == []


def test_who_is_started_again_is_told_all_that_was_found_the_oldest_first_and_the_newest_of_it_where_it_is_too_much():
    one, other = Worker(), Worker()
    findings = Findings([one, other], Whereabouts(2), Unpaid())
    findings.heard(one, "health", {"a": "up", "b": "up"})
    findings.heard(one, "health", {"b": "down"})
    for id in ("resp_1", "resp_2", "resp_3"):
        findings.heard(one, "whereabouts", [[id, "a"]])
    findings.heard(one, "unpaid", [["resp_1", 10, 0], ["resp_2", 9, 0]])
    findings.heard(one, "unpaid", [["resp_1", None, None]])
    other.told.clear()
    findings.heard(other, "ready", ([], []))
    assert other.told == [
        ("health", {"a": "up", "b": "down"}),
        ("whereabouts", [("resp_2", "a"), ("resp_3", "a")]),
        ("unpaid", [("resp_2", 9, 0)]),
    ]
