"""What one instance tells the others: that a key, a user's preferences or the configuration has changed, so that they forget their copies.

News may be lost (nobody listens for a moment, Redis is away): whoever keeps copies bounds their age as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from proxy.core.metrics import Registry

#: Told the subject (`key`, `user`, `configuration`) and which one.
Hears: TypeAlias = Callable[[str, str], None]


class News(Protocol):
    """Both directions of telling."""

    async def start(self, hears: Hears) -> None:
        """Have `hears` called for what others tell, and for what is told here."""

    async def tell(self, subject: str, name: str) -> bool:
        """Tell everybody. False: only this process knows."""

    async def stop(self) -> None: ...


class LocalNews:
    """One process alone."""

    def __init__(self) -> None:
        self._hears: list[Hears] = []

    async def start(self, hears: Hears) -> None:
        self._hears.append(hears)

    async def tell(self, subject: str, name: str) -> bool:
        for hears in self._hears:
            hears(subject, name)
        return True

    async def stop(self) -> None:
        self._hears.clear()


def news(url: str, metrics: Registry) -> News:
    """`memory:` or `redis://…`, `rediss://…`, `unix://…`."""
    if url == "memory:":
        return LocalNews()
    # redis-py is slow to load, and most gateways have no Redis.
    from proxy.state.redis_news import RedisNews

    return RedisNews(url, metrics)
