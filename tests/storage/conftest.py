"""Every test of a repository runs on a real SQLite file and on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from proxy.storage.database import Database
from tests.core.doubles import HandClock
from tests.storage.servers import PostgreSQL


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """One for all tests that do not stop it; each makes a database of its own."""
    server = PostgreSQL()
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'comporta.db'}"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.create()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def database(url: str, clock: HandClock) -> AsyncIterator[Database]:
    opened = Database(url, clock, busy=0.2)
    await opened.open()
    yield opened
    await opened.close()
