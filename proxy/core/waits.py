"""How long to wait between tries of something that nobody but ourselves waits for: a database, a Redis."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator


def waits(first: float, most: float, draw: Callable[[], float] = random.random) -> Iterator[float]:
    """Seconds, without end: `first`, doubled each time up to `most`, and each shortened by up to half, so that those who lost the same
    server do not all come back at one moment. `draw` gives numbers from 0 to 1.
    """
    longest = first
    while True:
        yield longest * (1.0 - draw() / 2)
        longest = min(longest * 2, most)
