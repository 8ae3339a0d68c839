"""Providers' keys, sealed. What is stored here cannot be read without the key-encryption key, which is not here."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Select, delete, select

from proxy.storage.database import Database, IfAny
from proxy.storage.tables import credentials as table

_SHOWN = [table.c[name] for name in ("name", "version", "kek_id", "last4", "created_at", "updated_at")]
_SEALED = [table.c[name] for name in ("name", "version", "ciphertext", "wrapped_key", "kek_id", "last4")]


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """A secret under its own data key, and that one under the key-encryption key `kek_id`; see `proxy.vault`. Nonces go first in both.

    `version` counts how often it has been replaced, from 1: with the name it is what both layers are bound to. `last4` is shown to tell
    it by.
    """

    name: str
    version: int
    ciphertext: bytes = field(repr=False)
    wrapped_key: bytes = field(repr=False)
    kek_id: str
    last4: str


@dataclass(frozen=True, slots=True)
class StoredCredential:
    """What may be shown of one."""

    name: str
    version: int
    kek_id: str
    last4: str
    created_at: datetime
    updated_at: datetime


class Credentials:
    """The table `credentials`. Everything raises CapacityError; what changes something raises ClientError (400, 404) too."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, name: str) -> SealedSecret | None:
        row = await self._database.first(select(*_SEALED).where(table.c.name == name))
        return None if row is None else SealedSecret(**row._mapping)

    async def list(self) -> tuple[StoredCredential, ...]:
        rows = await self._database.fetch(select(*_SHOWN).order_by(table.c.name))
        return tuple(StoredCredential(**row._mapping) for row in rows)

    async def sealed(self) -> tuple[SealedSecret, ...]:
        """All of them, for a start and for a new key-encryption key."""
        return tuple(SealedSecret(**row._mapping) for row in await self._database.fetch(select(*_SEALED).order_by(table.c.name)))

    async def put(self, actor: str, sealed: SealedSecret, *, action: str = "credential.put") -> None:
        """Store a new one, or another in its place (also: the same one, wrapped anew)."""
        values: dict[str, Any] = {column.name: getattr(sealed, column.name) for column in _SEALED}
        statement = self._database.upsert(table, values)
        shown = _audited(sealed.name)
        await self._database.change(actor, action, f"credential {sealed.name}", IfAny(shown), shown, statement)

    async def delete(self, actor: str, name: str) -> None:
        statement = delete(table).where(table.c.name == name)
        await self._database.change(actor, "credential.delete", f"credential {name}", _audited(name), None, statement)


def _audited(name: str) -> Select[Any]:
    return select(table.c.name, table.c.version, table.c.kek_id, table.c.last4).where(table.c.name == name)
