"""What most of a stream of numbers are below."""

from __future__ import annotations

import random

import pytest

from proxy.core.quantile import Quantile


def test_nothing_is_said_before_there_are_enough_numbers_and_then_it_is_exact():
    quantile = Quantile(0.95, 20)
    for number in range(19, 0, -1):
        quantile.add(float(number))
        assert quantile.value is None
    quantile.add(20.0)
    assert quantile.value == 19.0


@pytest.mark.parametrize("share", [0.5, 0.9, 0.95, 0.99])
def test_it_comes_near_the_share_and_follows_when_the_numbers_change(share: float):
    draw = random.Random(7)
    quantile = Quantile(share, 50)
    for scale in (1.0, 8.0):
        below = 0
        for at in range(6000):
            number = scale * draw.lognormvariate(0.0, 0.5)
            below += at >= 2000 and quantile.value is not None and number <= quantile.value
            quantile.add(number)
        assert below / 4000 == pytest.approx(share, abs=0.015)


def test_a_lower_bound_that_is_above_it_counts_like_the_number_itself():
    one, other = Quantile(0.9, 2), Quantile(0.9, 2)
    for number, bound in ((1.0, 1.0), (2.0, 2.0), (50.0, 3.0)):
        one.add(number)
        other.add(bound)
    assert one.value == other.value


def test_it_can_rise_from_nothing():
    quantile = Quantile(0.9, 2)
    for _ in range(5):
        quantile.add(0.0)
    for _ in range(500):
        quantile.add(1.0)
    assert quantile.value is not None and quantile.value > 0.9
