"""News over Redis' publish and subscribe. Source: https://redis.io/docs/latest/develop/pubsub/"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as SilentError

from proxy.core import events
from proxy.core.metrics import Registry
from proxy.core.waits import waits
from proxy.state.news import Hears, LocalNews

_CHANNEL = "comporta:news"

#: Seconds until a lost connection is tried again: at first and at most. See `proxy.core.waits`.
_AGAIN = (0.1, 5.0)

#: Seconds: Redis is on no request's way here, but an administrator waits for the telling.
_PATIENCE = 1.0

#: Seconds without a word until the subscription is asked whether it lives: what a firewall has forgotten is silent, too.
_QUIET = 10.0


class RedisNews:
    """All processes that use one Redis. Both times are in seconds: `patience` for an answer, `quiet` until one is asked for."""

    def __init__(self, url: str, metrics: Registry, *, quiet: float = _QUIET, patience: float = _PATIENCE) -> None:
        self._quiet, self._patience = quiet, patience
        # Hours may lie between tellings, and their connection may die in them without a word: then another is tried.
        again: list[type[Exception]] = [SilentError]
        self._redis: Redis = Redis.from_url(url, socket_connect_timeout=patience, socket_timeout=patience, retry_on_error=again)
        # `_listen` bounds its waits: a write with redis-py's `socket_timeout` can lose a cancellation on Python 3.11.
        self._listener: Redis = Redis.from_url(url, socket_connect_timeout=patience, socket_timeout=None)
        self._degraded = metrics.gauge("comporta_redis_degraded", "Whether Redis cannot be reached.", "use").labels("news")
        self._local = LocalNews()
        self._listening: asyncio.Task[None] | None = None
        self._subscribed = False

    async def start(self, hears: Hears) -> None:
        await self._local.start(hears)
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen())

    async def tell(self, subject: str, name: str) -> bool:
        # Here first: this process must not depend on Redis for what it knows itself.
        await self._local.tell(subject, name)
        try:
            await self._redis.publish(_CHANNEL, orjson.dumps([subject, name]))
        except (RedisError, OSError) as error:
            self._lost(error)
            return False
        # Whoever can tell may still be deaf.
        if self._subscribed:
            self._found()
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
        pauses = waits(*_AGAIN)
        while True:
            subscription = self._listener.pubsub()
            try:
                async with asyncio.timeout(self._quiet + self._patience):
                    await subscription.subscribe(_CHANNEL)
                    await subscription.get_message(timeout=None)
                self._subscribed = True
                # What was told while nobody listened is unknown: everything that is kept may be old.
                await self._local.tell("everything", "")
                pauses = waits(*_AGAIN)
                while True:
                    self._found()
                    await self._hear(await self._next(subscription))
            except (RedisError, OSError) as error:
                self._subscribed = False
                self._lost(error)
            finally:
                with contextlib.suppress(RedisError, OSError):
                    await subscription.aclose()  # type: ignore[no-untyped-call]  # redis-py gives this one no types
            await asyncio.sleep(next(pauses))

    async def _next(self, subscription: PubSub) -> dict[str, Any]:
        """What is said next: where nobody speaks, Redis' answer to whether it is there. Raises TimeoutError."""
        async with asyncio.timeout(self._quiet + self._patience):
            message: dict[str, Any] | None = await subscription.get_message(timeout=self._quiet)
            if message is not None:
                return message
            await subscription.ping()
            answer: dict[str, Any] = await subscription.get_message(timeout=None)
            return answer

    def _found(self) -> None:
        if self._degraded.value:
            events.warning("redis_reachable", use="news")
        self._degraded.set(0)

    def _lost(self, error: Exception) -> None:
        if not self._degraded.value:
            hint = "instances learn of each other's changes only when their copies are old; it is tried again until it is there"
            events.error("redis_unreachable", use="news", error=type(error).__name__, hint=hint)
        self._degraded.set(1)

    async def _hear(self, message: dict[str, Any]) -> None:
        try:
            subject, name = orjson.loads(message["data"])
        except (orjson.JSONDecodeError, ValueError, TypeError, KeyError):
            return  # Somebody else's words on our channel, or an answer of Redis.
        if isinstance(subject, str) and isinstance(name, str):
            await self._local.tell(subject, name)
