"""Brings a database to this version's tables. Alembic's revisions are under `versions/`; this module runs them, in place of an `env.py`."""

from __future__ import annotations

from pathlib import Path

from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text

#: Any number that nothing else in the same PostgreSQL takes as its advisory lock.
_LOCK = 6_270_015_811


class UnknownSchemaError(Exception):
    """The database has tables that this version does not know: it was used by a newer one. The message says so."""


def _scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return ScriptDirectory.from_config(config)


def upgrade(connection: Connection) -> None:
    """Run what is missing, in the transaction that `connection` is in. Several processes may do so at once: the first does it.

    Raises UnknownSchemaError.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    scripts = _scripts()
    # `_upgrade_revs` is what `alembic upgrade` itself calls; there is no other name for it.
    context = MigrationContext.configure(
        connection, opts={"fn": lambda revision, _: scripts._upgrade_revs("head", revision), "script": scripts}
    )
    try:
        with Operations.context(context):
            context.run_migrations()
    except CommandError as error:
        raise UnknownSchemaError(
            "the database was used by a newer version of comporta; update this one, or name another database"
        ) from error


def revision(connection: Connection) -> str | None:
    """Which revision the database is at; None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()
