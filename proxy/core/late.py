"""What is made for the first who asks for it, because most never do and its code is long to load."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

_Made = TypeVar("_Made")


class Late(Generic[_Made]):
    """Awaiting `late()` gives what `make` returns: made once, in a thread, so that requests go on meanwhile.

    Where it raises, so does this, and the next who asks has it tried again.
    """

    def __init__(self, make: Callable[[], _Made]) -> None:
        self._make = make
        self._made: list[_Made] = []
        self._lock = asyncio.Lock()

    async def __call__(self) -> _Made:
        if self._made:
            return self._made[0]
        async with self._lock:
            if not self._made:
                self._made.append(await asyncio.to_thread(self._make))
            return self._made[0]
