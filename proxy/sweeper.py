"""Many deadlines, one timer: they are looked over twenty times a second, so that no request pays for a timer of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

#: Seconds between two looks: how much later than its deadline a thing may end.
TICK = 0.05


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
            self._handle = asyncio.get_running_loop().call_later(TICK, self._look)

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
            self._handle = asyncio.get_running_loop().call_later(TICK, self._look) if self._items else None
