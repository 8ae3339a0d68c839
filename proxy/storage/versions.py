"""Versions of the configuration: each text that was put in force through the administration, and who did it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Row, insert, select

from proxy.storage.database import Database
from proxy.storage.tables import configuration_versions as table

#: What lists and the audit log show: the text can be long.
_LISTED = [column for column in table.columns if column.name != "text"]


@dataclass(frozen=True, slots=True)
class Version:
    """`digest` is the text's SHA-256 in hexadecimal. `text` is None in lists."""

    id: int
    digest: str
    actor: str
    comment: str | None
    created_at: datetime
    text: str | None = field(default=None, repr=False)


class Versions:
    """The table `configuration_versions`. Nothing of it is changed or deleted. Everything raises CapacityError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, actor: str, text: str, comment: str | None = None) -> Version:
        digest = hashlib.sha256(text.encode()).hexdigest()
        statement = insert(table).values(text=text, digest=digest, actor=actor, comment=comment)
        newest = select(table.c.id, table.c.digest, table.c.comment).order_by(table.c.id.desc()).limit(1)
        changed = await self._database.change(actor, "configuration.add", "configuration", None, newest, statement)
        assert changed.after is not None
        found = await self.get(changed.after["id"])
        assert found is not None
        return found

    async def get(self, id: int) -> Version | None:
        row = await self._database.first(select(table).where(table.c.id == id))
        return None if row is None else _version(row)

    async def latest(self) -> Version | None:
        row = await self._database.first(select(table).order_by(table.c.id.desc()).limit(1))
        return None if row is None else _version(row)

    async def list(self, *, before: int | None = None, limit: int = 100) -> tuple[Version, ...]:
        """The newest first, those with an id below `before`."""
        query = select(*_LISTED).order_by(table.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(table.c.id < before)
        return tuple(_version(row) for row in await self._database.fetch(query))


def _version(row: Row[Any]) -> Version:
    return Version(**row._mapping)
