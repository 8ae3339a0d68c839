"""Secrets in and out of both databases: encrypted there, audited, told, and known to those who serve."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import text

from proxy.core.errors import ClientError
from proxy.secrets import SecretError
from proxy.storage.audit import Audit
from proxy.storage.credential_store import CredentialStore, KnownSecrets
from proxy.storage.credentials import Credentials
from proxy.storage.database import Database
from proxy.vault import KeyEncryptionKey, VaultError
from tests.support.told import Told

CANARY = "canary-7c1d-not-a-real-key"
OTHER = "canary-8d2e-not-a-real-key"
KEY = KeyEncryptionKey(bytes(range(32)))
NEW_KEY = KeyEncryptionKey(bytes(32))
PEPPER = b"p" * 32


def no_key() -> KeyEncryptionKey:
    raise VaultError("credentials.key is not set")


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def store(database: Database, told: Told) -> CredentialStore:
    return CredentialStore(Credentials(database), lambda: KEY, PEPPER, told)


async def _known(database: Database, key: Callable[[], KeyEncryptionKey] = lambda: KEY) -> KnownSecrets:
    known = KnownSecrets(Credentials(database))
    await known.read(["spare"], key)
    return known


async def _everything(database: Database) -> str:
    """All that the tables hold, as text."""
    found = [await database.fetch(text(f"SELECT * FROM {table}")) for table in ("credentials", "audit_log")]  # noqa: S608 - names from here
    return "".join(repr(bytes(value) if isinstance(value, memoryview) else value) for rows in found for row in rows for value in row)


async def test_a_secret_is_stored_unreadable_and_known_to_who_has_the_key(store: CredentialStore, database: Database, told: Told) -> None:
    made = await store.add("root", "spare", CANARY + "\n")
    assert (made.name, made.version, made.last4) == ("spare", 1, "-key")
    assert told == [("credential", "spare")]
    assert CANARY not in await _everything(database)
    assert (await _known(database))("spare") == await store.secret("spare") == CANARY


async def test_the_same_secret_has_the_same_fingerprint_which_is_not_that_of_another_pepper(
    store: CredentialStore, database: Database
) -> None:
    first, second = await store.add("root", "spare", CANARY), await store.add("root", "again", CANARY)
    elsewhere = CredentialStore(Credentials(database), lambda: KEY, b"q" * 32, Told())
    assert first.fingerprint == second.fingerprint
    assert (await elsewhere.add("root", "elsewhere", CANARY)).fingerprint != first.fingerprint
    assert (await store.rotate("root", "spare", OTHER)).fingerprint != first.fingerprint


async def test_of_a_short_secret_nothing_is_shown(store: CredentialStore) -> None:
    assert (await store.add("root", "spare", "short-key")).last4 == ""


async def test_a_name_that_is_none_is_refused(store: CredentialStore) -> None:
    for name in ("", "Spare", "-spare", "a/b", "a b", "s" * 65, "é", "a\n"):
        with pytest.raises(ClientError) as refused:
            await store.add("root", name, CANARY)
        assert (refused.value.status, refused.value.param) == (400, "name"), name
    assert await store.list() == ()


async def test_a_secret_that_can_be_none_is_refused_without_being_repeated(store: CredentialStore) -> None:
    for secret in ("", "\n", f"{CANARY}\nmore", f"{CANARY}é", f"{CANARY}\x00"):
        with pytest.raises(ClientError) as refused:
            await store.add("root", "spare", secret)
        assert (refused.value.status, CANARY in str(refused.value)) == (400, False), secret
    assert await store.list() == ()


async def test_without_a_key_to_encrypt_with_nothing_is_stored(database: Database) -> None:
    with pytest.raises(ClientError) as refused:
        await CredentialStore(Credentials(database), no_key, PEPPER, Told()).add("root", "spare", CANARY)
    assert (refused.value.status, refused.value.code) == (409, "no_credentials_key")
    assert await Credentials(database).list() == ()


async def test_a_change_that_cannot_be_audited_does_not_happen(store: CredentialStore, database: Database, told: Told) -> None:
    await store.add("root", "spare", CANARY)
    before = await Credentials(database).sealed()
    async with database.writing() as connection:
        await connection.execute(text("ALTER TABLE audit_log RENAME TO elsewhere"))
    for change in (
        lambda: store.add("root", "other", OTHER),
        lambda: store.rotate("root", "spare", OTHER),
        lambda: store.remove("root", "spare"),
        lambda: store.rekey("root", lambda: NEW_KEY),
    ):
        with pytest.raises(Exception, match="audit_log"):
            await change()
    assert await Credentials(database).sealed() == before
    assert told == [("credential", "spare")]


async def test_a_rotated_secret_is_known_when_it_is_read_again_and_a_removed_one_no_more(
    store: CredentialStore, database: Database
) -> None:
    await store.add("root", "spare", CANARY)
    known = await _known(database)
    await store.rotate("root", "spare", OTHER)
    assert known("spare") == CANARY
    await known.read(["spare"], lambda: KEY)
    assert known("spare") == OTHER
    await store.remove("root", "spare")
    await known.read(["spare"], lambda: KEY)
    with pytest.raises(SecretError, match="comporta credentials add spare"):
        known("spare")


async def test_a_name_that_was_removed_and_given_again_leads_to_the_new_secret(store: CredentialStore, database: Database) -> None:
    await store.add("root", "spare", CANARY)
    known = await _known(database)
    await store.remove("root", "spare")
    await store.add("root", "spare", OTHER)
    await known.read(["spare"], lambda: KEY)
    assert known("spare") == OTHER


async def test_who_cannot_open_the_new_secret_goes_on_with_the_one_it_knows(store: CredentialStore, database: Database) -> None:
    await store.add("root", "spare", CANARY)
    known = await _known(database)
    await store.rotate("root", "spare", OTHER)
    await known.read(["spare"], lambda: NEW_KEY)
    assert known("spare") == CANARY
    with pytest.raises(SecretError, match="was sealed with the key"):
        (await _known(database, lambda: NEW_KEY))("spare")
    with pytest.raises(SecretError, match="is not set"):
        (await _known(database, no_key))("spare")


async def test_a_record_that_was_put_under_another_name_or_version_does_not_open(store: CredentialStore, database: Database) -> None:
    await store.add("root", "other", CANARY)
    for change in ("name = 'spare'", "version = 2"):
        async with database.writing() as connection:
            await connection.execute(text(f"UPDATE credentials SET {change}"))  # noqa: S608 - from above
        with pytest.raises(SecretError, match="belongs to another name or version"):
            (await _known(database))("spare")


async def test_another_key_encrypts_everything_anew_in_one_row_of_the_log(store: CredentialStore, database: Database) -> None:
    await store.add("root", "spare", CANARY)
    await store.add("root", "other", OTHER)
    assert await store.rekey("root", lambda: NEW_KEY) == 2
    assert (await _known(database, lambda: NEW_KEY))("spare") == CANARY
    newest = (await Audit(database).list(limit=1))[0]
    assert (newest.action, newest.before, newest.after) == ("credential.rekey", {"kek_id": KEY.id}, {"kek_id": NEW_KEY.id})
    assert await CredentialStore(Credentials(database), lambda: NEW_KEY, PEPPER, Told()).rekey("root", lambda: NEW_KEY) == 0
