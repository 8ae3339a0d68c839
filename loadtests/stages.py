"""How a load grows and falls: shares of its peak over its time.

The same curves set the users of a closed loop and the rate of an open one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

#: Part of the time that has passed, from 0 to 1 -> part of the peak, from 0 to 1.
Curve = Callable[[float], float]

_STEPS = 5
_SPIKE_BASE = 0.1


def flat(_: float) -> float:
    """The peak all the time."""
    return 1.0


def ramp(part: float) -> float:
    """Up in a straight line for 80 % of the time, then level."""
    return min(1.0, part / 0.8)


def step(part: float) -> float:
    """Five stairs of the same length."""
    return min(_STEPS, math.floor(part * _STEPS) + 1) / _STEPS


def spike(part: float) -> float:
    """A tenth, and in the middle fifth of the time the peak at once."""
    return 1.0 if 0.4 <= part < 0.6 else _SPIKE_BASE


def soak(part: float) -> float:
    """Up within the first twentieth, then level to the end."""
    return min(1.0, part / 0.05)


CURVES: dict[str, Curve] = {"flat": flat, "ramp": ramp, "step": step, "spike": spike, "soak": soak}


def users_at(shape: str, passed: float, seconds: float, peak: int) -> int | None:
    """How many users there are to be, at least one; None when the time is up. Raises KeyError for no such shape."""
    curve = CURVES[shape]
    return None if passed >= seconds else max(1, round(peak * curve(passed / seconds)))
