"""The admin plane: metrics in Prometheus' text form, and health. On its own port, loopback by default."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from proxy.core.metrics import Registry
from proxy.door import Door
from proxy.http.api import MOST, Endpoint, add, guarded
from proxy.http.backstop import backstop

#: The numbers of now, of this process or of several.
Numbers = Callable[[], Awaitable[Registry]]

#: What `/readyz` tells; `status` is `ready` or `draining`.
State = Callable[[], dict[str, Any]]

#: What `/readyz?verbose` tells beside that.
Told = Callable[[], Awaitable[dict[str, Any]]]


class Exposition:
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


def collectors(exposition: Exposition) -> CollectorRegistry:
    found = CollectorRegistry()
    found.register(exposition)
    ProcessCollector(registry=found)
    PlatformCollector(registry=found)
    return found


class Guard:
    """Says who asks, as `guarded` does, by the key of the moment."""

    def __init__(self, key: str | None) -> None:
        self.ask_for(key)

    def ask_for(self, key: str | None) -> None:
        """Another key, or none."""
        self.has_key = key is not None
        self._check = guarded(key)

    def __call__(self, request: web.Request) -> str:
        return self._check(request)


#: Where the application keeps it, for who changes its key.
GUARD = web.AppKey("guard", Guard)


class AdminPlane:
    """The admin plane's server."""

    def __init__(
        self, numbers: Numbers, state: State, *, key: str | None = None, endpoints: Sequence[Endpoint] = (), told: Told | None = None
    ) -> None:
        app = admin_app(numbers, state, key=key, endpoints=endpoints, told=told)
        self._guard = app[GUARD]
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        self._door: Door | None = None

    async def start(self, listening: socket.socket) -> None:
        await self._runner.setup()
        assert self._runner.server is not None
        self._door = Door(listening, self._runner.server)
        await self._door.open()

    def ask_for(self, key: str | None) -> None:
        """Ask for another key from now on, or for none."""
        self._guard.ask_for(key)

    async def stop(self) -> None:
        if self._door is not None:
            self._door.close()
        await self._runner.cleanup()


def admin_app(
    numbers: Numbers, state: State, *, key: str | None = None, endpoints: Sequence[Endpoint] = (), told: Told | None = None
) -> web.Application:
    """The admin plane's application. With a `key`, everything asks for it but short answers about health and what describes the endpoints.

    That is `/healthz`, `/readyz` without `verbose`, `/openapi.json`, and `/admin/docs` with its files. The key may change: see `GUARD`.
    """
    check = Guard(key)
    exposition = Exposition()
    found = collectors(exposition)

    async def metrics(request: web.Request) -> web.Response:
        if check.has_key:
            check(request)
        exposition.registry = await numbers()
        if "application/openmetrics-text" in request.headers.get("Accept", ""):
            return web.Response(
                body=openmetrics.generate_latest(found),  # type: ignore[no-untyped-call]  # this part of the library has no types
                headers={"Content-Type": openmetrics.CONTENT_TYPE_LATEST},
            )
        return web.Response(body=generate_latest(found), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def health(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readiness(request: web.Request) -> web.Response:
        found = state()
        if "verbose" in request.query and told is not None:
            check(request)
            found |= await told()
        return web.json_response(found, status=200 if found["status"] == "ready" else 503)

    app = web.Application(client_max_size=MOST, middlewares=[backstop])
    app[GUARD] = check
    add(app, endpoints, check)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", health)
    app.router.add_get("/readyz", readiness)
    return app
