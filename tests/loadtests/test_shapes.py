"""Shapes, and the arrivals that follow them."""

from __future__ import annotations

import itertools

import pytest

from loadtests.arrivals import arrivals, portion
from loadtests.stages import CURVES, users_at


@pytest.mark.parametrize(
    ("shape", "users"),
    [
        ("flat", [10, 10, 10, 10, 10]),
        ("ramp", [1, 3, 6, 9, 10]),
        ("step", [2, 4, 6, 8, 10]),
        ("spike", [1, 1, 10, 1, 1]),
        ("soak", [1, 10, 10, 10, 10]),
    ],
)
def test_users_over_time(shape, users):
    found = [users_at(shape, passed, 100, 10) for passed in (0, 25, 50, 75, 99)]
    assert found == [pytest.approx(value, abs=1) if shape == "ramp" else value for value in users]
    assert users_at(shape, 100, 100, 10) is None


@pytest.mark.parametrize("shape", CURVES)
def test_a_share_is_never_more_than_all_and_never_negative(shape):
    assert all(0 <= CURVES[shape](step / 1000) <= 1 for step in range(1000))


def test_arrivals_ascend_within_the_time_at_the_rate_and_the_seed_decides_them():
    found = list(arrivals(CURVES["flat"], 200, 50, seed=1))
    assert found == sorted(found)
    assert found[0] >= 0 and found[-1] < 50
    assert len(found) == pytest.approx(10_000, rel=0.05)
    assert found == list(arrivals(CURVES["flat"], 200, 50, seed=1))
    assert found != list(arrivals(CURVES["flat"], 200, 50, seed=2))


def test_times_between_arrivals_are_exponential():
    found = list(arrivals(CURVES["flat"], 100, 100, seed=3))
    between = [later - earlier for earlier, later in itertools.pairwise(found)]
    mean = sum(between) / len(between)
    deviation = (sum((value - mean) ** 2 for value in between) / len(between)) ** 0.5
    assert mean == pytest.approx(0.01, rel=0.05)
    assert deviation == pytest.approx(mean, rel=0.05)


def test_arrivals_follow_the_shape():
    found = list(arrivals(CURVES["spike"], 100, 100, seed=4))
    inside = sum(40 <= at < 60 for at in found)
    assert inside == pytest.approx(2000, rel=0.1)
    assert len(found) - inside == pytest.approx(800, rel=0.15)


def test_generators_together_offer_each_arrival_once():
    whole = list(arrivals(CURVES["flat"], 50, 10, seed=5))
    parts = [list(portion(arrivals(CURVES["flat"], 50, 10, seed=5), number, 3)) for number in range(3)]
    assert sorted(itertools.chain(*parts)) == whole
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
