"""News over Redis' publish and subscribe. Source: https://redis.io/docs/latest/develop/pubsub/"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from proxy.core import events
from proxy.core.metrics import Registry
from proxy.core.waits import waits
from proxy.state.news import Hears, LocalNews

_CHANNEL = "comporta:news"

#: Seconds until a lost connection is tried again: at first and at most. See `proxy.core.waits`.
_AGAIN = (0.1, 5.0)

#: Seconds: Redis is on no request's way here, but an administrator waits for the telling.
_PATIENCE = 1.0


class RedisNews:
    """All processes that use one Redis."""

    def __init__(self, url: str, metrics: Registry) -> None:
        self._redis: Redis = Redis.from_url(url, socket_connect_timeout=_PATIENCE, socket_timeout=_PATIENCE)
        # A subscriber waits for as long as nobody speaks.
        self._listener: Redis = Redis.from_url(url, socket_connect_timeout=_PATIENCE, socket_timeout=None, health_check_interval=10)
        self._degraded = metrics.gauge("comporta_redis_degraded", "Whether Redis cannot be reached.", "use").labels("news")
        self._local = LocalNews()
        self._listening: asyncio.Task[None] | None = None

    async def start(self, hears: Hears) -> None:
        await self._local.start(hears)
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen())

    async def tell(self, subject: str, name: str) -> bool:
        # Here first: this process must not depend on Redis for what it knows itself.
        await self._local.tell(subject, name)
        try:
            await self._redis.publish(_CHANNEL, orjson.dumps([subject, name]))
        except (RedisError, OSError):
            self._degraded.set(1)
            return False
        return True

    async def stop(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listening
        await self._local.stop()
        await self._redis.aclose()
        await self._listener.aclose()

    async def _listen(self) -> None:
        pauses, reachable = waits(*_AGAIN), True
        while True:
            subscription = self._listener.pubsub(ignore_subscribe_messages=True)
            try:
                await subscription.subscribe(_CHANNEL)
                self._degraded.set(0)
                # What was told while nobody listened is unknown: everything that is kept may be old.
                await self._local.tell("everything", "")
                if not reachable:
                    events.warning("redis_reachable", use="news")
                pauses, reachable = waits(*_AGAIN), True
                async for message in subscription.listen():
                    await self._hear(message)
            except (RedisError, OSError) as error:
                self._degraded.set(1)
                if reachable:
                    hint = "instances learn of each other's changes only when their copies are old; it is tried again until it is there"
                    events.error("redis_unreachable", use="news", error=type(error).__name__, hint=hint)
                reachable = False
            finally:
                with contextlib.suppress(RedisError, OSError):
                    await subscription.aclose()  # type: ignore[no-untyped-call]  # redis-py gives this one no types
            await asyncio.sleep(next(pauses))

    async def _hear(self, message: dict[str, Any]) -> None:
        try:
            subject, name = orjson.loads(message["data"])
        except (orjson.JSONDecodeError, ValueError, TypeError, KeyError):
            return  # Somebody else's words on our channel.
        if isinstance(subject, str) and isinstance(name, str):
            await self._local.tell(subject, name)
