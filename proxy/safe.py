"""The credential store: sealed records and the key that opens them, behind names. `store:NAME` in the configuration leads here."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from pydantic import Field

from proxy.credential_file import CredentialFile, Record, Records, StoreError
from proxy.fields import SecretRef, Section
from proxy.secrets import SecretError, resolve
from proxy.vault import HOW_TO_MAKE, KeyEncryptionKey, Place, VaultError, parse_key, rewrap, seal, unseal

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

#: Four characters of fewer than this many would be too much of a secret to show.
_SHORTEST_SHOWN = 16


class CredentialSettings(Section):
    """Where credentials that are given to the gateway itself are kept, encrypted; `store:NAME` refers to one."""

    key: SecretRef | None = Field(
        None,
        description="the key that encrypts them, by reference; there is no default: comporta credentials init-key makes one",
        pattern="^(env|file|keyring):",
    )
    directory: str = Field("~/.local/share/comporta", description="where credentials.json is; only its owner may read it")


class Backend(Protocol):
    """What keeps the records: the file here, or anything that has these two."""

    def read(self) -> Records: ...
    def change(self, edit: Callable[[Records], None]) -> None: ...


class Safe:
    """Credentials by name. The key-encryption key is looked up when something is sealed or opened, and not held."""

    def __init__(
        self, backend: Backend, reference: str | None, environ: Mapping[str, str], *, now: Callable[[], float] = time.time
    ) -> None:
        self._backend = backend
        self._reference = reference
        self._environ = environ
        self._now = now

    def __call__(self, name: str) -> str:
        """The secret of that name. Raises SecretError."""
        try:
            record = self._backend.read().get(name)
            if record is None:
                raise SecretError(f"the credential store has none of that name; comporta credentials add {name}")
            return unseal(record.sealed, record.place, self._key())
        except (StoreError, VaultError) as error:
            raise SecretError(f"the credential store: {error}") from None

    def records(self) -> Records:
        """Everything but the secrets, which stay sealed. Raises StoreError."""
        return self._backend.read()

    def add(self, name: str, secret: str) -> Record:
        """Seal a new credential. Raises StoreError for a name that is taken or none, SecretError for a key that is not there."""
        if not _NAME.fullmatch(name):
            raise StoreError("a credential's name is made of lower-case letters, digits, dots, dashes and underscores, 64 at most")

        def edit(records: Records) -> None:
            if name in records:
                raise StoreError(f"there is a credential {name!r}; comporta credentials rotate {name} replaces it")
            records[name] = self._sealed(Place(name, 1), secret, None)

        self._backend.change(edit)
        return self._backend.read()[name]

    def rotate(self, name: str, secret: str) -> Record:
        """Put another secret in a credential's place. Raises StoreError, KeyError for a name that is not there."""

        def edit(records: Records) -> None:
            before = records[name]
            records[name] = self._sealed(Place(name, before.place.version + 1), secret, before)

        self._backend.change(edit)
        return self._backend.read()[name]

    def remove(self, name: str) -> None:
        """Raises StoreError, KeyError for a name that is not there."""
        self._backend.change(lambda records: records.__delitem__(name))

    def rekey(self, reference: str) -> int:
        """Wrap every data key with the key that `reference` leads to. All or none; how many. Raises StoreError, VaultError, SecretError."""
        old, new = self._key(), _key_of(reference, self._environ)

        def edit(records: Records) -> None:
            for name, record in records.items():
                records[name] = replace(record, sealed=rewrap(record.sealed, record.place, old, new))

        self._backend.change(edit)
        return len(self._backend.read())

    def _sealed(self, place: Place, secret: str, before: Record | None) -> Record:
        now = self._now()
        shown = secret[-4:] if len(secret) >= _SHORTEST_SHOWN else ""
        return Record(place, seal(secret, place, self._key()), shown, before.created if before else now, now)

    def _key(self) -> KeyEncryptionKey:
        if self._reference is None:
            raise VaultError(f"credentials.key is not set; {HOW_TO_MAKE}")
        return _key_of(self._reference, self._environ)


def _key_of(reference: str, environ: Mapping[str, str]) -> KeyEncryptionKey:
    try:
        return parse_key(resolve(reference, environ))
    except (SecretError, VaultError) as error:
        raise VaultError(f"its key {reference} cannot be used: {error}") from None


def opened(settings: CredentialSettings, environ: Mapping[str, str]) -> Safe:
    """The store that the configuration names. Nothing is read yet."""
    return Safe(CredentialFile(Path(settings.directory).expanduser()), settings.key, environ)
