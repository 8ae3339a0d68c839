"""The database: opened, brought up to date, asked, and changed only together with a row of the audit log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import ModuleType
from typing import Any, TypeAlias

from sqlalchemy import Executable, Row, Select, Table, insert, select, text
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from proxy.core.errors import CapacityError
from proxy.core.protocols import Clock
from proxy.storage import audit, migrations, sqlite
from proxy.storage.faults import missing, translated, unavailable
from proxy.storage.tables import audit_log


@dataclass(frozen=True, slots=True)
class IfAny:
    """A query for `before` of a change that makes its object where there is none."""

    query: Select[Any]


#: What an audit row shows of its object: the values themselves, or where they are read, inside the change's transaction.
Shown: TypeAlias = Mapping[str, Any] | Select[Any] | IfAny | None

#: A statement that follows from what its object was, as shown before the change.
Following: TypeAlias = Callable[[Mapping[str, Any]], Executable]

#: Serialises the changes of all processes: each audit row needs the hash of the one before.
_AUDIT_LOCK = 6_270_015_812

_WANTED = "storage: write sqlite:////path/of/a/file or postgresql://user:password@host/name"


@dataclass(frozen=True, slots=True)
class Changed:
    """What a change came to: its object as shown before and after, and how many rows its statements touched."""

    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    rows: int


class Database:
    """One SQLite file or one PostgreSQL.

    `url` is `sqlite:////absolute/path`, `sqlite:///relative/path`, or `postgresql://user:password@host/name` with libpq's options.
    `queue` writers may wait, `patience` seconds each; the next one is refused. SQLite waits `busy` seconds for another process's lock.
    """

    def __init__(self, url: str, clock: Clock, *, queue: int = 64, patience: float = 10.0, busy: float = 5.0) -> None:
        """Raises ValueError for a URL of neither kind, or of one in memory. The message does not repeat it: it may hold a password."""
        self._url = _parsed(url)
        self._clock = clock
        self._queue = queue
        self._patience = patience
        self._busy = busy
        self._waiting = 0
        self._turn = asyncio.Semaphore(1)
        self._engine: AsyncEngine | None = None
        # Replaced where the database is another; both kinds of statements have the same methods.
        self._insert: Callable[[Table], Any] = sqlite_dialect.insert

    @property
    def is_sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    @property
    def clock(self) -> Clock:
        return self._clock

    def __repr__(self) -> str:
        return f"Database({self._url.render_as_string(hide_password=True)!r})"

    async def open(self) -> None:
        """Connect, and bring the tables up to date; until that is done nobody else gets to it.

        May be tried again. Raises CapacityError, migrations.UnknownSchemaError.
        """
        if self.is_sqlite:
            engine = await sqlite.connect(self._url, self._busy)
        else:
            postgresql = await asyncio.to_thread(_postgresql)
            engine = postgresql.connect(self._url)
            self._insert = postgresql.insert
            self._turn = asyncio.Semaphore(postgresql.POOL)
        try:
            with translated():
                if self.is_sqlite:
                    await sqlite.use_wal(engine)
                await _bring_up_to_date(engine)
        except BaseException:
            await engine.dispose()
            raise
        self._engine = engine

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.dispose()

    async def answers(self, seconds: float) -> bool:
        """Whether it can be asked at all, and answers within so many `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self.fetch(text("SELECT 1"))
        except (CapacityError, TimeoutError):
            return False
        return True

    async def fetch(self, query: Executable) -> Sequence[Row[Any]]:
        """Every row. Raises CapacityError."""
        with translated():
            async with self._opened().connect() as connection:
                return (await connection.execute(query)).all()

    async def first(self, query: Executable) -> Row[Any] | None:
        """The first row. Raises CapacityError."""
        rows = await self.fetch(query)
        return rows[0] if rows else None

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that writes: committed at the block's end, undone if it raises. Not for what an administrator does: see `change`.

        Raises CapacityError (also where too many wait already) and ClientError for a broken constraint.
        """
        async with self._one_at_a_time():
            with translated():
                async with self._opened().connect() as connection:
                    writer = await connection.execution_options(**{sqlite.WRITES: True})
                    async with writer.begin():
                        yield writer

    async def change(
        self, actor: str, action: str, object: str, before: Shown, after: Shown, *statements: Executable | Following
    ) -> Changed:
        """Run `statements` and write their audit row, in one transaction: neither is there without the other.

        A query for `before` or `after` is run before or after them, and may read nothing secret (bytes are refused). A `before` query that
        finds nothing means that there is nothing to change, unless it is `IfAny`. Raises CapacityError, ClientError (404; 409 and 400 for
        a broken constraint).
        """
        async with self.writing() as connection:
            if not self.is_sqlite:
                await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _AUDIT_LOCK})
            was = await _shown(connection, before)
            if was is None and isinstance(before, Select):
                raise missing(object)
            made = [each if isinstance(each, Executable) else each(was or {}) for each in statements]
            touched = [(await connection.execute(statement)).rowcount for statement in made]
            now = await _shown(connection, after)
            await self._append(connection, {"actor": actor, "action": action, "object": object, "before": was, "after": now})
        return Changed(was, now, sum(touched))

    async def _append(self, connection: AsyncConnection, entry: Mapping[str, Any]) -> None:
        query = select(audit_log.c.seq, audit_log.c.hash).order_by(audit_log.c.seq.desc()).limit(1)
        last = (await connection.execute(query)).first()
        row = {
            "seq": last.seq + 1 if last else 1,
            "at": datetime.fromtimestamp(self._clock.time(), UTC),
            **entry,
            "previous_hash": last.hash if last else audit.START,
        }
        await connection.execute(insert(audit_log).values(**row, hash=audit.chained(row)))

    def upsert(self, table: Table, values: Mapping[str, Any]) -> Executable:
        """Put a row in, or over the one of the same primary key."""
        keys = [column.name for column in table.primary_key]
        statement = self._insert(table).values(**values)
        over = {name: statement.excluded[name] for name in values if name not in keys}
        found: Executable = statement.on_conflict_do_update(index_elements=keys, set_=over)
        return found

    def now(self) -> datetime:
        """The clock's time, aware."""
        return datetime.fromtimestamp(self._clock.time(), UTC)

    def _opened(self) -> AsyncEngine:
        if self._engine is None:
            raise unavailable("it is not open")
        return self._engine

    @asynccontextmanager
    async def _one_at_a_time(self) -> AsyncIterator[None]:
        if self._turn.locked() and self._waiting >= self._queue:
            raise unavailable("too many writers wait")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._patience):
                await self._turn.acquire()
        except TimeoutError:
            raise unavailable("the writers before did not end in time") from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._turn.release()


def _postgresql() -> ModuleType:
    from proxy.storage import postgresql

    return postgresql


async def _bring_up_to_date(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        if await connection.run_sync(migrations.revision) == migrations.HEAD:
            return
    upgrade = await asyncio.to_thread(migrations.upgrading)
    async with engine.connect() as connection:
        writer = await connection.execution_options(**{sqlite.WRITES: True})
        async with writer.begin():
            await writer.run_sync(upgrade)


async def _shown(connection: AsyncConnection, shown: Shown) -> dict[str, Any] | None:
    query = shown.query if isinstance(shown, IfAny) else shown
    if not isinstance(query, Select):
        return audit.plain(query)
    row = (await connection.execute(query)).first()
    return None if row is None else audit.plain(dict(row._mapping))


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ValueError(_WANTED) from None
    kinds = {"sqlite": "sqlite", "postgresql": "postgresql", "postgres": "postgresql"}
    has_file = parsed.drivername != "sqlite" or (not parsed.host and (parsed.database or "/")[-1] != "/" and parsed.database != ":memory:")
    if parsed.drivername not in kinds or not has_file:
        raise ValueError(_WANTED)
    return parsed.set(drivername=kinds[parsed.drivername])
