from __future__ import annotations

import math
from dataclasses import replace

import pytest

from proxy.core.errors import ClientError
from proxy.core.resolved import Preferences
from proxy.storage.database import Database
from proxy.storage.preferences import PreferenceTable, encode
from proxy.storage.users import Users

WHOLE = Preferences(
    model="llama3.2:7b",
    fallback_model="llama3.2:1b",
    timeout=0.5,
    max_retries=0,
    task_types={"TASK_TYPE_WEEKLY_REPORT": Preferences(timeout=120.0, max_retries=3), "other": Preferences(model="m")},
)


@pytest.mark.parametrize("preferences", [WHOLE, Preferences(), Preferences(timeout=300.0, max_retries=10)])
async def test_preferences_come_back_as_they_were_put(database: Database, preferences: Preferences) -> None:
    await Users(database).create("root", "ana")
    table = PreferenceTable(database)
    assert (await table.put("ana", "ana", preferences)).preferences == preferences
    assert await table.find("ana") == preferences


async def test_putting_replaces_all_and_deleting_inherits_again(database: Database) -> None:
    await Users(database).create("root", "ana")
    table = PreferenceTable(database)
    first = await table.put("ana", "ana", WHOLE)
    second = await table.put("ana", "ana", Preferences(max_retries=2))
    assert second.preferences == Preferences(max_retries=2)
    assert second.created_at == first.created_at
    await table.delete("ana", "ana")
    assert await table.get("ana") is None
    assert await table.find("ana") == Preferences()
    with pytest.raises(ClientError) as refused:
        await table.delete("ana", "ana")
    assert refused.value.status == 404


async def test_a_user_who_is_not_there_has_none_and_gets_none(database: Database) -> None:
    table = PreferenceTable(database)
    assert await table.find("nobody") == Preferences()
    with pytest.raises(ClientError) as refused:
        await table.put("root", "nobody", WHOLE)
    assert refused.value.status == 404


@pytest.mark.parametrize(
    ("preferences", "param"),
    [
        (Preferences(model=""), "model"),
        (Preferences(model="m" * 101), "model"),
        (Preferences(fallback_model="a\r\nb"), "fallback_model"),
        (Preferences(timeout=0.0), "timeout"),
        (Preferences(timeout=300.1), "timeout"),
        (Preferences(timeout=math.nan), "timeout"),
        (Preferences(max_retries=11), "max_retries"),
        (Preferences(max_retries=-1), "max_retries"),
        (Preferences(task_types={"t": Preferences(timeout=301.0)}), "task_types.t.timeout"),
        (Preferences(task_types={"t": Preferences(task_types={"u": Preferences()})}), "task_types.t.task_types"),
        (Preferences(task_types={"": Preferences()}), "task_types"),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_name(preferences: Preferences, param: str) -> None:
    with pytest.raises(ClientError) as refused:
        encode(preferences)
    assert (refused.value.status, refused.value.param) == (400, param)


@pytest.mark.parametrize(("tier", "told"), [("premium", "premium"), (None, "")])
async def test_an_account_is_what_is_set_with_the_tier(database: Database, tier: str | None, told: str) -> None:
    await Users(database).create("root", "ana", tier=tier)
    await Users(database).create("root", "bob", tier="other")
    table = PreferenceTable(database)
    assert await table.account("ana") == Preferences(tier=told)
    await table.put("ana", "ana", WHOLE)
    assert await table.account("ana") == replace(WHOLE, tier=told)
    assert await table.account("nobody") == Preferences()


async def test_who_is_not_active_has_no_account_and_keeps_what_is_set(database: Database) -> None:
    users, table = Users(database), PreferenceTable(database)
    await users.create("root", "ana", tier="premium")
    await table.put("ana", "ana", WHOLE)
    await users.update("root", "ana", {"active": False})
    assert await table.account("ana") == Preferences()
    await users.update("root", "ana", {"active": True})
    assert await table.account("ana") == replace(WHOLE, tier="premium")
