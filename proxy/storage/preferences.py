"""What users have set for themselves: the table `user_llm_preferences`. Null inherits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, delete, select

from proxy.core.errors import ClientError
from proxy.core.resolved import Preferences
from proxy.storage.database import Database, IfAny
from proxy.storage.faults import missing
from proxy.storage.tables import user_llm_preferences as table
from proxy.storage.tables import users

MAX_TIMEOUT = 300.0
MAX_RETRIES = 10
_MAX_NAME = 100
_MAX_TASK_TYPES = 1000


@dataclass(frozen=True, slots=True)
class StoredPreferences:
    """One user's, with the times that the database keeps."""

    user_id: str
    preferences: Preferences
    created_at: datetime
    updated_at: datetime


class PreferenceTable:
    """Everything raises CapacityError; what changes something raises ClientError (400, 404) too."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, user: str) -> Preferences:
        """What `user` has set; empty ones for nothing, and for a user who is not known here."""
        stored = await self.get(user)
        return Preferences() if stored is None else stored.preferences

    async def account(self, user: str) -> Preferences:
        """What `user` has set, with the user's tier: what requests in that name go by. Who is not active is not known."""
        both = users.outerjoin(table, table.c.user_id == users.c.id)
        row = await self._database.first(select(users.c.tier, table).select_from(both).where(users.c.id == user, users.c.active))
        return Preferences() if row is None else replace(_decode(row), tier=row.tier or "")

    async def get(self, user: str) -> StoredPreferences | None:
        row = await self._database.first(select(table).where(table.c.user_id == user))
        return None if row is None else StoredPreferences(user, _decode(row), row.created_at, row.updated_at)

    async def put(self, actor: str, user: str, preferences: Preferences) -> StoredPreferences:
        """Set all of them: what `preferences` leaves None inherits from now on."""
        values = {"user_id": user, **encode(preferences)}
        statement = self._database.upsert(table, values)
        shown = _shown(user)
        await self._database.change(actor, "preferences.put", f"preferences of {user}", IfAny(shown), shown, statement)
        found = await self.get(user)
        if found is None:
            raise missing(f"user {user}")
        return found

    async def delete(self, actor: str, user: str) -> None:
        statement = delete(table).where(table.c.user_id == user)
        await self._database.change(actor, "preferences.delete", f"preferences of {user}", _shown(user), None, statement)


def encode(preferences: Preferences) -> dict[str, Any]:
    """The row, without its user. Raises ClientError (400) that names the field which is out of its bounds."""
    _check(preferences, "")
    if len(preferences.task_types) > _MAX_TASK_TYPES:
        raise ClientError(f"At most {_MAX_TASK_TYPES} task types.", param="task_types", code="invalid_value")
    for name, entry in preferences.task_types.items():
        if not name or len(name) > _MAX_NAME or not name.isprintable():
            raise ClientError(f"A name has 1 to {_MAX_NAME} printable characters.", param="task_types", code="invalid_value")
        if entry.task_types:
            raise ClientError("A task type has none of its own.", param=f"task_types.{name}.task_types", code="invalid_value")
        _check(entry, f"task_types.{name}.")
    return {
        "preferred_model": preferences.model,
        "fallback_model": preferences.fallback_model,
        "timeout_seconds": preferences.timeout,
        "max_retries": preferences.max_retries,
        "task_type_configs": {name: _entry(entry) for name, entry in preferences.task_types.items()} or None,
    }


def _check(preferences: Preferences, where: str) -> None:
    for field in ("model", "fallback_model"):
        name = getattr(preferences, field)
        if name is not None and not (0 < len(name) <= _MAX_NAME and name.isprintable()):
            raise ClientError(f"A model's name has 1 to {_MAX_NAME} printable characters.", param=where + field, code="invalid_value")
    if preferences.timeout is not None and not 0 < preferences.timeout <= MAX_TIMEOUT:
        raise ClientError(f"A timeout is more than 0 and at most {MAX_TIMEOUT:g} seconds.", param=where + "timeout", code="invalid_value")
    if preferences.max_retries is not None and not 0 <= preferences.max_retries <= MAX_RETRIES:
        raise ClientError(f"Retries are 0 to {MAX_RETRIES}.", param=where + "max_retries", code="invalid_value")


def _entry(preferences: Preferences) -> dict[str, Any]:
    values = {
        "model": preferences.model,
        "fallback_model": preferences.fallback_model,
        "timeout_seconds": preferences.timeout,
        "max_retries": preferences.max_retries,
    }
    return {member: value for member, value in values.items() if value is not None}


def _decode(row: Row[Any]) -> Preferences:
    return Preferences(
        model=row.preferred_model,
        fallback_model=row.fallback_model,
        timeout=row.timeout_seconds,
        max_retries=row.max_retries,
        task_types={name: _decode_entry(entry) for name, entry in (row.task_type_configs or {}).items()},
    )


def _decode_entry(entry: Mapping[str, Any]) -> Preferences:
    return Preferences(
        model=entry.get("model"),
        fallback_model=entry.get("fallback_model"),
        timeout=entry.get("timeout_seconds"),
        max_retries=entry.get("max_retries"),
    )


def _shown(user: str) -> Select[Any]:
    columns = [column for column in table.columns if column.name not in ("created_at", "updated_at")]
    return select(*columns).where(table.c.user_id == user)
