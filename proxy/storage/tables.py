"""The tables, as SQLAlchemy Core knows them. What makes them is in `migrations/`; a test holds the two together.

Times are aware and in UTC. Bounds are CHECK constraints, so that nothing that writes beside this room gets around them.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.types import TypeDecorator

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

_NOW = text("CURRENT_TIMESTAMP")


class Instant(TypeDecorator[datetime]):
    """An aware time. SQLite keeps no zone: UTC goes in and comes out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _json() -> JSON:
    """Text as it was written, on both databases: PostgreSQL's JSONB would change numbers, and with them the hashes of the audit log."""
    return JSON(none_as_null=True)


users = Table(
    "users",
    metadata,
    Column("id", String(200), primary_key=True),
    Column("name", String(200)),
    Column("tier", String(100)),
    Column("active", Boolean, nullable=False, server_default=text("true")),
    Column("created_at", Instant, nullable=False, server_default=_NOW),
    Column("updated_at", Instant, nullable=False, server_default=_NOW),
    CheckConstraint("length(id) BETWEEN 1 AND 200", name="id"),
)

virtual_keys = Table(
    "virtual_keys",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("user_id", String(200), ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("last4", String(4), nullable=False),
    Column("name", String(200)),
    Column("limits", _json(), nullable=False),
    Column("expires_at", Instant),
    Column("revoked_at", Instant),
    Column("replaced_by", String(64), ForeignKey("virtual_keys.id", ondelete="SET NULL")),
    Column("created_at", Instant, nullable=False, server_default=_NOW),
    CheckConstraint("length(digest) = 32", name="digest"),
    Index("ix_virtual_keys_user_id", "user_id"),
)

user_llm_preferences = Table(
    "user_llm_preferences",
    metadata,
    Column("user_id", String(200), ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("preferred_model", String(100)),
    Column("fallback_model", String(100)),
    Column("timeout_seconds", Float),
    Column("max_retries", Integer),
    Column("task_type_configs", _json()),
    Column("created_at", Instant, nullable=False, server_default=_NOW),
    Column("updated_at", Instant, nullable=False, server_default=_NOW),
    CheckConstraint("length(preferred_model) BETWEEN 1 AND 100", name="preferred_model"),
    CheckConstraint("length(fallback_model) BETWEEN 1 AND 100", name="fallback_model"),
    CheckConstraint("timeout_seconds > 0 AND timeout_seconds <= 300", name="timeout_seconds"),
    CheckConstraint("max_retries BETWEEN 0 AND 10", name="max_retries"),
    CheckConstraint("json_type(task_type_configs) = 'object'", name="task_type_configs").ddl_if(dialect="sqlite"),
    CheckConstraint("json_typeof(task_type_configs) = 'object'", name="task_type_configs").ddl_if(dialect="postgresql"),
)

credentials = Table(
    "credentials",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("ciphertext", LargeBinary, nullable=False),
    Column("wrapped_key", LargeBinary, nullable=False),
    Column("kek_id", String(100), nullable=False),
    Column("last4", String(4), nullable=False),
    Column("created_at", Instant, nullable=False, server_default=_NOW),
    Column("updated_at", Instant, nullable=False, server_default=_NOW),
    Column("fingerprint", String(32)),
    Column("rotated_at", Instant),
    CheckConstraint("version >= 1", name="version"),
)

configuration_versions = Table(
    "configuration_versions",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("text", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("actor", String(200), nullable=False),
    Column("comment", Text),
    Column("created_at", Instant, nullable=False, server_default=_NOW),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", Instant, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("action", String(100), nullable=False),
    Column("object", String(300), nullable=False),
    Column("before", _json()),
    Column("after", _json()),
    Column("previous_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)

#: Tables whose `created_at` and `updated_at` the database keeps, whatever a statement says.
TIMED = ("users", "user_llm_preferences", "credentials")
