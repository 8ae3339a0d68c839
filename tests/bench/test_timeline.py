"""What lies between marks adds up to the whole, and a mark that cannot be set is an error that says where."""

from __future__ import annotations

import pytest

from bench import timeline
from bench.timeline import SeamMissing, Timeline

RULES = (("*.write", "*.written", timeline.HARNESS), ("a", "b", "first"), ("b", "*", "second"))


def test_all_time_belongs_to_a_layer():
    marks = [("a", 100), ("b", 110), ("c", 140), ("x.write", 145), ("x.written", 160), ("b", 161), ("a", 163)]
    spent, pairs = timeline.segments(marks, RULES)
    assert spent == {"first": 10, "second": 32, "c to x.write": 5, timeline.HARNESS: 15, "x.written to b": 1}
    assert sum(spent.values()) == 163 - 100
    assert pairs["second"] == 2


def test_the_first_rule_that_fits_names_the_layer():
    assert timeline.layer_of(RULES, "a", "b") == "first"
    assert timeline.layer_of(RULES, "b", "x.written") == "second"


def test_what_no_rule_foresees_keeps_the_names_of_its_marks():
    assert timeline.layer_of(RULES, "new", "newer") == "new to newer"


def test_an_iteration_that_was_not_in_a_layer_counts_as_none():
    assert timeline.medians([{"a": 1}, {"a": 3, "b": 8}, {"a": 5}]) == {"a": 3, "b": 0}


class Server:
    def answer(self, number):
        return number + 1

    async def wait(self):
        return "waited"


async def test_marks_surround_what_they_measure_and_leave_nothing_behind():
    line, original = Timeline(), vars(Server)["answer"]
    with (
        timeline.replaced(Server, "answer", timeline.around(line, "answer")),
        timeline.replaced(Server, "wait", timeline.awaiting(line, "wait")),
    ):
        assert Server().answer(1) == 2
        assert await Server().wait() == "waited"
    assert vars(Server)["answer"] is original
    assert [name for name, _ in line.take()] == ["answer.enter", "answer.exit", "wait.enter", "wait.exit"]
    assert line.take() == []


def test_a_failing_call_is_marked_to_its_end():
    line = Timeline()
    with timeline.replaced(Server, "answer", timeline.around(line, "answer")), pytest.raises(TypeError):
        Server().answer(None)
    assert [name for name, _ in line.take()] == ["answer.enter", "answer.exit"]


def test_what_is_no_longer_there_is_named():
    with pytest.raises(SeamMissing, match=r"Server\.gone is not there"), timeline.replaced(Server, "gone", lambda function: function):
        pass
