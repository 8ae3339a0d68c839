"""Many deadlines, one timer: they are looked over at each tick, so that no request pays for a timer of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from proxy.ticks import on_tick


class Mortal(Protocol):
    """Something that ends at `due`, in its sweeper's seconds; infinity is never. `due` may be moved at any time."""

    due: float

    def expire(self) -> None: ...


class Sweeper:
    """Holds things while they live. Adding and removing are set operations. `monotonic` is the clock that their deadlines are of."""

    __slots__ = ("_handle", "_items", "_monotonic")

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._items: set[Mortal] = set()
        self._handle: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Mortal) -> None:
        self._items.add(item)
        if self._handle is None:
            self._handle = on_tick(self._look)

    def remove(self, item: Mortal) -> None:
        self._items.discard(item)

    def _look(self) -> None:
        now = self._monotonic()
        try:
            for item in [item for item in self._items if item.due <= now]:
                self._items.discard(item)
                item.expire()
        finally:
            # Also where one of them is broken: the others are other people's.
            self._handle = on_tick(self._look) if self._items else None
