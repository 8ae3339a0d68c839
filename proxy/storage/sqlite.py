"""SQLite: one file, many readers, one writer."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from proxy.storage.faults import translated

#: Execution option of a transaction that will write. Such a one takes the write lock when it begins: one that reads first and asks
#: for the lock later can be refused at once, whatever the busy timeout.
WRITES = "comporta_writes"

_WAL = "PRAGMA journal_mode = WAL"

#: Seconds until it is tried again.
_AGAIN = 0.05


def prepare(path: Path) -> None:
    """Make the folder (0700) and the file (0600), as far as they are missing. SQLite gives its other files the mode of this one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


async def connect(url: URL, busy: float) -> AsyncEngine:
    """An engine for the file, which waits `busy` seconds for a lock. Raises CapacityError."""
    with translated():
        await asyncio.to_thread(prepare, Path(url.database or ""))
    engine = create_async_engine(
        url.set(drivername="sqlite+aiosqlite"),
        hide_parameters=True,
        pool_size=5,
        max_overflow=0,
        pool_timeout=max(busy, 1.0),
        # None: the driver begins no transactions of its own.
        connect_args={"timeout": busy, "isolation_level": None},
    )
    event.listen(engine.sync_engine, "connect", _configure)
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


def _configure(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    # FULL: what was answered with success is on the disk, also after the power was cut.
    for pragma in ("foreign_keys = ON", "synchronous = FULL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get(WRITES) else "BEGIN")


async def use_wal(engine: AsyncEngine) -> None:
    """Readers and the writer do not wait for each other. Kept in the file.

    The busy timeout does not hold for this one statement, so that processes which start together try it a few times. Raises
    OperationalError, of SQLAlchemy as of all other statements: the driver itself is asked, whose errors are its own.
    """
    for left in range(20, -1, -1):
        try:
            async with engine.connect() as connection:
                # Outside a transaction: in one it is refused.
                raw = await connection.get_raw_connection()
                assert raw.driver_connection is not None
                cursor = await raw.driver_connection.execute(_WAL)
                await cursor.close()
                return
        except (OperationalError, sqlite3.OperationalError) as error:
            if not left:
                raise error if isinstance(error, OperationalError) else OperationalError(_WAL, None, error) from error
            await asyncio.sleep(_AGAIN)
