"""The revisions make what `proxy.storage.tables` says, and run once however many processes start."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from proxy.storage import migrations
from proxy.storage.database import Database
from proxy.storage.tables import metadata
from tests.core.doubles import HandClock


def _difference(connection: Connection) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    return list(compare_metadata(context, metadata))


def _checks(connection: Connection) -> dict[str, set[tuple[str | None, str]]]:
    """CHECK constraints, which Alembic does not compare."""
    inspector = inspect(connection)
    return {name: {(check["name"], check["sqltext"]) for check in inspector.get_check_constraints(name)} for name in metadata.tables}


async def test_the_revisions_make_the_tables_that_the_code_knows(database: Database) -> None:
    async with database.writing() as connection:
        assert await connection.run_sync(_difference) == []


async def test_the_revisions_make_the_same_checks(database: Database) -> None:
    async with database.writing() as connection:
        made = await connection.run_sync(_checks)
        await connection.run_sync(metadata.drop_all)
        await connection.run_sync(metadata.create_all)
        assert made == await connection.run_sync(_checks)
        assert sum(map(len, made.values())) == 8


def test_the_newest_revision_is_the_one_that_is_named() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_heads() == [migrations.HEAD]


async def test_opening_again_changes_nothing(url: str, clock: HandClock) -> None:
    for _ in range(2):
        database = Database(url, clock)
        await database.open()
        async with database.writing() as connection:
            assert await connection.run_sync(migrations.revision) == migrations.HEAD
        await database.close()


async def test_several_may_open_a_new_database_at_once(url: str, clock: HandClock) -> None:
    databases = [Database(url, clock) for _ in range(4)]
    await asyncio.gather(*(database.open() for database in databases))
    for database in databases:
        await database.close()


async def test_a_database_of_a_newer_version_is_refused(url: str, clock: HandClock) -> None:
    database = Database(url, clock)
    await database.open()
    async with database.writing() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await database.close()
    with pytest.raises(migrations.UnknownSchemaError, match="newer version"):
        await Database(url, clock).open()
