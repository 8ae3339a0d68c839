"""The arithmetic of paired rounds.

Machines are noisy, and neighbours come and go; what is compared is therefore measured in the same round, one after the other, and what is
reported is the median of the per-round figures with the least and the greatest.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Sample:
    """One server in one slot of one round.

    `count` is what the load generator counted as correctly answered (requests or chunks), `cpu_s` the server's CPU seconds meanwhile
    (None where there is no server: `direct`), `upstream_cpu_s` the upstream's; `others_share` is what else ran on the server's core, as
    a share of the wall time; `figures` are the slot's own (latencies in ms, reads per chunk).
    """

    round: int
    measure: str
    server: str
    count: int
    failed: int
    wall_s: float
    cpu_s: float | None
    upstream_cpu_s: float
    others_share: float
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def cost_us(self) -> float | None:
        """Microseconds of the server's CPU per request or chunk; None without a server or without a success."""
        return None if self.cpu_s is None or not self.count else self.cpu_s / self.count * 1e6


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of the rounds, the least and the greatest."""

    median: float
    low: float
    high: float


def spread(values: Iterable[float]) -> Spread | None:
    """None when there is nothing to summarise."""
    found = sorted(values)
    return Spread(statistics.median(found), found[0], found[-1]) if found else None


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: the least value that at least `share` (0 to 1) of all do not exceed. Raises ValueError on none."""
    if not values:
        raise ValueError("no values")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def costs(samples: Iterable[Sample], measure: str, server: str) -> list[float]:
    """Microseconds per unit, one per round."""
    return [cost for sample in samples if (sample.measure, sample.server) == (measure, server) and (cost := sample.cost_us) is not None]


def paired_ratios(samples: Iterable[Sample], measure: str, subject: str, reference: str) -> list[float]:
    """Cost of `subject` over cost of `reference`, one per round that has both."""
    pair = (subject, reference)
    return _paired(samples, measure, pair, lambda sample: sample.cost_us, lambda mine, other: mine / other if other else None)


def paired_differences(samples: Iterable[Sample], measure: str, figure: str, subject: str, reference: str) -> list[float]:
    """A figure of `subject` less that of `reference`, one per round that has both."""
    return _paired(samples, measure, (subject, reference), lambda sample: sample.figures.get(figure), lambda mine, other: mine - other)


def _paired(
    samples: Iterable[Sample],
    measure: str,
    servers: tuple[str, str],
    value: Callable[[Sample], float | None],
    combine: Callable[[float, float], float | None],
) -> list[float]:
    by_round: dict[int, dict[str, float | None]] = {}
    for sample in samples:
        if sample.measure == measure:
            by_round.setdefault(sample.round, {})[sample.server] = value(sample)
    pairs = [(found.get(servers[0]), found.get(servers[1])) for _, found in sorted(by_round.items())]
    combined = [combine(mine, other) for mine, other in pairs if mine is not None and other is not None]
    return [result for result in combined if result is not None]
