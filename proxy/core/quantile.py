"""What most of a stream of numbers are below, in constant memory, following slow change.

Source: stochastic approximation; Tierney, "A space-efficient recursive procedure for estimating a quantile of an unknown distribution",
SIAM Journal on Scientific and Statistical Computing 4, 1983.
"""

from __future__ import annotations

from math import ceil, exp

#: How far one number moves the value, as a share of it: 1 % of surprise after some twenty numbers, ten times slower after fifty.
_STEP = 0.05

#: What a value cannot fall below, or it could never rise again.
_LEAST = 1e-6


class Quantile:
    """Positive numbers of which `share` are at most `value`.

    Exact over the first `samples`, None before; from then on each number moves it a little up or down. Only whether a number is above it
    matters then: one of which only a lower bound is known, and that is above it, counts in full.
    """

    __slots__ = ("_down", "_first", "_samples", "_share", "_up", "value")

    def __init__(self, share: float, samples: int) -> None:
        self.value: float | None = None
        self._share = share
        self._samples = samples
        self._first: list[float] = []
        self._up = exp(_STEP * share)
        self._down = exp(-_STEP * (1.0 - share))

    def add(self, number: float) -> None:
        value = self.value
        if value is not None:
            value *= self._up if number > value else self._down
            self.value = value if value > _LEAST else _LEAST
            return
        first = self._first
        first.append(number)
        if len(first) >= self._samples:
            first.sort()
            self.value = max(first[ceil(self._share * len(first)) - 1], _LEAST)
            self._first = []
