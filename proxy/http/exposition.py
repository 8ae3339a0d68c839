"""Numbers in Prometheus' text forms. Loaded for the first who asks for them: what it needs is half a server of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from proxy.core.metrics import Registry


class Exposition:
    """Writes our own counting, and what prometheus_client knows of the process."""

    def __init__(self) -> None:
        self._counted = _Counted()
        self._found = CollectorRegistry()
        self._found.register(self._counted)
        ProcessCollector(registry=self._found)
        PlatformCollector(registry=self._found)

    def written(self, registry: Registry, accept: str) -> tuple[bytes, str]:
        """The numbers of `registry` in the form that the header `Accept` asks for, and the content type of that."""
        self._counted.registry = registry
        if "application/openmetrics-text" in accept:
            written: bytes = openmetrics.generate_latest(self._found)  # type: ignore[no-untyped-call]  # this part has no types
            return written, openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(self._found), CONTENT_TYPE_LATEST


class _Counted:
    """A prometheus_client collector over our own counting. `registry` may be replaced between two collections."""

    def __init__(self) -> None:
        self.registry = Registry()

    def collect(self) -> Iterator[Metric]:
        for counter in self.registry.counters.values():
            family = CounterMetricFamily(counter.name, counter.help, labels=counter.label_names)
            for labels, child in counter.children.items():
                family.add_metric(labels, child.value)
            yield family
        for gauge in self.registry.gauges.values():
            gauge_family = GaugeMetricFamily(gauge.name, gauge.help, labels=gauge.label_names)
            for labels, child in gauge.children.items():
                gauge_family.add_metric(labels, child.value)
            yield gauge_family
        for histogram in self.registry.histograms.values():
            histogram_family = HistogramMetricFamily(histogram.name, histogram.help, labels=histogram.label_names)
            for labels, distribution in histogram.children.items():
                histogram_family.add_metric(labels, list(_buckets(distribution.bounds, distribution.counts)), distribution.total)
            yield histogram_family


def _buckets(bounds: Sequence[float], counts: list[int]) -> Iterator[tuple[str, float]]:
    seen = 0
    for bound, count in zip([*bounds, float("inf")], counts, strict=True):
        seen += count
        yield ("+Inf" if bound == float("inf") else repr(float(bound))), float(seen)
