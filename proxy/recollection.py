"""What is known of the last requests: by the process that served them, and, where several serve, by asking all of them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any, Protocol

from proxy.core.protocols import Clock
from proxy.core.recent import Recent, explained, summary

#: How long a worker may take to say what it knows, in seconds.
_TO_TELL = 1.0


class Recollection:
    """Of one process."""

    def __init__(self, recent: Recent, clock: Clock) -> None:
        self._recent = recent
        self._clock = clock

    async def requests(self, most: int) -> list[dict[str, Any]]:
        """The newest requests that have ended, the newest first."""
        epoch = self._epoch()
        return [summary(each, epoch) for each in self._recent.newest(most)]

    async def explain(self, id: str) -> dict[str, Any] | None:
        """What became of one of them; None where it is not known any more."""
        found = self._recent.find(id)
        return None if found is None else explained(found, self._epoch())

    async def answer(self, id: str | None, most: int) -> Any:
        """Either of the two, as `Recollections` asks for it."""
        return await (self.requests(most) if id is None else self.explain(id))

    def _epoch(self) -> float:
        return self._clock.time() - self._clock.monotonic()


class Worker(Protocol):
    """Who can be asked; see `proxy.supervisor`."""

    number: int
    state: str

    async def ask(self, name: str, value: Any, answer: str, patience: float) -> Any: ...
    def forget(self, answer: str) -> None: ...


class Recollections:
    """Of all workers that answer in time. What one knew that has ended is gone with it."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = workers
        self._turns = itertools.count()

    async def requests(self, most: int) -> list[dict[str, Any]]:
        """The newest requests that have ended, the newest first."""
        found = [{**each, "worker": worker.number} for worker, told in await self._told(None, most) for each in told]
        return sorted(found, key=lambda each: each["at"], reverse=True)[:most]

    async def explain(self, id: str) -> dict[str, Any] | None:
        """What became of one of them, by the worker that served it."""
        return next(({**told, "worker": worker.number} for worker, told in await self._told(id, 1)), None)

    async def _told(self, id: str | None, most: int) -> list[tuple[Worker, Any]]:
        asked = [worker for worker in self._workers if worker.state == "ready"]
        answers = await asyncio.gather(*(self._ask(worker, id, most) for worker in asked))
        return [(worker, told) for worker, told in zip(asked, answers, strict=True) if told is not None]

    async def _ask(self, worker: Worker, id: str | None, most: int) -> Any:
        answer = f"recent {next(self._turns)}"
        try:
            return await worker.ask("recent", [answer, id, most], answer, _TO_TELL)
        except TimeoutError:
            return None
        finally:
            worker.forget(answer)
