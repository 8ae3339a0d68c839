"""What one worker finds and all of them are to know. It is kept for those that start later: what a worker had been told ends with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from proxy.core.unpaid import Unpaid
from proxy.core.whereabouts import Whereabouts


class Hearer(Protocol):
    """A worker, as far as it is told of something."""

    def tell(self, name: str, value: Any = None) -> None: ...


class Findings:
    """The health of the providers, by name, as the worker finds it that checks them; of all of them, what lies where, and is not paid."""

    def __init__(self, workers: Sequence[Hearer], whereabouts: Whereabouts, unpaid: Unpaid) -> None:
        self._workers = workers
        self._health: dict[str, Any] = {}
        self._shared: dict[str, Whereabouts | Unpaid] = {"whereabouts": whereabouts, "unpaid": unpaid}

    def heard(self, origin: Hearer, name: str, value: Any) -> None:
        """A worker has said `name`. One that has just become ready is told all that the others know."""
        if name == "health":
            self._health.update(value)
            self._pass_on(origin, name, value)
        elif name in self._shared:
            self._shared[name].take(value)
            self._pass_on(origin, name, value)
        elif name == "ready":
            if self._health:
                origin.tell("health", self._health)
            for each, shared in self._shared.items():
                if known := shared.known:
                    origin.tell(each, known)

    def _pass_on(self, origin: Hearer, name: str, value: Any) -> None:
        for each in self._workers:
            if each is not origin:
                each.tell(name, value)
