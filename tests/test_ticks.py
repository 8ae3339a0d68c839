"""Ticks: whoever looks again and again looks at the same moments as the others."""

from __future__ import annotations

import asyncio

import pytest

from proxy.ticks import TICK, next_tick, on_tick


@pytest.mark.parametrize("every", [TICK, 2 * TICK, 5 * TICK])
@pytest.mark.parametrize("now", [0.0, 0.001, 0.0449, 0.046, 0.05, 12345.6789, 98765.4999])
def test_the_next_tick_is_ahead_and_near_and_a_whole_one(every: float, now: float):
    due = next_tick(now, every)
    assert 0.005 < due - now <= every + 0.005
    assert due / every == pytest.approx(round(due / every))


@pytest.mark.parametrize("early", [0.0, 0.0005, 0.001])
def test_a_timer_that_comes_early_is_not_asked_for_the_same_tick_again(early: float):
    assert next_tick(100 * TICK - early) == pytest.approx(101 * TICK)


async def test_looks_at_different_times_are_had_at_the_same_moment():
    loop = asyncio.get_running_loop()
    looks: list[float] = []
    await asyncio.sleep(next_tick(loop.time(), 2 * TICK) - loop.time() + 0.01)
    for _ in range(3):
        on_tick(lambda: looks.append(loop.time()), 2 * TICK)
        await asyncio.sleep(0.001)
    await asyncio.sleep(3 * TICK)
    assert len(looks) == 3
    assert max(looks) - min(looks) < TICK / 2
