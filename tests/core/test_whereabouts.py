"""What is known of where things lie: the newest and the last that were asked for, and what other processes have told."""

from __future__ import annotations

from proxy.core.whereabouts import Whereabouts


def test_what_is_noted_is_found_and_told_once_and_what_was_told_is_not_told_on():
    told: list[list[tuple[str, str]]] = []
    known = Whereabouts()
    known.tell = told.append
    known.note("resp_1", "a")
    known.take([("resp_2", "b")])
    known.note("resp_1", "a")
    assert (known.find("resp_1"), known.find("resp_2"), known.find("resp_3")) == ("a", "b", None)
    assert told == [[("resp_1", "a")]]
    assert known.known == [("resp_1", "a"), ("resp_2", "b")], "in the order of finding"


def test_what_was_noted_first_holds_whatever_another_answer_calls_itself():
    told: list[list[tuple[str, str]]] = []
    known = Whereabouts()
    known.tell = told.append
    known.note("resp_1", "a")
    known.note("resp_1", "b")
    known.take([("resp_1", "b")])
    assert (known.find("resp_1"), known.holders, told) == ("a", ("a", "b"), [[("resp_1", "a")]])
    known.forget("resp_1")
    known.note("resp_1", "b")
    assert known.find("resp_1") == "b"


def test_the_oldest_that_nobody_asks_for_is_forgotten_first_and_who_ever_held_something_never():
    known = Whereabouts(2)
    known.note("1", "a")
    known.note("2", "b")
    assert known.find("1") == "a"
    known.note("3", "b")
    assert (known.find("1"), known.find("2"), known.find("3")) == ("a", None, "b")
    for id in ("4", "5"):
        known.note(id, "b")
    assert (known.find("1"), known.holders) == (None, ("a", "b"))


def test_an_id_without_measure_is_not_kept():
    told: list[list[tuple[str, str]]] = []
    known = Whereabouts()
    known.tell = told.append
    known.note("x" * 513, "a")
    assert (known.find("x" * 513), known.holders, told) == (None, (), [])
    known.note("x" * 512, "a")
    assert known.find("x" * 512) == "a"
