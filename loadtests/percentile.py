"""Exact percentiles of raw values, with all their digits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypedDict


class Spread(TypedDict):
    """Percentiles of one kind of figure, in milliseconds."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


def percentile(ascending: list[float], part: float) -> float:
    """The smallest value that at least this part of all does not exceed (nearest rank): one that was measured, never one in between.

    Raises ValueError for no values, and for a part outside (0, 1].
    """
    if not ascending or not 0 < part <= 1:
        raise ValueError(f"the {part} quantile of {len(ascending)} values")
    # A product such as 0.95 * 20 may lie a hair above the whole number that it is.
    return ascending[max(0, math.ceil(round(part * len(ascending), 9)) - 1)]


def spread(seconds: Iterable[float]) -> Spread | None:
    """Of values in seconds; None for none."""
    found = sorted(value * 1000 for value in seconds)
    if not found:
        return None
    return {
        "count": len(found),
        "mean": round(math.fsum(found) / len(found), 3),
        "p50": round(percentile(found, 0.50), 3),
        "p90": round(percentile(found, 0.90), 3),
        "p95": round(percentile(found, 0.95), 3),
        "p99": round(percentile(found, 0.99), 3),
        "max": round(found[-1], 3),
    }
