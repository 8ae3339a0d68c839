"""How long to wait before a worker that has ended is started again."""

from __future__ import annotations


class Backoff:
    """Each wait is longer than the one before: 0.1 s, doubling to 10 s; from the beginning after a minute of life."""

    def __init__(self, *, first: float = 0.1, most: float = 10.0, healthy: float = 60.0) -> None:
        self._first = first
        self._most = most
        self._healthy = healthy
        self._next = first

    def after(self, lived: float) -> float:
        """The wait in seconds, after a life of `lived` seconds."""
        if lived >= self._healthy:
            self._next = self._first
        wait = self._next
        self._next = min(self._most, wait * 2)
        return wait
