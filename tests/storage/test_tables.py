"""What the database itself refuses and keeps, whoever writes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select, text, update

from proxy.core.errors import ClientError
from proxy.storage.database import Database
from proxy.storage.tables import TIMED, audit_log, credentials, metadata, user_llm_preferences, users, virtual_keys
from proxy.storage.users import Users

LONG_AGO = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)

REFUSED: list[dict[str, Any]] = [
    {"preferred_model": ""},
    {"preferred_model": "m" * 101},
    {"fallback_model": "m" * 101},
    {"timeout_seconds": 0},
    {"timeout_seconds": -1},
    {"timeout_seconds": 300.5},
    {"max_retries": -1},
    {"max_retries": 11},
    {"task_type_configs": [1]},
    {"task_type_configs": "text"},
]
ACCEPTED: list[dict[str, Any]] = [
    {},
    {"preferred_model": "m" * 100, "timeout_seconds": 300, "max_retries": 0},
    {"timeout_seconds": 0.001, "max_retries": 10, "task_type_configs": {"a": {"timeout_seconds": 3}}},
]


@pytest.mark.parametrize("values", REFUSED)
async def test_a_preference_outside_its_bounds_is_refused(database: Database, values: dict[str, Any]) -> None:
    await Users(database).create("root", "ana")
    with pytest.raises(ClientError) as refused:
        async with database.writing() as connection:
            await connection.execute(insert(user_llm_preferences).values(user_id="ana", **values))
    assert (refused.value.status, refused.value.code) == (400, "invalid_value")


@pytest.mark.parametrize("values", ACCEPTED)
async def test_a_preference_at_its_bounds_is_stored(database: Database, values: dict[str, Any]) -> None:
    await Users(database).create("root", "ana")
    async with database.writing() as connection:
        await connection.execute(insert(user_llm_preferences).values(user_id="ana", **values))
    row = await database.first(select(user_llm_preferences))
    assert row is not None
    assert {name: row._mapping[name] for name in values} == values


async def test_keys_and_preferences_need_a_user(database: Database) -> None:
    for statement in (
        insert(user_llm_preferences).values(user_id="nobody"),
        insert(virtual_keys).values(id="k", user_id="nobody", digest=bytes(32), last4="abcd", limits={}),
    ):
        with pytest.raises(ClientError) as refused:
            async with database.writing() as connection:
                await connection.execute(statement)
        assert refused.value.status == 404


async def test_a_digest_that_is_none_is_refused(database: Database) -> None:
    await Users(database).create("root", "ana")
    with pytest.raises(ClientError):
        async with database.writing() as connection:
            await connection.execute(insert(virtual_keys).values(id="k", user_id="ana", digest=b"short", last4="abcd", limits={}))


ROWS: dict[str, dict[str, Any]] = {
    "users": {"id": "bob"},
    "user_llm_preferences": {"user_id": "ana"},
    "credentials": {"name": "c", "version": 1, "ciphertext": b"x", "wrapped_key": b"y", "kek_id": "k", "last4": "1234"},
}
CHANGES: dict[str, dict[str, Any]] = {"users": {"name": "B"}, "user_llm_preferences": {"max_retries": 1}, "credentials": {"last4": "5678"}}


@pytest.mark.parametrize("name", TIMED)
async def test_the_database_keeps_the_times_whatever_a_statement_says(database: Database, name: str) -> None:
    table = metadata.tables[name]
    await Users(database).create("root", "ana")
    key = next(iter(table.primary_key))
    chosen = key == ROWS[name][key.name]
    async with database.writing() as connection:
        await connection.execute(insert(table).values(**ROWS[name], created_at=LONG_AGO, updated_at=LONG_AGO))
        await connection.execute(update(table).where(chosen).values(**CHANGES[name], created_at=datetime.now(UTC)))
    row = await database.first(select(table.c.created_at, table.c.updated_at).where(chosen))
    assert row is not None
    assert row.created_at == LONG_AGO
    assert abs(row.updated_at - datetime.now(UTC)) < timedelta(minutes=1)


async def test_what_is_timed_has_both_times() -> None:
    assert {table.name for table in (users, user_llm_preferences, credentials)} == set(TIMED)
    assert {name for name, table in metadata.tables.items() if "updated_at" in table.c} == set(TIMED)


@pytest.mark.parametrize("statement", ["UPDATE audit_log SET actor = 'nobody'", "DELETE FROM audit_log"])
async def test_the_audit_log_is_append_only(database: Database, statement: str) -> None:
    await Users(database).create("root", "ana")
    with pytest.raises(Exception, match="append-only"):
        async with database.writing() as connection:
            await connection.execute(text(statement))
    rows = await database.fetch(select(audit_log.c.actor))
    assert [row.actor for row in rows] == ["root"]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_sqlite_replaces_no_audit_row(database: Database) -> None:
    await Users(database).create("root", "ana")
    with pytest.raises(Exception, match="append-only"):
        async with database.writing() as connection:
            await connection.execute(text("INSERT OR REPLACE INTO audit_log SELECT * FROM audit_log"))


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_postgresql_truncates_no_audit_log(database: Database) -> None:
    await Users(database).create("root", "ana")
    with pytest.raises(Exception, match="append-only"):
        async with database.writing() as connection:
            await connection.execute(text("TRUNCATE audit_log"))
