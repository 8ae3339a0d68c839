"""Providers' keys, sealed. What is stored here cannot be read without the key-encryption key, which is not here."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, delete, insert, select, update

from proxy.core.errors import ClientError
from proxy.storage.database import Database
from proxy.storage.tables import credentials as table
from proxy.vault import Place, Sealed

_SHOWN = [table.c[name] for name in ("name", "version", "kek_id", "last4", "fingerprint", "created_at", "rotated_at")]
_SEALED = [table.c[name] for name in ("name", "version", "ciphertext", "wrapped_key", "kek_id", "last4", "fingerprint")]
_AUDITED = [table.c[name] for name in ("name", "version", "kek_id", "last4", "fingerprint")]


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """A secret under its own data key, and that one under the key-encryption key `kek_id`; see `proxy.vault`. Nonces go first in both.

    `version` counts how often it has been replaced, from 1: with the name it is what both layers are bound to. `last4` is shown to tell
    it by, and `fingerprint` too: a keyed hash, the same for the same secret in one database.
    """

    name: str
    version: int
    ciphertext: bytes = field(repr=False)
    wrapped_key: bytes = field(repr=False)
    kek_id: str
    last4: str
    fingerprint: str | None = None

    @classmethod
    def of(cls, place: Place, sealed: Sealed, *, last4: str, fingerprint: str | None) -> SealedSecret:
        return cls(place.name, place.version, sealed.text, sealed.wrapped, sealed.key_id, last4, fingerprint)

    @property
    def place(self) -> Place:
        return Place(self.name, self.version)

    @property
    def sealed(self) -> Sealed:
        return Sealed(self.kek_id, self.wrapped_key, self.ciphertext)


@dataclass(frozen=True, slots=True)
class StoredCredential:
    """What may be shown of one. `last4` is empty for a secret of which that would be too much; `rotated_at` None: still the first."""

    name: str
    version: int
    kek_id: str
    last4: str
    fingerprint: str | None
    created_at: datetime
    rotated_at: datetime | None


class Credentials:
    """The table `credentials`. Everything raises CapacityError; what changes something raises ClientError (400, 404, 409) too."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, name: str) -> SealedSecret | None:
        found = await self.sealed([name])
        return found[0] if found else None

    async def shown(self, name: str) -> StoredCredential | None:
        row = await self._database.first(select(*_SHOWN).where(table.c.name == name))
        return None if row is None else _stored(row)

    async def list(self) -> tuple[StoredCredential, ...]:
        return tuple(_stored(row) for row in await self._database.fetch(select(*_SHOWN).order_by(table.c.name)))

    async def sealed(self, names: Collection[str] | None = None) -> tuple[SealedSecret, ...]:
        """Those of `names`, or all of them."""
        query = select(*_SEALED).order_by(table.c.name)
        if names is not None:
            query = query.where(table.c.name.in_(names))
        return tuple(SealedSecret(**row._mapping) for row in await self._database.fetch(query))

    async def add(self, actor: str, sealed: SealedSecret) -> None:
        """Raises ClientError (409) for a name that is taken."""
        statement = insert(table).values(**_values(sealed))
        await self._database.change(actor, "credential.add", f"credential {sealed.name}", None, _audited(sealed.name), statement)

    async def rotate(self, actor: str, sealed: SealedSecret) -> None:
        """Put `sealed` in the place of the version before it. Raises ClientError: 404, and 409 where somebody else was faster."""
        name = sealed.name
        is_before = table.c.version == sealed.version - 1
        values = {**_values(sealed), "rotated_at": self._database.now()}
        statement = update(table).where(table.c.name == name, is_before).values(**values)
        try:
            await self._database.change(
                actor, "credential.rotate", f"credential {name}", _audited(name).where(is_before), _audited(name), statement
            )
        except ClientError as error:
            if error.status == 404 and await self.shown(name) is not None:
                raise ClientError("Somebody else has replaced it meanwhile; try again.", status=409, code="conflict") from None
            raise

    async def rewrap(self, actor: str, sealed: Iterable[SealedSecret], old: str, new: str) -> int:
        """Put each record's data key under another key-encryption key; records that were replaced meanwhile are left. How many it were."""
        statements = [
            update(table)
            .where(table.c.name == one.name, table.c.version == one.version, table.c.kek_id == old)
            .values(wrapped_key=one.wrapped_key, kek_id=one.kek_id)
            for one in sealed
        ]
        changed = await self._database.change(actor, "credential.rekey", "credentials", {"kek_id": old}, {"kek_id": new}, *statements)
        return changed.rows

    async def delete(self, actor: str, name: str) -> None:
        statement = delete(table).where(table.c.name == name)
        await self._database.change(actor, "credential.delete", f"credential {name}", _audited(name), None, statement)


def _values(sealed: SealedSecret) -> dict[str, Any]:
    return {column.name: getattr(sealed, column.name) for column in _SEALED}


def _audited(name: str) -> Select[Any]:
    return select(*_AUDITED).where(table.c.name == name)


def _stored(row: Row[Any]) -> StoredCredential:
    return StoredCredential(**row._mapping)
