"""Whether a figure stays where it is: the slope of its line, and the most that it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Margin:
    """What is still flat.

    per_minute  how far the line may rise in a minute
    least       how far it may rise in all, however short the time: what cannot be told from noise
    above       how far over the median any value may lie
    """

    per_minute: float
    least: float
    above: float


@dataclass(frozen=True, slots=True)
class Flatness:
    """A figure over time, after warm-up."""

    name: str
    seconds: float
    per_minute: float
    median: float
    most: float
    margin: Margin

    @property
    def faults(self) -> list[str]:
        """What is not flat about it."""
        found = []
        minutes = self.seconds / 60
        rise, allowed = self.per_minute * minutes, max(self.margin.least, self.margin.per_minute * minutes)
        if rise > allowed:
            found.append(f"{self.name} grew by {rise:.6g} in {minutes:.1f} minutes; at most {allowed:.6g} is flat")
        if self.most > self.median + self.margin.above:
            found.append(f"{self.name} was {self.most:.6g}, more than {self.margin.above:g} above its median of {self.median:.6g}")
        return found

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the line that fits best by Theil and Sen: the median of the slopes of pairs, so that single peaks do not tilt it.

    Pairs are those half of the series apart, which is enough for a line and keeps the work linear. 0 for fewer than four points.
    """
    half = len(points) // 2
    pairs = zip(points[:half], points[len(points) - half :], strict=True)
    found = [(later[1] - earlier[1]) / (later[0] - earlier[0]) for earlier, later in pairs if later[0] > earlier[0]]
    return median(found) if len(points) >= 4 and found else 0.0


def flatness(name: str, points: Sequence[tuple[float, float]], margin: Margin) -> Flatness:
    """Of (seconds, value). Raises ValueError for no points."""
    values = [value for _, value in points]
    if not values:
        raise ValueError(f"there are no values of {name}")
    return Flatness(name, points[-1][0] - points[0][0], slope(points) * 60, median(values), max(values), margin)
