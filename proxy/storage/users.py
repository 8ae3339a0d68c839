"""Users: on whose account requests are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, delete, insert, select, update

from proxy.core.errors import ClientError
from proxy.storage.database import Database
from proxy.storage.faults import missing
from proxy.storage.names import require_id, require_plain
from proxy.storage.tables import users

#: What may be changed of one that is there.
FIELDS = frozenset({"name", "tier", "active"})


@dataclass(frozen=True, slots=True)
class User:
    """`active` False: none of the user's keys is let in. The times are kept by the database."""

    id: str
    name: str | None
    tier: str | None
    active: bool
    created_at: datetime
    updated_at: datetime


class Users:
    """The table `users`. Everything raises CapacityError; what changes something raises ClientError (400, 404, 409) too."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, id: str) -> User | None:
        row = await self._database.first(select(users).where(users.c.id == id))
        return None if row is None else _user(row)

    async def list(self, *, after: str = "", limit: int = 100) -> tuple[User, ...]:
        """In order of their ids, those that come after `after`."""
        rows = await self._database.fetch(select(users).where(users.c.id > after).order_by(users.c.id).limit(limit))
        return tuple(_user(row) for row in rows)

    async def create(self, actor: str, id: str, *, name: str | None = None, tier: str | None = None) -> User:
        require_id(id)
        require_plain(id=id, name=name, tier=tier)
        statement = insert(users).values(id=id, name=name, tier=tier)
        await self._database.change(actor, "user.create", f"user {id}", None, _shown(id), statement)
        return await self._existing(id)

    async def update(self, actor: str, id: str, fields: Mapping[str, Any]) -> User:
        """Set some of `FIELDS`."""
        if unknown := set(fields) - FIELDS:
            raise ClientError("This cannot be changed.", param=min(unknown), code="invalid_value")
        require_plain(name=fields.get("name"), tier=fields.get("tier"))
        if fields:
            statement = update(users).where(users.c.id == id).values(**fields)
            await self._database.change(actor, "user.update", f"user {id}", _shown(id), _shown(id), statement)
        return await self._existing(id)

    async def delete(self, actor: str, id: str) -> None:
        """The user, with all keys and preferences."""
        await self._database.change(actor, "user.delete", f"user {id}", _shown(id), None, delete(users).where(users.c.id == id))

    async def _existing(self, id: str) -> User:
        found = await self.get(id)
        if found is None:
            raise missing(f"user {id}")
        return found


def _shown(id: str) -> Select[Any]:
    return select(users.c.id, users.c.name, users.c.tier, users.c.active).where(users.c.id == id)


def _user(row: Row[Any]) -> User:
    return User(**row._mapping)
