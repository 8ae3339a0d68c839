"""Milliseconds as text are what rounding gives."""

from __future__ import annotations

import random

import pytest

from proxy.core.milliseconds import milliseconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.000"), (0.0000004, "0.000"), (0.0000006, "0.001"), (0.00125, "1.250"), (0.9999999, "1000.000"), (600.25, "600250.000")],
)
def test_milliseconds_have_three_decimals(seconds: float, text: str):
    assert milliseconds(seconds) == text


def test_any_number_is_within_half_a_microsecond():
    drawn = random.Random(7)
    for seconds in (drawn.random() * 10.0 ** drawn.randrange(-6, 4) for _ in range(10_000)):
        assert abs(float(milliseconds(seconds)) / 1e3 - seconds) <= 0.5001e-6
