from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.sim.dice import Dice, Lot, digest


@pytest.mark.parametrize("share", [0, 0.01, 0.07, 0.1, 0.25, 1 / 3, 0.5, 0.999, 1])
def test_lot_says_yes_to_an_exact_share_of_every_hundred(share):
    lot = Lot(share, 7, "error")
    draws = [lot.draw() for _ in range(1000)]
    for end in range(100, 1001, 100):
        assert abs(sum(draws[:end]) - end * share) < 1
    assert sum(draws) == int(1000 * share + 1e-9)


def test_small_shares_come_true_over_longer_series():
    lot = Lot(0.001, 7)
    assert sum(lot.draw() for _ in range(10_000)) == 10


def test_order_follows_from_the_seed_and_is_not_even():
    def series(*name):
        lot = Lot(0.5, *name)
        return [lot.draw() for _ in range(200)]

    assert series(1, "error") == series(1, "error")
    assert series(1, "error") != series(2, "error") != series(2, "cut")
    assert series(1, "error")[:100] != series(1, "error")[100:]
    assert any(one == two for one, two in zip(series(1), series(1)[1:], strict=False))


@given(st.integers(), st.integers(1, 1000))
def test_dice_stay_below_their_bound(seed, bound):
    dice = Dice(seed)
    assert all(0 <= dice.below(bound) < bound for _ in range(20))


def test_dice_are_fair_enough():
    counts = [0] * 6
    dice = Dice(digest("fair"))
    for _ in range(6000):
        counts[dice.below(6)] += 1
    assert min(counts) > 850
    assert max(counts) < 1150


def test_shift_walks_through_all_options():
    dice = Dice(3)
    found = set()
    for shift in range(10):
        dice.state, dice.shift = 3, shift
        found.add(dice.below(10))
    assert found == set(range(10))
