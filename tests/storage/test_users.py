from __future__ import annotations

from typing import Any

import pytest

from proxy.core.errors import ClientError
from proxy.storage.database import Database
from proxy.storage.users import Users


async def test_a_user_is_made_changed_and_deleted(database: Database) -> None:
    users = Users(database)
    made = await users.create("root", "ana", name="Ana", tier="premium")
    assert (made.id, made.name, made.tier, made.active) == ("ana", "Ana", "premium", True)
    changed = await users.update("root", "ana", {"tier": None, "active": False})
    assert (changed.name, changed.tier, changed.active) == ("Ana", None, False)
    assert await users.update("root", "ana", {}) == changed
    await users.delete("root", "ana")
    assert await users.get("ana") is None


async def test_users_are_listed_in_pages(database: Database) -> None:
    users = Users(database)
    for id in ("c", "a", "b"):
        await users.create("root", id)
    assert [user.id for user in await users.list(limit=2)] == ["a", "b"]
    assert [user.id for user in await users.list(after="b")] == ["c"]


@pytest.mark.parametrize("id", ["", "x" * 201])
async def test_an_id_has_a_length(database: Database, id: str) -> None:
    with pytest.raises(ClientError) as refused:
        await Users(database).create("root", id)
    assert refused.value.status == 400


@pytest.mark.parametrize("text", ["a\r\nb", "a\0b", "\x1b[31ma", "a\x7f", "a\x85"])
@pytest.mark.parametrize("param", ["id", "name", "tier"])
async def test_a_control_character_is_in_no_name(database: Database, param: str, text: str) -> None:
    users = Users(database)
    changes: list[Any] = [users.create("root", **{"id": "bo", param: text})]
    if param != "id":
        await users.create("root", "ana")
        changes.append(users.update("root", "ana", {param: text}))
    for change in changes:
        with pytest.raises(ClientError) as refused:
            await change
        assert (refused.value.status, refused.value.param) == (400, param)


@pytest.mark.parametrize("name", ["Ana\u00a0Silva", "山田\u3000太郎", "👩\u200d🚀"])
async def test_names_of_people_are_what_they_are(database: Database, name: str) -> None:
    assert (await Users(database).create("root", "ana", name=name)).name == name


async def test_what_cannot_be_changed_is_refused_by_name(database: Database) -> None:
    await Users(database).create("root", "ana")
    with pytest.raises(ClientError) as refused:
        await Users(database).update("root", "ana", {"id": "eve"})
    assert (refused.value.status, refused.value.param) == (400, "id")


async def test_one_who_is_not_there_is_404(database: Database) -> None:
    for change in (
        Users(database).update("root", "x", {"name": "y"}),
        Users(database).update("root", "x", {}),
        Users(database).delete("root", "x"),
    ):
        with pytest.raises(ClientError) as refused:
            await change
        assert refused.value.status == 404


@pytest.mark.parametrize("text", ["'; DROP TABLE users; --", "ü\u2028 \U0001f600", "%_\\"])
async def test_text_is_bound_and_never_read_as_sql(database: Database, text: str) -> None:
    await Users(database).create("root", text, name=text)
    found = await Users(database).get(text)
    assert found is not None
    assert found.name == text
