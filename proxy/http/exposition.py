"""Numbers in Prometheus' text forms. Loaded for the first who asks for them: what it needs is half a server of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector


class Exposition:
    """Writes our own counting, and what prometheus_client knows of the process."""

    def __init__(self) -> None:
        self._found = CollectorRegistry()
        ProcessCollector(registry=self._found)
        PlatformCollector(registry=self._found)

    def written(self, dumped: dict[str, Any], accept: str) -> tuple[bytes, str]:
        """The numbers that `Registry.dump` gave in the form that the header `Accept` asks for, and the content type of that.

        A thread's work: with hundreds of models it takes many turns of the event loop.
        """
        numbers = _Numbers(dumped, self._found)
        if "application/openmetrics-text" in accept:
            written: bytes = openmetrics.generate_latest(numbers)  # type: ignore[no-untyped-call]  # this part has no types
            return written, openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(numbers), CONTENT_TYPE_LATEST


class _Numbers:
    """A prometheus_client collector over what our own registry held at one moment, and over what `found` finds now."""

    def __init__(self, dumped: dict[str, Any], found: CollectorRegistry) -> None:
        self._dumped = dumped
        self._found = found

    def collect(self) -> Iterator[Metric]:
        for name, text, label_names, children in self._dumped["counters"]:
            family = CounterMetricFamily(name, text, labels=label_names)
            for labels, value in children:
                family.add_metric(labels, value)
            yield family
        for name, text, label_names, children in self._dumped["gauges"]:
            gauge_family = GaugeMetricFamily(name, text, labels=label_names)
            for labels, value in children:
                gauge_family.add_metric(labels, value)
            yield gauge_family
        for name, text, label_names, bounds, distributions in self._dumped["histograms"]:
            histogram_family = HistogramMetricFamily(name, text, labels=label_names)
            for labels, counts, total in distributions:
                histogram_family.add_metric(labels, list(_buckets(bounds, counts)), total)
            yield histogram_family
        yield from self._found.collect()


def _buckets(bounds: Sequence[float], counts: list[int]) -> Iterator[tuple[str, float]]:
    seen = 0
    for bound, count in zip([*bounds, float("inf")], counts, strict=True):
        seen += count
        yield ("+Inf" if bound == float("inf") else repr(float(bound))), float(seen)
