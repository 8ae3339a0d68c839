"""When things are looked at that are looked at again and again: at the same moments, so that the process is woken once for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

#: Seconds between two looks where they are closest. The others are multiples of it.
TICK = 0.05

#: Timers may come early by what they are rounded by, in seconds: so near a tick, that one has been.
_SLACK = 0.005


def on_tick(look: Callable[[], None], every: float = TICK) -> asyncio.TimerHandle:
    """Call `look` at the next of the moments that lie `every` seconds apart, in the running loop."""
    loop = asyncio.get_running_loop()
    return loop.call_at(next_tick(loop.time(), every), look)


def next_tick(now: float, every: float = TICK) -> float:
    """When that is, in the loop's seconds: at most `every` and a little from now."""
    due = (now // every + 1) * every
    return due if due - now > _SLACK else due + every
