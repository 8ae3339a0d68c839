from __future__ import annotations

import dataclasses

import pytest

from proxy.core.errors import ClientError
from proxy.storage.audit import Audit
from proxy.storage.credentials import Credentials, SealedSecret
from proxy.storage.database import Database

SEALED = SealedSecret("openai", 1, b"\x00cipher\xff", b"\x00wrapped\xff", "kek-1", "wxyz")


async def test_a_sealed_secret_comes_back_byte_for_byte(database: Database) -> None:
    credentials = Credentials(database)
    await credentials.put("root", SEALED)
    assert await credentials.get("openai") == SEALED
    assert await credentials.sealed() == (SEALED,)
    assert await credentials.get("other") is None


async def test_lists_show_the_last_characters_and_nothing_sealed(database: Database) -> None:
    credentials = Credentials(database)
    await credentials.put("root", SEALED)
    (shown,) = await credentials.list()
    assert (shown.name, shown.version, shown.kek_id, shown.last4) == ("openai", 1, "kek-1", "wxyz")
    assert "cipher" not in repr(shown) + repr(SEALED)


async def test_another_in_its_place_replaces_it_and_is_audited_without_secrets(database: Database) -> None:
    credentials = Credentials(database)
    await credentials.put("root", SEALED)
    changed = dataclasses.replace(SEALED, version=2, ciphertext=b"new", last4="5678")
    await credentials.put("root", changed)
    assert await credentials.get("openai") == changed
    newest, _ = await Audit(database).list()
    assert newest.before == {"name": "openai", "version": 1, "kek_id": "kek-1", "last4": "wxyz"}
    assert newest.after == {"name": "openai", "version": 2, "kek_id": "kek-1", "last4": "5678"}


async def test_a_deleted_one_is_gone(database: Database) -> None:
    credentials = Credentials(database)
    await credentials.put("root", SEALED)
    await credentials.delete("root", "openai")
    assert await credentials.list() == ()
    with pytest.raises(ClientError) as refused:
        await credentials.delete("root", "openai")
    assert refused.value.status == 404
