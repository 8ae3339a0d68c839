from __future__ import annotations

import asyncio
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import update

from proxy.core.errors import ClientError
from proxy.storage.audit import Audit
from proxy.storage.database import Database
from proxy.storage.keys import Keys, NewKey
from proxy.storage.limits import Limits
from proxy.storage.tables import virtual_keys
from proxy.storage.users import Users

DIGEST = b"\xfe\xed" * 16
LIMITS = Limits(
    models=("gpt-4*",),
    providers=frozenset({"sim"}),
    operations=frozenset(),
    task_types=frozenset({"a", "b"}),
    addresses=("10.0.0.0/8",),
    grants=frozenset({"files"}),
    may_set=frozenset({"model"}),
    names_users=True,
)


@pytest.fixture
async def keys(database: Database) -> Keys:
    await Users(database).create("root", "ana")
    return Keys(database)


async def test_a_key_is_stored_with_its_limits_and_shown_without_its_digest(keys: Keys) -> None:
    made = await keys.create("root", NewKey("k1", "ana", DIGEST, "wxyz", name="laptop", limits=LIMITS))
    assert (made.user_id, made.last4, made.name, made.limits) == ("ana", "wxyz", "laptop", LIMITS)
    assert made == await keys.get("k1")
    assert "feed" not in repr(made) + repr(NewKey("k1", "ana", DIGEST, "wxyz"))
    assert not hasattr(made, "digest")


async def test_the_audit_log_holds_no_digest(keys: Keys, database: Database) -> None:
    await keys.create("root", NewKey("k1", "ana", DIGEST, "wxyz"))
    await keys.rotate("root", "k1", NewKey("k2", "ana", DIGEST, "wxyz"), overlap=1.0)
    text = repr(await Audit(database).list())
    assert "last4" in text
    assert "digest" not in text
    assert DIGEST.hex() not in text


async def test_a_key_is_changed(keys: Keys, database: Database) -> None:
    await keys.create("root", NewKey("k1", "ana", DIGEST, "wxyz", limits=LIMITS))
    end = database.now() + timedelta(days=1)
    none = dict.fromkeys(each.name for each in fields(Limits))
    changed = await keys.update("root", "k1", {"limits": none, "name": "n", "expires_at": end})
    assert (changed.limits, changed.name, changed.expires_at) == (Limits(), "n", end)
    with pytest.raises(ClientError) as refused:
        await keys.update("root", "k1", {"user_id": "eve"})
    assert refused.value.param == "user_id"


async def test_a_control_character_is_in_no_name(keys: Keys) -> None:
    await keys.create("root", NewKey("k1", "ana", DIGEST, "wxyz"))
    named = NewKey("k2", "ana", DIGEST, "wxyz", name="a\r\nb")
    for change in (keys.create("root", named), keys.update("root", "k1", {"name": named.name})):
        with pytest.raises(ClientError) as refused:
            await change
        assert (refused.value.status, refused.value.param) == (400, "name")


async def test_a_second_revocation_keeps_the_time_of_the_first(keys: Keys, database: Database) -> None:
    await keys.create("root", NewKey("k1", "ana", DIGEST, "wxyz"))
    first = await keys.revoke("root", "k1")
    assert first.revoked_at == database.now()
    database.clock.move(5.0)  # type: ignore[attr-defined]  # it is moved by hand
    assert (await keys.revoke("root", "k1")).revoked_at == first.revoked_at
    assert await keys.find("k1") is None


async def test_a_rotation_ends_the_old_key_and_never_makes_it_last_longer(keys: Keys, database: Database) -> None:
    soon = database.now() + timedelta(seconds=10)
    await keys.create("root", NewKey("k1", "ana", DIGEST, "wxyz", expires_at=soon))
    assert (await keys.rotate("root", "k1", NewKey("k2", "ana", DIGEST, "abcd"), overlap=3600.0)).id == "k2"
    old = await keys.get("k1")
    assert old is not None
    assert (old.replaced_by, old.expires_at) == ("k2", soon)
    for done in ("k1", "k9"):
        with pytest.raises(ClientError) as refused:
            await keys.rotate("root", done, NewKey("k3", "ana", DIGEST, "abcd"), overlap=1.0)
        assert refused.value.status == {"k1": 409, "k9": 404}[done]
    assert await keys.get("k3") is None


ENDS = {
    "passed": datetime(2001, 1, 1, tzinfo=UTC),
    "late": datetime.max.replace(tzinfo=timezone(-timedelta(hours=12))),
    "early": datetime.min,
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
async def test_a_key_that_would_let_nobody_in_is_not_made(keys: Keys, end: datetime) -> None:
    await keys.create("root", NewKey("k1", "ana", DIGEST, "wxyz"))
    dead = NewKey("k2", "ana", DIGEST, "wxyz", expires_at=end)
    for refusal in (keys.create("root", dead), keys.rotate("root", "k1", dead, overlap=1.0)):
        with pytest.raises(ClientError) as refused:
            await refusal
        assert (refused.value.status, refused.value.param) == (400, "expires_at")
    assert [(key.id, key.replaced_by) for key in await keys.list()] == [("k1", None)]


async def test_a_key_can_be_ended_by_an_end_that_has_passed_and_by_none_that_no_calendar_has(keys: Keys) -> None:
    await keys.create("root", NewKey("k1", "ana", DIGEST, "wxyz"))
    assert (await keys.update("root", "k1", {"expires_at": ENDS["passed"]})).expires_at == ENDS["passed"]
    assert await keys.find("k1") is None
    with pytest.raises(ClientError):
        await keys.update("root", "k1", {"expires_at": ENDS["late"]})


async def test_a_key_that_was_replaced_is_told_so_whatever_end_is_wanted(keys: Keys) -> None:
    await keys.create("root", NewKey("k1", "ana", DIGEST, "wxyz"))
    await keys.rotate("root", "k1", NewKey("k2", "ana", DIGEST, "abcd"), overlap=0.0)
    with pytest.raises(ClientError) as refused:
        await keys.rotate("root", "k1", NewKey("k3", "ana", DIGEST, "abcd", expires_at=ENDS["passed"]), overlap=1.0)
    assert refused.value.status == 409


@pytest.mark.parametrize("change", ["expires_at", "revoked_at"])
async def test_a_rotation_goes_by_the_key_as_it_is_when_its_turn_comes(keys: Keys, database: Database, change: str) -> None:
    await keys.create("root", NewKey("k1", "ana", DIGEST, "wxyz"))
    soon = database.now() + timedelta(seconds=10)
    async with database.writing() as connection:
        await connection.execute(update(virtual_keys).where(virtual_keys.c.id == "k1").values({change: soon}))
        rotation = asyncio.create_task(keys.rotate("root", "k1", NewKey("k2", "ana", DIGEST, "abcd"), overlap=3600.0))
        await asyncio.wait({rotation}, timeout=0.1)  # whatever it may read before its turn, it has
    if change == "revoked_at":
        with pytest.raises(ClientError) as refused:
            await rotation
        assert (refused.value.status, refused.value.code) == (409, "not_usable")
    else:
        await rotation
    old = await keys.get("k1")
    assert old is not None
    assert getattr(old, change) == soon


async def test_keys_are_listed_by_user_in_pages(keys: Keys, database: Database) -> None:
    await Users(database).create("root", "bob")
    for id, user in (("k3", "ana"), ("k1", "ana"), ("k2", "bob")):
        await keys.create("root", NewKey(id, user, DIGEST, "wxyz"))
    assert [key.id for key in await keys.list()] == ["k1", "k2", "k3"]
    assert [key.id for key in await keys.list(user="ana")] == ["k1", "k3"]
    assert [key.id for key in await keys.list(after="k1", limit=1)] == ["k2"]


async def test_keys_go_with_their_user(keys: Keys, database: Database) -> None:
    await keys.create("root", NewKey("k1", "ana", DIGEST, "wxyz"))
    await Users(database).delete("root", "ana")
    assert await keys.get("k1") is None


async def test_a_key_for_nobody_or_of_a_taken_id_is_refused(keys: Keys) -> None:
    await keys.create("root", NewKey("k1", "ana", DIGEST, "wxyz"))
    for new, status in ((NewKey("k2", "nobody", DIGEST, "wxyz"), 404), (NewKey("k1", "ana", DIGEST, "wxyz"), 409)):
        with pytest.raises(ClientError) as refused:
            await keys.create("root", new)
        assert refused.value.status == status


async def test_changes_in_the_same_moment_are_all_kept(keys: Keys) -> None:
    await keys.create("root", NewKey("k1", "ana", DIGEST, "wxyz", limits=LIMITS))
    models, grants = ("gpt-5*",), frozenset({"batches"})
    await asyncio.gather(
        keys.update("root", "k1", {"limits": {"models": models}}),
        keys.update("root", "k1", {"limits": {"grants": grants}}),
        keys.update("root", "k1", {"limits": {"addresses": None}}),
        keys.rotate("root", "k1", NewKey("k2", "ana", DIGEST, "abcd"), overlap=60.0),
    )
    changed, new = await keys.get("k1"), await keys.get("k2")
    assert changed is not None
    assert changed.limits == replace(LIMITS, models=models, grants=grants, addresses=None)
    assert new is not None
    assert new.limits.providers == LIMITS.providers
