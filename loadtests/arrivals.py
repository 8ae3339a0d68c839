"""When requests of an open loop are to be sent, whatever becomes of those before them.

A closed loop asks less while the server is slow, and so hides the queue from its own figures (called coordinated omission by G. Tene).
Here the times are drawn before the run: a Poisson process whose rate follows a curve, by thinning (P. A. W. Lewis and G. S. Shedler, 1979).
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from loadtests.stages import Curve


def arrivals(curve: Curve, peak: float, seconds: float, seed: int) -> Iterator[float]:
    """Seconds after the beginning, ascending. `peak` is in requests a second."""
    random = Random(seed)
    at = random.expovariate(peak)
    while at < seconds:
        if random.random() < curve(at / seconds):
            yield at
        at += random.expovariate(peak)


def portion(times: Iterator[float], number: int, of: int) -> Iterator[float]:
    """What one of several generators offers: every `of`-th, so that together they offer each once."""
    return (at for index, at in enumerate(times) if index % of == number)
