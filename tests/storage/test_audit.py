"""The chain: whole after any changes, and broken at the first row that somebody laid hands on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from proxy.storage.audit import START, Audit, chained, plain
from proxy.storage.database import Database
from proxy.storage.users import Users
from tests.core.doubles import HandClock

#: How somebody with the database's own rights gets around the triggers.
_UNLOCK = {
    "sqlite": ["DROP TRIGGER audit_log_no_update", "DROP TRIGGER audit_log_no_delete", "DROP TRIGGER audit_log_no_replace"],
    "postgresql": ["ALTER TABLE audit_log DISABLE TRIGGER ALL"],
}

TAMPERING = [
    ("UPDATE audit_log SET actor = 'eve' WHERE seq = 3", 3),
    ("UPDATE audit_log SET action = 'user.read' WHERE seq = 1", 1),
    ("UPDATE audit_log SET after = NULL WHERE seq = 5", 5),
    ("UPDATE audit_log SET hash = previous_hash WHERE seq = 2", 2),
    ("UPDATE audit_log SET previous_hash = hash WHERE seq = 4", 4),
    ("DELETE FROM audit_log WHERE seq = 3", 3),
    ("DELETE FROM audit_log WHERE seq = 1", 1),
    ("UPDATE audit_log SET seq = 99 WHERE seq = 5", 5),
]


async def _tamper(database: Database, statement: str) -> None:
    async with database.writing() as connection:
        for unlock in _UNLOCK["sqlite" if database.is_sqlite else "postgresql"]:
            await connection.execute(text(unlock))
        await connection.execute(text(statement))


async def _fill(database: Database, count: int = 5) -> None:
    for number in range(count):
        await Users(database).create("root", f"user-{number}")


async def test_an_empty_log_is_whole(database: Database) -> None:
    assert await Audit(database).verify() is None
    assert await Audit(database).head() == (0, START)


async def test_a_log_is_whole_after_changes_and_lists_the_newest_first(database: Database) -> None:
    await _fill(database)
    await Users(database).delete("root", "user-3")
    audit = Audit(database)
    assert await audit.verify() is None
    newest, *others = await audit.list(limit=3)
    assert (newest.seq, newest.action, newest.object, newest.after) == (6, "user.delete", "user user-3", None)
    assert newest.before == {"id": "user-3", "name": None, "tier": None, "active": True}
    assert [row.seq for row in others] == [5, 4]
    assert [row.seq for row in await audit.list(before=3)] == [2, 1]


@pytest.mark.parametrize(("statement", "broken"), TAMPERING)
async def test_tampering_is_seen_at_its_row(database: Database, statement: str, broken: int) -> None:
    await _fill(database)
    await _tamper(database, statement)
    assert await Audit(database).verify() == broken


async def test_a_log_cut_off_at_its_end_does_not_lead_to_the_head_that_was_kept(database: Database) -> None:
    await _fill(database)
    audit = Audit(database)
    head = await audit.head()
    assert await audit.verify(head) is None
    await _tamper(database, "DELETE FROM audit_log WHERE seq >= 4")
    assert await audit.verify() is None
    assert await audit.verify(head) == 4


async def test_changes_made_at_once_make_one_chain(url: str, clock: HandClock) -> None:
    """By two processes' worth of connections, so that only the database can put them in order."""
    databases = [Database(url, clock) for _ in range(2)]
    for database in databases:
        await database.open()
    await asyncio.gather(*(Users(databases[number % 2]).create("root", f"user-{number}") for number in range(20)))
    audit = Audit(databases[0])
    assert await audit.verify() is None
    assert (await audit.head())[0] == 20
    for database in databases:
        await database.close()


def test_the_hash_depends_on_every_column_but_itself() -> None:
    row: dict[str, Any] = {
        "seq": 1, "at": "t", "actor": "a", "action": "b", "object": "c", "before": None, "after": {}, "previous_hash": START, "hash": "h",
    }  # fmt: skip
    same = {name for name in row if chained({**row, name: "other"}) == chained(row)}
    assert same == {"hash"}


def test_what_secrets_are_made_of_is_refused() -> None:
    with pytest.raises(TypeError, match="audit log"):
        plain({"digest": b"\0" * 32})
