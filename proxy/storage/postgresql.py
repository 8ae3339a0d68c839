"""PostgreSQL, through asyncpg. In a module of its own: the driver takes a quarter of a second to import."""

from __future__ import annotations

import asyncpg
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from proxy.storage.faults import unavailable

_CONNECT_SECONDS = 5.0
_COMMAND_SECONDS = 10.0
POOL = 10

__all__ = ["POOL", "connect", "insert"]


def connect(url: URL) -> AsyncEngine:
    """An engine for `url`, whose options are libpq's (`sslmode`, ...). Nothing is connected yet."""
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)

    async def opened() -> asyncpg.Connection:
        try:
            return await asyncpg.connect(dsn, timeout=_CONNECT_SECONDS, command_timeout=_COMMAND_SECONDS)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise unavailable(f"{type(error).__name__}: {error}".split("\n", 1)[0]) from error

    return create_async_engine(
        url.set(drivername="postgresql+asyncpg"),
        async_creator=opened,
        hide_parameters=True,
        pool_size=POOL,
        max_overflow=0,
        pool_timeout=_CONNECT_SECONDS,
        pool_pre_ping=True,
    )
