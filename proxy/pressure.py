"""What the machine gives: memory and file descriptors. Memory above the limit sheds new requests until there is room again."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
from collections.abc import Callable

from proxy.core import events
from proxy.core.metrics import Registry
from proxy.ticks import on_tick

_EVERY = 0.25

#: Below this share of the limit, requests are taken again.
_ROOM = 0.95

#: Above the limit, garbage is collected at the first look, and again after so many.
_COLLECTS = 20

_REASON = "The gateway is short of memory."


class Pressure:
    """Looks at this process's resident memory four times a second. `most` is in bytes, None for no limit; `shed` is told why, or None."""

    def __init__(
        self, metrics: Registry, shed: Callable[[str | None], None], *, most: int | None = None, resident: Callable[[], int] | None = None
    ) -> None:
        self.most = most
        self._shed = shed
        self._resident = resident or Resident()
        self._gauge = metrics.gauge("comporta_resident_memory_bytes", "Resident memory of the processes that serve.").labels()
        self._full = metrics.gauge("comporta_memory_shedding", "Processes that refuse requests for want of memory.").labels()
        self._handle: asyncio.TimerHandle | None = None
        self._over = 0  # looks in a row that have found too much

    def start(self) -> None:
        self._handle = on_tick(self._again, _EVERY)
        self.look()

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def _again(self) -> None:
        self._handle = on_tick(self._again, _EVERY)
        self.look()

    def look(self) -> None:
        resident = self._resident()
        if self.most is not None and resident > self.most:
            if self._over % _COLLECTS == 0:
                # The collector comes by when many objects are made, and while requests are refused, few are.
                gc.collect()
                resident = self._resident()
            self._over += 1
        else:
            self._over = 0
        self._gauge.value = resident
        if self.most is not None and resident > self.most:
            self._turn(full=True, resident=resident)
        elif self.most is None or resident < self.most * _ROOM:
            self._turn(full=False, resident=resident)

    def _turn(self, *, full: bool, resident: int) -> None:
        if full == bool(self._full.value):
            return
        self._full.value = float(full)
        self._shed(_REASON if full else None)
        events.warning("memory_short" if full else "memory_enough", resident=resident, limit=self.most)


class Resident:
    """Resident bytes of this process, by `/proc/self/statm`, proc(5). The file stays open: it must be read when no descriptor is left."""

    def __init__(self) -> None:
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._file = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC) if os.path.exists("/proc/self/statm") else None

    def __call__(self) -> int:
        if self._file is None:
            return 0
        return int(os.pread(self._file, 128, 0).split()[1]) * self._page

    def __del__(self) -> None:
        if self._file is not None:
            os.close(self._file)


def descriptors() -> int:
    """How many file descriptors this process may have: the limit is raised as far as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError):
            pass
    return soft if soft != resource.RLIM_INFINITY else 1 << 20
