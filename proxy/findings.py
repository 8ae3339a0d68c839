"""What one worker finds and all of them are to know. It is kept for those that start later: what a worker had been told ends with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from proxy.core.whereabouts import Whereabouts


class Hearer(Protocol):
    """A worker, as far as it is told of something."""

    def tell(self, name: str, value: Any = None) -> None: ...


class Findings:
    """The health of the providers, by name, as the worker finds it that checks them; and what lies where, as all of them do."""

    def __init__(self, workers: Sequence[Hearer], whereabouts: Whereabouts) -> None:
        self._workers = workers
        self._health: dict[str, Any] = {}
        self._whereabouts = whereabouts

    def heard(self, origin: Hearer, name: str, value: Any) -> None:
        """A worker has said `name`. One that has just become ready is told all that the others know."""
        if name == "health":
            self._health.update(value)
            self._pass_on(origin, name, value)
        elif name == "whereabouts":
            self._whereabouts.take(value)
            self._pass_on(origin, name, value)
        elif name == "ready":
            if self._health:
                origin.tell("health", self._health)
            if known := self._whereabouts.known:
                origin.tell("whereabouts", known)

    def _pass_on(self, origin: Hearer, name: str, value: Any) -> None:
        for each in self._workers:
            if each is not origin:
                each.tell(name, value)
