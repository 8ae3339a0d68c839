"""The credential store: secrets in, sealed records in the database; and out again for those who serve with them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import replace
from functools import partial
from typing import TypeVar

from proxy.core import events
from proxy.core.errors import ClientError
from proxy.safe import fingerprint, is_name, last_four
from proxy.secrets import SecretError, checked
from proxy.storage.credentials import Credentials, SealedSecret, StoredCredential
from proxy.storage.faults import missing
from proxy.vault import KeyEncryptionKey, Place, VaultError, rewrap, seal, unseal

#: Looks the key-encryption key up; it may wait for a keyring, so it is called in a thread. Raises VaultError.
Key = Callable[[], KeyEncryptionKey]

Result = TypeVar("Result")


class CredentialStore:
    """What administrators do. `tell` has the others hear of a change.

    Everything raises CapacityError, and ClientError: 400 for a name or a secret that can be none, 404, 409 (`no_credentials_key`) where the
    key-encryption key is not to be had. A change that cannot be audited does not happen.
    """

    def __init__(self, credentials: Credentials, key: Key, pepper: bytes, tell: Callable[[str, str], Awaitable[bool]]) -> None:
        self._credentials = credentials
        self._key = key
        self._pepper = pepper
        self._tell = tell

    async def list(self) -> tuple[StoredCredential, ...]:
        return await self._credentials.list()

    async def get(self, name: str) -> StoredCredential:
        found = await self._credentials.shown(name)
        if found is None:
            raise missing(f"credential {name[:64]!r}")
        return found

    async def add(self, actor: str, name: str, secret: str) -> StoredCredential:
        """A new one. Raises ClientError (409) for a name that is taken."""
        if not is_name(name):
            told = "A credential's name is made of lower-case letters, digits, dots, dashes and underscores, 64 at most."
            raise ClientError(told, param="name", code="invalid_value")
        await self._credentials.add(actor, await self._sealed(Place(name, 1), secret))
        return await self._changed(name)

    async def rotate(self, actor: str, name: str, secret: str, *, version: int | None = None) -> StoredCredential:
        """Another secret in its place; in that of `version` only, where that is given (409 if it is not the one that is there)."""
        before = (await self.get(name)).version if version is None else version
        await self._credentials.rotate(actor, await self._sealed(Place(name, before + 1), secret))
        return await self._changed(name)

    async def remove(self, actor: str, name: str) -> None:
        await self._credentials.delete(actor, name)
        await self._tell("credential", name)

    async def rekey(self, actor: str, new: Key) -> int:
        """Wrap every data key with another key. Those that are replaced meanwhile come in another turn. How many they were."""
        old, fresh = await self._in_thread(lambda: (self._key(), new()))
        done = 0
        while found := [one for one in await self._credentials.sealed() if one.kek_id == old.id != fresh.id]:
            wrapped = await self._in_thread(partial(_rewrapped, found, old, fresh))
            done += await self._credentials.rewrap(actor, wrapped, old.id, fresh.id)
        return done

    async def secret(self, name: str) -> str:
        """The secret itself, to try it."""
        found = await self._credentials.get(name)
        if found is None:
            raise missing(f"credential {name[:64]!r}")
        return await self._in_thread(lambda: unseal(found.sealed, found.place, self._key()))

    async def _changed(self, name: str) -> StoredCredential:
        await self._tell("credential", name)
        return await self.get(name)

    async def _sealed(self, place: Place, secret: str) -> SealedSecret:
        try:
            secret = checked(secret)
        except SecretError as error:
            raise ClientError(f"The secret can be no key: {error}.", param="secret", code="invalid_value") from None
        sealed = await self._in_thread(lambda: seal(secret, place, self._key()))
        return SealedSecret.of(place, sealed, last4=last_four(secret), fingerprint=fingerprint(secret, self._pepper))

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        try:
            return await asyncio.to_thread(work)
        except VaultError as error:
            raise ClientError(f"The credential store: {error}", status=409, code="no_credentials_key") from None


class KnownSecrets:
    """Secrets by name, as the database had them when they were read last. Calling it raises SecretError for one that is not there.

    While the database is away, and where a new record cannot be opened, the secret that was known goes on.
    """

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._opened: dict[str, tuple[bytes, str]] = {}
        self._troubles: dict[str, str] = {}
        self._reading = asyncio.Lock()

    def __call__(self, name: str) -> str:
        found = self._opened.get(name)
        if found is not None:
            return found[1]
        trouble = self._troubles.get(name)
        raise SecretError(trouble or f"the credential store has none of that name; comporta credentials add {name}")

    async def read(self, names: Collection[str], key: Key) -> None:
        """Have those of `names` in hand, and no others. Raises CapacityError, and then nothing has changed."""
        async with self._reading:
            rows = {row.name: row for row in await self._credentials.sealed(names)} if names else {}
            known = {name: found for name, found in self._opened.items() if name in rows}
            # What is sealed again has another nonce: its bytes tell it from the one before, whatever its version says.
            unread = [row for name, row in rows.items() if name not in known or known[name][0] != row.ciphertext]
            opened, troubles = await asyncio.to_thread(_opened, unread, key) if unread else ({}, {})
            for name, trouble in troubles.items():
                if self._troubles.get(name) != trouble:
                    events.error("credential_unreadable", name=name, reason=trouble, earlier=name in known)
            self._opened, self._troubles = {**known, **opened}, troubles


def _opened(rows: Collection[SealedSecret], key: Key) -> tuple[dict[str, tuple[bytes, str]], dict[str, str]]:
    """The secrets with the bytes that they were sealed in, and what is wrong with the others."""
    found: dict[str, tuple[bytes, str]] = {}
    troubles: dict[str, str] = {}
    try:
        unlocking = key()
    except VaultError as error:
        return found, {row.name: f"the credential store: {error}" for row in rows}
    for row in rows:
        try:
            found[row.name] = (row.ciphertext, unseal(row.sealed, row.place, unlocking))
        except VaultError as error:
            troubles[row.name] = f"the credential store: {error}"
    return found, troubles


def _rewrapped(records: Iterable[SealedSecret], old: KeyEncryptionKey, new: KeyEncryptionKey) -> list[SealedSecret]:
    wrapped = [(one, rewrap(one.sealed, one.place, old, new)) for one in records]
    return [replace(one, wrapped_key=sealed.wrapped, kek_id=sealed.key_id) for one, sealed in wrapped]
