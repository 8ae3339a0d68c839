"""Percentiles are values that were measured, with all their digits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.percentile import percentile, spread


@pytest.mark.parametrize(
    ("values", "part", "expected"),
    [
        ([7.0], 0.01, 7.0),
        ([7.0], 1.0, 7.0),
        ([1.0, 2.0], 0.5, 1.0),
        ([1.0, 2.0], 0.51, 2.0),
        ([float(value) for value in range(1, 101)], 0.99, 99.0),
        ([float(value) for value in range(1, 101)], 0.5, 50.0),
        ([float(value) for value in range(1, 21)], 0.95, 19.0),
        ([float(value) for value in range(1, 1001)], 0.999, 999.0),
    ],
)
def test_nearest_rank(values, part, expected):
    assert percentile(values, part) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.integers(1, 100))
def test_at_least_that_part_is_no_greater_and_one_less_would_not_do(values, hundredths):
    ascending = sorted(values)
    found = percentile(ascending, hundredths / 100)
    assert found in ascending
    assert sum(value <= found for value in ascending) * 100 >= hundredths * len(ascending)
    assert sum(value < found for value in ascending) * 100 < hundredths * len(ascending)


@pytest.mark.parametrize(("values", "part"), [([], 0.5), ([1.0], 0.0), ([1.0], 1.01)])
def test_what_has_no_percentile(values, part):
    with pytest.raises(ValueError, match="quantile"):
        percentile(values, part)


def test_a_spread_is_in_milliseconds_and_keeps_three_digits_behind_the_point():
    found = spread([0.1234564, 0.2, 0.3])
    assert found == {"count": 3, "mean": 207.819, "p50": 200.0, "p90": 300.0, "p95": 300.0, "p99": 300.0, "max": 300.0}
    assert spread([]) is None
