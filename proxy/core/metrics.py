"""Counters, gauges and histograms for one event loop: no locks, children bound once by whoever counts.

The exposition is prometheus_client's (proxy/http/exposition.py); only the counting is ours, because it happens on every request.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

#: Values that a distribution gathers before it counts them.
MANY = 256


class Value:
    """A number that goes up (counter) or up and down (gauge)."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def add(self, amount: float = 1.0) -> None:
        self.value += amount

    def set(self, value: float) -> None:
        self.value = value


class Distribution:
    """Counts by upper bound. `counts` has one more entry than `bounds`, for what lies above the last; `total` is the sum of all values.

    Values are gathered in `fresh`, always the same list, and counted many at a time: to sort them costs less than to look for the place of
    each. Whoever appends to `fresh` himself calls `gather` when it has `MANY` or more.
    """

    __slots__ = ("_counts", "_total", "bounds", "fresh")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.fresh: list[float] = []
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def observe(self, value: float) -> None:
        self.fresh.append(value)
        if len(self.fresh) >= MANY:
            self.gather()

    @property
    def counts(self) -> list[int]:
        self.gather()
        return self._counts

    @property
    def total(self) -> float:
        self.gather()
        return self._total

    def gather(self) -> None:
        """Count what is fresh."""
        fresh, counted = self.fresh, 0
        if not fresh:
            return
        self._total += sum(fresh)
        fresh.sort()
        for at, bound in enumerate(self.bounds):
            up_to = bisect_right(fresh, bound, counted)
            self._counts[at] += up_to - counted
            counted = up_to
        self._counts[-1] += len(fresh) - counted
        fresh.clear()

    def add(self, counts: Sequence[int], total: float) -> None:
        """What another one has counted."""
        self._counts = [mine + other for mine, other in zip(self._counts, counts, strict=True)]
        self._total += total


Child = TypeVar("Child", Value, Distribution)


class Family(Generic[Child]):
    """All children of one metric, by their label values. Whoever calls `labels` bounds the values that it passes."""

    def __init__(self, name: str, help_text: str, label_names: Sequence[str], make: Callable[[], Child]) -> None:
        self.name = name
        self.help = help_text
        self.label_names = tuple(label_names)
        self.children: dict[tuple[str, ...], Child] = {}
        self._make: Callable[[], Child] = make

    def labels(self, *values: str) -> Child:
        child = self.children.get(values)
        if child is None:
            if len(values) != len(self.label_names):
                raise ValueError(f"{self.name} has the labels {self.label_names}")
            child = self.children[values] = self._make()
        return child


class Registry:
    """Every metric of a process, in the order of their making. Asking twice for a name gives the same family."""

    def __init__(self) -> None:
        self.counters: dict[str, Family[Value]] = {}
        self.gauges: dict[str, Family[Value]] = {}
        self.histograms: dict[str, Family[Distribution]] = {}
        self._bounds: dict[str, list[float]] = {}

    def counter(self, name: str, help_text: str, *label_names: str) -> Family[Value]:
        return self.counters.setdefault(name, Family[Value](name, help_text, label_names, Value))

    def gauge(self, name: str, help_text: str, *label_names: str) -> Family[Value]:
        return self.gauges.setdefault(name, Family[Value](name, help_text, label_names, Value))

    def histogram(self, name: str, help_text: str, bounds: Sequence[float], *label_names: str) -> Family[Distribution]:
        self._bounds.setdefault(name, list(bounds))
        return self.histograms.setdefault(name, Family[Distribution](name, help_text, label_names, partial(Distribution, bounds)))

    def dump(self) -> dict[str, Any]:
        """All numbers of now, as lists and plain values: for another thread, or for another process, which can `absorb` them."""
        return {
            "counters": [_dumped(family) for family in self.counters.values()],
            "gauges": [_dumped(family) for family in self.gauges.values()],
            "histograms": [
                [
                    family.name,
                    family.help,
                    family.label_names,
                    self._bounds[family.name],
                    [[labels, list(one.counts), one.total] for labels, one in family.children.items()],
                ]
                for family in self.histograms.values()
            ],
        }

    def absorb(self, dumped: dict[str, Any], *, gauges: bool = True) -> None:
        """Add what another registry has counted. A gauge tells of something that is; of what is no more it is left out."""
        for kind in ("counters", "gauges") if gauges else ("counters",):
            make = self.counter if kind == "counters" else self.gauge
            for name, text, label_names, children in dumped[kind]:
                family = make(name, text, *label_names)
                for labels, value in children:
                    family.labels(*labels).value += value
        for name, text, label_names, bounds, distributions in dumped["histograms"]:
            histogram = self.histogram(name, text, bounds, *label_names)
            for labels, counts, total in distributions:
                histogram.labels(*labels).add(counts, total)


def _dumped(family: Family[Value]) -> list[Any]:
    return [family.name, family.help, family.label_names, [[labels, child.value] for labels, child in family.children.items()]]
