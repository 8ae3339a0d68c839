"""What is not accounted for yet: once, whoever is told of its end, and told to other processes."""

from __future__ import annotations

import pytest

from proxy.core.call import Usage
from proxy.core.unpaid import Told, Unpaid

PAID = Usage(10, 2)


@pytest.mark.parametrize(
    ("whole", "rest"),
    [
        (Usage(50, 90, 20, 80, True), Usage(40, 88, 20, 80, True)),
        (Usage(10, 2, 10, 2, True), Usage(0, 0, 0, 0, True)),
        (Usage(3, 90, 3, 0, True), Usage(0, 88, 0, 0, True)),
    ],
)
def test_what_was_accounted_for_is_taken_from_the_whole_which_is_settled_once(whole: Usage, rest: Usage):
    unpaid = Unpaid()
    unpaid.note("resp_1", PAID)
    assert unpaid.settle("resp_1", whole) == rest
    assert "resp_1" not in unpaid
    assert unpaid.settle("resp_1", whole) is None


def test_other_processes_know_it_and_that_it_is_settled():
    one, other = Unpaid(), Unpaid()
    told: list[list[Told]] = []
    one.tell, other.tell = other.take, told.append
    one.note("resp_1", PAID)
    assert "resp_1" in other
    assert other.known == [("resp_1", 10, 2)]
    assert one.settle("resp_1", Usage(50, 90)) == Usage(40, 88)
    assert other.settle("resp_1", Usage(50, 90)) is None
    assert told == []


def test_the_oldest_are_forgotten_and_ids_without_measure_not_kept():
    unpaid = Unpaid(2)
    for id in ("1", "2", "3", "x" * 513):
        unpaid.note(id, PAID)
    assert [id in unpaid for id in ("1", "2", "3", "x" * 513)] == [False, True, True, False]
