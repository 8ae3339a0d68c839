"""Counters, gauges and histograms for one event loop: no locks, children bound once by whoever counts.

The exposition is prometheus_client's (proxy/http/admin.py); only the counting is ours, because it happens on every request.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar


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
    """Counts by upper bound. `counts` has one more entry than `bounds`, for what lies above the last."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


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

    def counter(self, name: str, help_text: str, *label_names: str) -> Family[Value]:
        return self.counters.setdefault(name, Family[Value](name, help_text, label_names, Value))

    def gauge(self, name: str, help_text: str, *label_names: str) -> Family[Value]:
        return self.gauges.setdefault(name, Family[Value](name, help_text, label_names, Value))

    def histogram(self, name: str, help_text: str, bounds: Sequence[float], *label_names: str) -> Family[Distribution]:
        return self.histograms.setdefault(name, Family[Distribution](name, help_text, label_names, partial(Distribution, bounds)))

    def dump(self) -> dict[str, Any]:
        """All numbers, as lists and plain values that another process can `absorb`."""
        return {
            "counters": [_dumped(family) for family in self.counters.values()],
            "gauges": [_dumped(family) for family in self.gauges.values()],
            "histograms": [
                [family.name, family.help, family.label_names, bounds, [[labels, one.counts, one.total] for labels, one in children]]
                for family in self.histograms.values()
                if (children := list(family.children.items()))
                for bounds in [list(children[0][1].bounds)]
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
                one = histogram.labels(*labels)
                one.counts = [mine + other for mine, other in zip(one.counts, counts, strict=True)]
                one.total += total


def _dumped(family: Family[Value]) -> list[Any]:
    return [family.name, family.help, family.label_names, [[labels, child.value] for labels, child in family.children.items()]]
