"""What is SQLite's own: its journal is chosen while others may hold the file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.storage import sqlite


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    made = await sqlite.connect(make_url(f"sqlite:///{tmp_path}/comporta.db"), 0.05)
    async with made.connect():
        """It is connected already when somebody takes the lock."""
    yield made
    await made.dispose()


@pytest.fixture
def other(tmp_path: Path, engine: AsyncEngine) -> sqlite3.Connection:
    """Another process's connection to the file."""
    made = sqlite3.connect(tmp_path / "comporta.db", isolation_level=None)
    made.execute("CREATE TABLE t (x)")
    return made


@pytest.mark.parametrize("held", [0.0, 0.2])
async def test_the_journal_is_chosen_once_nobody_holds_the_file(engine: AsyncEngine, other: sqlite3.Connection, held: float):
    """Processes that start together do; SQLite's busy timeout is not for this statement."""
    if held:
        other.execute("BEGIN EXCLUSIVE")
        asyncio.get_running_loop().call_later(held, other.execute, "COMMIT")
    await sqlite.use_wal(engine)
    other.execute("SELECT * FROM t")  # it learns of the journal with the next thing that it reads
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other.close()


async def test_a_file_that_stays_held_is_an_error_in_the_end(
    engine: AsyncEngine, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sqlite, "_AGAIN", 0.0)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(OperationalError, match="locked"):
        await sqlite.use_wal(engine)
    other.close()
