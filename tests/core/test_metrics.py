"""Counting without locks."""

from __future__ import annotations

import copy

import pytest

from proxy.core.metrics import MANY, Distribution, Registry, Value


def test_a_value_goes_up_down_and_to_a_number():
    value = Value()
    value.add()
    value.add(2.5)
    value.add(-1)
    assert value.value == 2.5
    value.set(7)
    assert value.value == 7


@pytest.mark.parametrize(("observed", "counts"), [(0.5, [1, 0, 0]), (1.0, [1, 0, 0]), (1.5, [0, 1, 0]), (2.0, [0, 1, 0]), (9.0, [0, 0, 1])])
def test_an_observation_falls_under_the_first_bound_that_is_not_below_it(observed: float, counts: list[int]):
    found = Distribution((1.0, 2.0))
    found.observe(observed)
    assert found.counts == counts
    assert found.total == observed


@pytest.mark.parametrize("times", [1, MANY - 1, MANY, 3 * MANY + 1])
def test_values_are_counted_whenever_somebody_looks_and_few_wait_for_it(times: int):
    found, values = Distribution((1.0, 2.0)), (2.0, 0.5, 9.0, 1.0, 1.5)
    for number in range(times):
        found.observe(values[number % 5])
    assert len(found.fresh) < MANY
    seen = [values[number % 5] for number in range(times)]
    assert found.counts == [
        sum(value <= 1.0 for value in seen),
        sum(1.0 < value <= 2.0 for value in seen),
        sum(value > 2.0 for value in seen),
    ]
    assert found.total == sum(seen)
    assert not found.fresh


def test_what_waits_to_be_counted_goes_with_a_dump():
    one, other = Registry(), Registry()
    for registry in (one, other):
        registry.histogram("n", "help", (1.0,), "a").labels("x").observe(0.5)
    one.absorb(other.dump())
    found = one.histograms["n"].labels("x")
    assert (found.counts, found.total) == ([2, 0], 1.0)


def test_a_dump_stays_as_it_is():
    registry = Registry()
    registry.counter("c_total", "help").labels().add()
    found = registry.histogram("n", "help", (1.0,)).labels()
    found.observe(0.5)
    dumped = registry.dump()
    before = copy.deepcopy(dumped)
    registry.counters["c_total"].labels().add()
    found.observe(0.5)
    found.gather()
    assert dumped == before


def test_the_same_labels_give_the_same_child():
    family = Registry().counter("n", "help", "a", "b")
    family.labels("1", "2").add()
    family.labels("1", "2").add()
    family.labels("2", "1").add()
    assert {labels: child.value for labels, child in family.children.items()} == {("1", "2"): 2, ("2", "1"): 1}


def test_a_wrong_number_of_labels_is_refused():
    family = Registry().counter("n", "help", "a")
    with pytest.raises(ValueError, match="has the labels"):
        family.labels("1", "2")
    assert not family.children


def test_asking_twice_for_a_name_gives_the_same_family():
    registry = Registry()
    assert registry.counter("n", "help", "a") is registry.counter("n", "help", "a")
    assert registry.gauge("n", "help") is registry.gauge("n", "help")
    assert registry.histogram("n", "help", (1.0,)) is registry.histogram("n", "help", (1.0,))


def test_children_of_a_histogram_have_counts_of_their_own():
    family = Registry().histogram("n", "help", (1.0,), "a")
    family.labels("x").observe(0.5)
    assert family.labels("x").counts == [1, 0]
    assert family.labels("y").counts == [0, 0]


def test_a_histogram_without_children_is_told_of():
    registry, other = Registry(), Registry()
    registry.histogram("n", "help", (1.0, 2.0), "a")
    other.absorb(registry.dump())
    assert registry.dump()["histograms"] == other.dump()["histograms"] == [["n", "help", ("a",), [1.0, 2.0], []]]
