from __future__ import annotations

import asyncio
import dataclasses

import pytest

from proxy.core.errors import ClientError
from proxy.storage.audit import Audit
from proxy.storage.credentials import Credentials, SealedSecret
from proxy.storage.database import Database

SEALED = SealedSecret("openai", 1, b"\x00cipher\xff", b"\x00wrapped\xff", "kek-1", "wxyz", "0123456789abcdef")
NEXT = dataclasses.replace(SEALED, version=2, ciphertext=b"new", last4="5678", fingerprint="fedcba9876543210")


async def test_a_sealed_secret_comes_back_byte_for_byte(database: Database) -> None:
    credentials = Credentials(database)
    await credentials.add("root", SEALED)
    assert await credentials.get("openai") == SEALED
    assert await credentials.sealed() == (SEALED,)
    assert await credentials.sealed(["other"]) == ()
    assert await credentials.get("other") is None


async def test_lists_show_the_last_characters_and_nothing_sealed(database: Database) -> None:
    credentials = Credentials(database)
    await credentials.add("root", SEALED)
    (shown,) = await credentials.list()
    assert (shown.name, shown.version, shown.kek_id, shown.last4, shown.rotated_at) == ("openai", 1, "kek-1", "wxyz", None)
    assert "cipher" not in repr(shown) + repr(SEALED)


async def test_a_name_is_taken_once(database: Database) -> None:
    credentials = Credentials(database)
    await credentials.add("root", SEALED)
    with pytest.raises(ClientError) as refused:
        await credentials.add("root", NEXT)
    assert refused.value.status == 409
    assert await credentials.get("openai") == SEALED


async def test_another_in_its_place_replaces_it_and_is_audited_without_secrets(database: Database) -> None:
    credentials = Credentials(database)
    await credentials.add("root", SEALED)
    await credentials.rotate("root", NEXT)
    assert await credentials.get("openai") == NEXT
    shown = await credentials.shown("openai")
    assert shown is not None
    assert shown.rotated_at == database.now()
    newest, _ = await Audit(database).list()
    told = {"name": "openai", "kek_id": "kek-1"}
    assert newest.before == {**told, "version": 1, "last4": "wxyz", "fingerprint": "0123456789abcdef"}
    assert newest.after == {**told, "version": 2, "last4": "5678", "fingerprint": "fedcba9876543210"}


async def test_of_those_who_replace_it_at_once_one_succeeds_and_the_others_are_told(database: Database) -> None:
    credentials = Credentials(database)
    await credentials.add("root", SEALED)
    ends = await asyncio.gather(*(credentials.rotate("root", NEXT) for _ in range(4)), return_exceptions=True)
    assert sorted(end.status if isinstance(end, ClientError) else 200 for end in ends) == [200, 409, 409, 409]
    assert len(await Audit(database).list()) == 2


async def test_what_is_not_there_is_not_replaced(database: Database) -> None:
    with pytest.raises(ClientError) as refused:
        await Credentials(database).rotate("root", NEXT)
    assert refused.value.status == 404


async def test_wrapping_anew_leaves_what_was_replaced_meanwhile_and_when_it_was_rotated(database: Database) -> None:
    credentials = Credentials(database)
    await credentials.add("root", SEALED)
    wrapped = dataclasses.replace(SEALED, wrapped_key=b"anew", kek_id="kek-2")
    stale = dataclasses.replace(wrapped, version=7)
    assert await credentials.rewrap("root", [wrapped, stale], "kek-1", "kek-2") == 1
    assert await credentials.get("openai") == wrapped
    assert await credentials.rewrap("root", [wrapped], "kek-1", "kek-2") == 0
    shown = await credentials.shown("openai")
    assert shown is not None
    assert shown.rotated_at is None


async def test_a_deleted_one_is_gone(database: Database) -> None:
    credentials = Credentials(database)
    await credentials.add("root", SEALED)
    await credentials.delete("root", "openai")
    assert await credentials.list() == ()
    with pytest.raises(ClientError) as refused:
        await credentials.delete("root", "openai")
    assert refused.value.status == 404
