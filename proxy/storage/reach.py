"""Whether the database can be asked, as it is told to those who operate the gateway."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from proxy.core import events
from proxy.core.errors import CapacityError
from proxy.core.metrics import Registry

Found = TypeVar("Found")


class Reach:
    """Whether the database can be reached, as those found who asked it last: a line in the log for each change, and a gauge."""

    def __init__(self, metrics: Registry) -> None:
        self._away = metrics.gauge("comporta_storage_degraded", "Whether the database could not be asked when it was asked last.").labels()
        self._why: str | None = None

    def lost(self, why: str) -> None:
        """It could not be asked. Said again only where the reason is another."""
        self._away.set(1)
        if why != self._why:
            hint = "keys that are not known cannot be checked until it is there; it is tried again without a restart"
            events.error("storage_unreachable", reason=why, hint=hint)
        self._why = why

    def found(self) -> None:
        if self._why is not None:
            self._away.set(0)
            events.warning("storage_reachable")
        self._why = None

    def noted(self, find: Callable[[str], Awaitable[Found]]) -> Callable[[str], Awaitable[Found]]:
        """`find`, which tells how it went."""

        async def found(id: str) -> Found:
            try:
                answer = await find(id)
            except CapacityError as error:
                if self._why is None:
                    self.lost(error.detail or error.message)
                raise
            self.found()
            return answer

        return found
