"""Host names that are looked up: each on a thread of its own, since a name whose servers are silent holds one for ten seconds and more."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from proxy.core.hosts import is_literal

#: So many names are looked up at once, and so many of those that were not found last time: whatever hangs, they leave places to the others.
_MOST = 32
_MOST_DOUBTFUL = 24


@dataclass(frozen=True, slots=True)
class _Lookup:
    """A name that somebody waits for; `waiting` grows until it is told."""

    key: Hashable
    ask: Callable[[], Any]
    waiting: list[asyncio.Future[Any]]


class Lookups:
    """What `ask` tells of a name, to all who want it at that time. It may be called from any loop.

    A thread that is still held ends with the process.
    """

    def __init__(self, ask: Callable[..., Any] = socket.getaddrinfo) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._wanted: dict[Hashable, _Lookup] = {}
        self._queue: deque[_Lookup] = deque()
        self._running: set[Hashable] = set()
        self._not_found: set[Hashable] = set()

    async def __call__(self, host: str, port: int, **options: Any) -> Any:
        """Raises what `ask` raises."""
        if is_literal(host):
            return socket.getaddrinfo(host, port, **options | {"flags": socket.AI_NUMERICHOST})
        found: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        key = (host, *options.items())
        with self._lock:
            lookup = self._wanted.get(key)
            if lookup is None:
                lookup = self._wanted[key] = _Lookup(key, partial(self._ask, host, port, **options), [])
                self._queue.append(lookup)
            lookup.waiting.append(found)
            self._begin()
        return await found

    def _begin(self) -> None:
        while (lookup := self._next()) is not None:
            self._queue.remove(lookup)
            self._running.add(lookup.key)
            try:
                threading.Thread(target=self._work, args=(lookup,), name="lookup", daemon=True).start()
            except RuntimeError:  # the system allows no further thread
                self._end(lookup, socket.gaierror(socket.EAI_AGAIN, "no thread can be started"))

    def _next(self) -> _Lookup | None:
        """The first that waits and has a place."""
        if len(self._running) >= _MOST:
            return None
        is_narrow = len(self._running & self._not_found) >= _MOST_DOUBTFUL
        return next((lookup for lookup in self._queue if not (is_narrow and lookup.key in self._not_found)), None)

    def _work(self, lookup: _Lookup) -> None:
        try:
            outcome = lookup.ask()
        except Exception as error:  # noqa: BLE001 - who waits raises it
            outcome = error
        with self._lock:
            self._end(lookup, outcome)
            self._begin()

    def _end(self, lookup: _Lookup, outcome: Any) -> None:
        del self._wanted[lookup.key]
        self._running.remove(lookup.key)
        if isinstance(outcome, Exception):
            self._not_found.add(lookup.key)
        else:
            self._not_found.discard(lookup.key)
        for found in lookup.waiting:
            with suppress(RuntimeError):  # its loop has ended meanwhile
                found.get_loop().call_soon_threadsafe(_tell, found, outcome)


def _tell(found: asyncio.Future[Any], outcome: Any) -> None:
    if found.done():
        return
    if isinstance(outcome, Exception):
        found.set_exception(outcome)
    else:
        found.set_result(outcome)


#: The process's own: names are looked up for every provider, of this configuration or the one before.
look_up = Lookups()
