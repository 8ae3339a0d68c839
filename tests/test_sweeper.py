"""Deadlines that are looked over together."""

from __future__ import annotations

import pytest

from proxy.sweeper import Sweeper
from tests.core.doubles import HandClock


class Item:
    def __init__(self, due: float) -> None:
        self.due = due
        self.expired = 0

    def expire(self) -> None:
        self.expired += 1


async def test_what_is_due_by_the_given_clock_expires_once():
    clock = HandClock()
    sweeper = Sweeper(clock.monotonic)
    early, late, never = Item(clock.now + 5), Item(clock.now + 50), Item(float("inf"))
    for item in (early, late, never):
        sweeper.add(item)
    sweeper._look()
    assert (early.expired, late.expired) == (0, 0)
    clock.move(5)
    sweeper._look()
    sweeper._look()
    assert (early.expired, late.expired, never.expired) == (1, 0, 0)
    assert len(sweeper) == 2
    for item in (late, never):
        sweeper.remove(item)


async def test_one_that_is_broken_keeps_no_other_from_its_end():
    class Broken(Item):
        def expire(self) -> None:
            super().expire()
            raise RuntimeError("broken")

    clock = HandClock()
    sweeper = Sweeper(clock.monotonic)
    items = [Broken(clock.now), *(Item(clock.now) for _ in range(8)), Broken(clock.now)]
    for item in items:
        sweeper.add(item)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            sweeper._look()
        assert sweeper._handle is not None or not len(sweeper), "what is left is looked at again"
    sweeper._look()
    assert [item.expired for item in items] == [1] * len(items)


async def test_a_deadline_may_be_moved():
    clock = HandClock()
    sweeper = Sweeper(clock.monotonic)
    item = Item(clock.now + 5)
    sweeper.add(item)
    item.due += 10
    clock.move(6)
    sweeper._look()
    assert item.expired == 0
    clock.move(10)
    sweeper._look()
    assert item.expired == 1
    assert not len(sweeper)
