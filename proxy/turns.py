"""Changes one after another, and none after the end."""

from __future__ import annotations

import asyncio

from proxy.core.errors import CapacityError

#: How long the end waits for whose turn it is, in seconds: a database is being connected to, or a file of many keys read.
PATIENCE = 5.0


class Turns:
    """Who wants to change something takes a turn, and waits for it while another has it.

    `acquire`, or entering the block, raises CapacityError (503 `shutting_down`) once `end` has been called.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._ended = False

    async def acquire(self) -> None:
        await self._lock.acquire()
        if self._ended:
            self._lock.release()
            raise CapacityError("The gateway is shutting down.", code="shutting_down")

    def release(self) -> None:
        self._lock.release()

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_raised: object) -> None:
        self.release()

    async def end(self, patience: float) -> None:
        """No turn is given any more. Whose turn it is has `patience` seconds to finish."""
        self._ended = True
        try:
            async with asyncio.timeout(patience), self._lock:
                pass
        except TimeoutError:
            pass
