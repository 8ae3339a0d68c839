"""Durations and sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.units import format_duration, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60s", 60), ("1m30s", 90), ("250ms", 0.25), ("1.5h", 5400), ("1d", 86400), ("10us", 1e-5), (" 5s ", 5), ("0s", 0), ("1h1m1s", 3661)],
)
def test_a_duration_is_numbers_with_units(text: str, seconds: float):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "60", "s", "5 s", "1m 30s", "-5s", "5x", "1e3s", "5s!", "½s"])
def test_what_is_no_duration_is_refused_with_an_example(text: str):
    with pytest.raises(ValueError, match="write a number and a unit"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("100", 100), ("32MiB", 32 * 2**20), ("64kB", 64_000), ("64KiB", 65_536), ("1.5 GiB", 3 * 2**29), ("7b", 7), ("1gb", 10**9)],
)
def test_a_size_is_a_number_with_a_unit(text: str, size: int):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1 TiB", "1 MiB MiB", "1,5MiB"])
def test_what_is_no_size_is_refused_with_an_example(text: str):
    with pytest.raises(ValueError, match="write a number and a unit"):
        parse_size(text)


def test_a_size_that_no_number_holds_is_refused():
    with pytest.raises(ValueError, match="too large"):
        parse_size("9" * 400 + "GiB")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (90, "1m30s"), (60, "1m"), (0.25, "250ms"), (0.00025, "250us"), (1.5, "1.5s"), (5, "5s"), (3600, "60m")],
)
def test_a_duration_is_written_as_short_as_may_be(seconds: float, text: str):
    assert format_duration(seconds) == text


@given(st.integers(0, 10**12).map(lambda microseconds: microseconds / 1e6))
def test_a_written_duration_is_read_back(seconds: float):
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=1e-6)
