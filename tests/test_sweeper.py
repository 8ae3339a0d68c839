"""Deadlines that are looked over together."""

from __future__ import annotations

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
