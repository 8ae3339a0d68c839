"""The audit log: who changed what, each row bound to the one before by its hash.

A row that was changed, taken out or put in between is seen by `verify`. Rows cut off at the end are seen by who has kept `head` elsewhere,
and gives it to `verify`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, select

from proxy.storage.tables import audit_log

if TYPE_CHECKING:
    from proxy.storage.database import Database

_HASHED = [column.name for column in audit_log.columns if column.name != "hash"]

#: What the first row follows.
START = "0" * 64
_BATCH = 500


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One change. `before` and `after` are what may be shown of the object: never a secret, None where there was or is nothing."""

    seq: int
    at: datetime
    actor: str
    action: str
    object: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    previous_hash: str
    hash: str


def plain(value: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """`value` as it will be when it is read again. Raises TypeError for bytes, which is what secrets and their digests are."""
    if value is None:
        return None
    found: dict[str, Any] = json.loads(json.dumps(value, allow_nan=False, default=_time))
    return found


def _time(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    raise TypeError(f"{type(value).__name__} does not belong in the audit log")


def chained(row: Mapping[str, Any]) -> str:
    """The hash of a row, `hash` itself left out: SHA-256, in hexadecimal, over its canonical JSON, `previous_hash` included."""
    content = {name: row[name] for name in _HASHED}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False, default=_time)
    return hashlib.sha256(text.encode()).hexdigest()


class Audit:
    """Reads the log. What writes it is `Database.change`, and nothing else."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, *, before: int | None = None, limit: int = 100) -> tuple[AuditRow, ...]:
        """The newest rows first, those with a `seq` below `before`."""
        query = select(audit_log).order_by(audit_log.c.seq.desc()).limit(limit)
        if before is not None:
            query = query.where(audit_log.c.seq < before)
        return tuple(_row(row) for row in await self._database.fetch(query))

    async def head(self) -> tuple[int, str]:
        """`seq` and hash of the newest row; 0 and `START` for an empty log. Kept elsewhere, it shows later that nothing was cut off."""
        newest = await self.list(limit=1)
        return (newest[0].seq, newest[0].hash) if newest else (0, START)

    async def verify(self, head: tuple[int, str] | None = None) -> int | None:
        """The `seq` of the first row that is not as it was written, or is not there; None for a whole log.

        `head` is one that was kept: the log must still lead to it.
        """
        last, previous = 0, START
        while True:
            rows = await self._database.fetch(select(audit_log).where(audit_log.c.seq > last).order_by(audit_log.c.seq).limit(_BATCH))
            if not rows:
                break
            for row in rows:
                values = dict(row._mapping)
                if row.seq != last + 1 or row.previous_hash != previous or row.hash != chained(values):
                    return last + 1
                last, previous = last + 1, row.hash
                if head is not None and last == head[0] and previous != head[1]:
                    return last
        return last + 1 if head is not None and head[0] > last else None


def _row(row: Row[Any]) -> AuditRow:
    return AuditRow(**row._mapping)
