"""Virtual keys. The database knows a key by its public id and holds a digest of the rest; nothing here can show a key again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Insert, Row, Select, Update, case, func, insert, literal, select, update

from proxy.core.call import Principal
from proxy.core.errors import ClientError
from proxy.storage.database import Database
from proxy.storage.faults import missing
from proxy.storage.identities import KnownKey
from proxy.storage.limits import Limits, decode
from proxy.storage.names import require_plain
from proxy.storage.tables import users, virtual_keys

#: What may be changed of one that is there.
FIELDS = frozenset({"name", "limits", "expires_at"})

#: Ends between these are the same time wherever on earth they are read.
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)

_SHOWN = [column for column in virtual_keys.columns if column.name != "digest"]
_AUDITED = [column for column in _SHOWN if column.name != "created_at"]


@dataclass(frozen=True, slots=True)
class NewKey:
    """What `proxy.core.keys.generate` made, and for whom: its public id, its digest (32 bytes), its last characters to tell it by."""

    id: str
    user_id: str
    digest: bytes = field(repr=False)
    last4: str
    name: str | None = None
    limits: Limits = Limits()  # noqa: RUF009  # frozen
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class VirtualKey:
    """A key as administrators see it."""

    id: str
    user_id: str
    last4: str
    name: str | None
    limits: Limits
    expires_at: datetime | None
    revoked_at: datetime | None
    replaced_by: str | None
    created_at: datetime


class Keys:
    """The table `virtual_keys`. Everything raises CapacityError; what changes something raises ClientError (400, 404, 409) too."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, id: str) -> KnownKey | None:
        """What authentication needs to know; None for a key that is unknown, revoked or expired, or whose user is not active."""
        key = virtual_keys.c
        query = (
            select(key.user_id, key.digest, key.limits, key.expires_at, users.c.tier)
            .join(users, users.c.id == key.user_id)
            .where(key.id == id, key.revoked_at.is_(None), users.c.active)
        )
        row = await self._database.first(query)
        if row is None or (row.expires_at is not None and row.expires_at <= self._database.now()):
            return None
        until = row.expires_at.timestamp() if row.expires_at is not None else None
        return KnownKey(_principal(id, row), row.digest, until)

    async def get(self, id: str) -> VirtualKey | None:
        row = await self._database.first(select(*_SHOWN).where(virtual_keys.c.id == id))
        return None if row is None else _key(row)

    async def list(self, *, user: str | None = None, after: str = "", limit: int = 100) -> tuple[VirtualKey, ...]:
        """In order of their ids, those that come after `after`; of one user, or of all."""
        query = select(*_SHOWN).where(virtual_keys.c.id > after).order_by(virtual_keys.c.id).limit(limit)
        if user is not None:
            query = query.where(virtual_keys.c.user_id == user)
        return tuple(_key(row) for row in await self._database.fetch(query))

    async def create(self, actor: str, new: NewKey) -> VirtualKey:
        require_plain(name=new.name)
        self._require_future(new)
        await self._database.change(
            actor, "key.create", f"key {new.id}", None, _audited(new.id), insert(virtual_keys).values(**_stored(new))
        )
        return await self._existing(new.id)

    async def update(self, actor: str, id: str, fields: Mapping[str, Any]) -> VirtualKey:
        """Set some of `FIELDS`. `limits` maps names of `Limits` to values, the others stay. An end that has passed ends the key."""
        if unknown := set(fields) - FIELDS:
            raise ClientError("This cannot be changed.", param=min(unknown), code="invalid_value")
        if fields:
            require_plain(name=fields.get("name"))
            _require_calendar(fields.get("expires_at"))

            def changed(was: Mapping[str, Any]) -> Update:
                values = dict(fields)
                if "limits" in fields:
                    values["limits"] = replace(decode(was["limits"]), **fields["limits"]).encode()
                return update(virtual_keys).where(virtual_keys.c.id == id).values(**values)

            await self._database.change(actor, "key.update", f"key {id}", _audited(id), _audited(id), changed)
        return await self._existing(id)

    async def revoke(self, actor: str, id: str) -> VirtualKey:
        """From now on nobody is let in by it, once the caches have seen it. A second time changes nothing of the first."""
        moment = func.coalesce(virtual_keys.c.revoked_at, self._database.now())
        statement = update(virtual_keys).where(virtual_keys.c.id == id).values(revoked_at=moment)
        await self._database.change(actor, "key.revoke", f"key {id}", _audited(id), _audited(id), statement)
        return await self._existing(id)

    async def rotate(self, actor: str, id: str, new: NewKey, *, overlap: float) -> VirtualKey:
        """Put `new` in the place of the key `id`, with its limits; that one goes on for `overlap` seconds at most. Returns the new one.

        Raises ClientError: 404 for a key that is not there, 409 for one that is revoked or was replaced before, 400 where the end of `new`
        has passed.
        """
        key = virtual_keys.c
        end = literal(self._database.now() + timedelta(seconds=overlap), key.expires_at.type)
        # Compared where it is written: somebody may have brought the end forward since whoever asks has read the key.
        sooner = case((key.expires_at < end, key.expires_at), else_=end)
        statement = update(virtual_keys).where(key.id == id).values(replaced_by=new.id, expires_at=sooner)
        usable = _audited(id).where(key.revoked_at.is_(None), key.replaced_by.is_(None)).with_for_update()
        stored = _stored(new)

        def insertion(was: Mapping[str, Any]) -> Insert:
            return insert(virtual_keys).values(**{**stored, "limits": was["limits"]})

        try:
            self._require_future(new)
            await self._database.change(actor, "key.rotate", f"key {id}", usable, _audited(id), insertion, statement)
        except ClientError as error:
            old = await self.get(id) if error.status in (400, 404) else None
            if old is not None and (old.revoked_at is not None or old.replaced_by is not None):
                raise ClientError("Refused: the key is revoked or was replaced.", status=409, code="not_usable") from None
            raise
        return await self._existing(new.id)

    def _require_future(self, new: NewKey) -> None:
        """Raises ClientError (400) for a key that would never let anybody in."""
        _require_calendar(new.expires_at)
        if new.expires_at is not None and new.expires_at.astimezone(UTC) <= self._database.now():
            message = "expires_at: has passed, so the key would let nobody in. Give another end, or null for none."
            raise ClientError(message, param="expires_at", code="invalid_value")

    async def _existing(self, id: str) -> VirtualKey:
        found = await self.get(id)
        if found is None:
            raise missing(f"key {id}")
        return found


def _require_calendar(end: datetime | None) -> None:
    try:
        is_there = end is None or _FIRST <= end.astimezone(UTC) < _LAST
    except (OverflowError, ValueError):
        is_there = False
    if not is_there:
        raise ClientError("expires_at: from 1970 to the end of 9998.", param="expires_at", code="invalid_value")


def _audited(id: str) -> Select[Any]:
    return select(*_AUDITED).where(virtual_keys.c.id == id)


def _stored(new: NewKey) -> dict[str, Any]:
    return {
        "id": new.id,
        "user_id": new.user_id,
        "digest": new.digest,
        "last4": new.last4,
        "name": new.name,
        "limits": new.limits.encode(),
        "expires_at": new.expires_at,
    }


def _key(row: Row[Any]) -> VirtualKey:
    return VirtualKey(**{**row._mapping, "limits": decode(row.limits)})


def _principal(id: str, row: Row[Any]) -> Principal:
    limits = decode(row.limits)
    return Principal(
        id=row.user_id,
        key=id,
        tier=row.tier,
        models=limits.models,
        providers=limits.providers,
        operations=limits.operations,
        task_types=limits.task_types,
        grants=limits.grants,
        may_set=limits.may_set,
        names_users=limits.names_users,
        addresses=limits.addresses,
    )
