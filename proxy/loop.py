"""The event loop's own health."""

from __future__ import annotations

import asyncio

from proxy.core.metrics import Registry

_EVERY = 0.25
_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class LagMeter:
    """How late a timer fires: what every request waits beside its own work. Measured four times a second."""

    def __init__(self, metrics: Registry) -> None:
        self._lag = metrics.histogram("comporta_event_loop_lag_seconds", "How late the event loop is.", _BOUNDS).labels()
        self._handle: asyncio.TimerHandle | None = None
        self._due = 0.0

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._due = loop.time() + _EVERY
        self._handle = loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        self._lag.observe(max(0.0, asyncio.get_running_loop().time() - self._due))
        self.start()

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
