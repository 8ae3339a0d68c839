"""Few prompts are asked often, most rarely."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from loadtests.prompts import Zipf, prompt


def test_shares_fall_as_a_power_of_the_rank_and_add_up():
    shares = Zipf(100, 1.5).shares
    assert sum(shares) == pytest.approx(1)
    assert shares[0] / shares[9] == pytest.approx(10**1.5)


def test_an_exponent_of_zero_makes_all_equal():
    assert Zipf(4, 0).shares == [0.25] * 4


@pytest.mark.parametrize(("uniform", "rank"), [(0.0, 0), (0.24999, 0), (0.25, 1), (0.9999999, 3), (1.0, 3)])
def test_a_number_falls_on_its_rank(uniform, rank):
    assert Zipf(4, 0).rank(uniform) == rank


def test_what_is_drawn_has_the_shares():
    zipf, random = Zipf(20, 1.1), Random(5)
    drawn = Counter(zipf.rank(random.random()) for _ in range(20_000))
    for rank in range(5):
        assert drawn[rank] / 20_000 == pytest.approx(zipf.shares[rank], abs=0.015)


@pytest.mark.parametrize(("size", "exponent"), [(0, 1.0), (5, -0.1)])
def test_no_such_catalogue(size, exponent):
    with pytest.raises(ValueError, match="catalogue"):
        Zipf(size, exponent)


def test_a_rank_has_one_text_and_no_other_has_it():
    assert prompt(3) == prompt(3)
    assert len({prompt(rank) for rank in range(500)}) == 500
