"""Two gateways at one database change the same row at once: the audit log says what each of them really found."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from proxy.core.resolved import Preferences
from proxy.storage.audit import Audit
from proxy.storage.database import Database
from proxy.storage.preferences import PreferenceTable
from proxy.storage.users import Users
from tests.core.doubles import HandClock

EACH = 4


@pytest.fixture
async def writers(url: str, clock: HandClock) -> AsyncIterator[tuple[Database, Database]]:
    first, second = Database(url, clock), Database(url, clock)
    await first.open()
    await second.open()
    yield first, second
    await first.close()
    await second.close()


async def put_preferences(database: Database, number: int) -> None:
    await PreferenceTable(database).put("root", "ana", Preferences(model=f"m{number}"))


async def test_each_change_is_audited_with_what_the_one_before_left(writers: tuple[Database, Database]) -> None:
    await Users(writers[0]).create("root", "ana")
    await asyncio.gather(*(put_preferences(writers[number % 2], number) for number in range(2 * EACH)))
    rows = [row for row in reversed(await Audit(writers[0]).list()) if row.action.endswith(".put")]
    assert len(rows) == 2 * EACH
    assert [row.before for row in rows] == [None, *(row.after for row in rows[:-1])]
