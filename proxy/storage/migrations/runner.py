"""Runs Alembic's revisions, in place of an `env.py`. In a module of its own: Alembic is imported only where something is missing."""

from __future__ import annotations

from pathlib import Path

from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text

from proxy.storage.migrations import UnknownSchemaError

#: Any number that nothing else in the same PostgreSQL takes as its advisory lock.
_LOCK = 6_270_015_811


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
