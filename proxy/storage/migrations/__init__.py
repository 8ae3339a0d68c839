"""Brings a database to this version's tables. Alembic's revisions are under `versions/`."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, inspect, text

#: The newest revision, so that a database which has it is told without importing Alembic; a test holds it.
HEAD = "0002"


class UnknownSchemaError(Exception):
    """The database has tables that this version does not know: it was used by a newer one. The message says so."""


def revision(connection: Connection) -> str | None:
    """Which revision the database is at; None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def upgrading() -> Callable[[Connection], None]:
    """What runs what is missing, in the transaction that its connection is in, and raises UnknownSchemaError.

    To import it is a thread's work: Alembic takes long.
    """
    from proxy.storage.migrations import runner

    return runner.upgrade
