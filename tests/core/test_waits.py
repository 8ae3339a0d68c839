"""Waits between tries."""

from __future__ import annotations

from itertools import islice

from proxy.core.waits import waits


def test_they_double_up_to_the_longest():
    assert list(islice(waits(0.1, 1.0, lambda: 0.0), 6)) == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_each_is_shortened_by_up_to_half_so_that_many_do_not_come_together():
    assert list(islice(waits(0.2, 0.4, lambda: 1.0), 3)) == [0.1, 0.2, 0.2]
    found = {next(waits(1.0, 1.0)) for _ in range(20)}
    assert len(found) > 10
    assert all(0.5 <= wait <= 1.0 for wait in found)
