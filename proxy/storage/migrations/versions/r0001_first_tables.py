"""The first tables. A revision that was released is never edited: what changes comes in another one."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_NOW = sa.text("CURRENT_TIMESTAMP")
_TIMED = {"users": "id", "user_llm_preferences": "user_id", "credentials": "name"}


def upgrade() -> None:
    _users_and_keys()
    _preferences()
    _administration()
    dialect = op.get_bind().dialect.name
    for statement in _POSTGRESQL if dialect == "postgresql" else _SQLITE:
        op.execute(sa.text(statement))


def _when(name: str) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=_NOW)


def _users_and_keys() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.String(200), nullable=False),
        sa.Column("name", sa.String(200)),
        sa.Column("tier", sa.String(100)),
        sa.Column("active", sa.Boolean, nullable=False, server_default=sa.text("true")),
        _when("created_at"),
        _when("updated_at"),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.CheckConstraint("length(id) BETWEEN 1 AND 200", name="ck_users_id"),
    )
    op.create_table(
        "virtual_keys",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("user_id", sa.String(200), nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("last4", sa.String(4), nullable=False),
        sa.Column("name", sa.String(200)),
        sa.Column("limits", sa.JSON, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        sa.Column("replaced_by", sa.String(64)),
        _when("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_virtual_keys"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_virtual_keys_user_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["replaced_by"], ["virtual_keys.id"], name="fk_virtual_keys_replaced_by", ondelete="SET NULL"),
        sa.CheckConstraint("length(digest) = 32", name="ck_virtual_keys_digest"),
    )
    op.create_index("ix_virtual_keys_user_id", "virtual_keys", ["user_id"])


def _preferences() -> None:
    kind = "json_typeof" if op.get_bind().dialect.name == "postgresql" else "json_type"
    prefix = "ck_user_llm_preferences_"
    op.create_table(
        "user_llm_preferences",
        sa.Column("user_id", sa.String(200), nullable=False),
        sa.Column("preferred_model", sa.String(100)),
        sa.Column("fallback_model", sa.String(100)),
        sa.Column("timeout_seconds", sa.Float),
        sa.Column("max_retries", sa.Integer),
        sa.Column("task_type_configs", sa.JSON),
        _when("created_at"),
        _when("updated_at"),
        sa.PrimaryKeyConstraint("user_id", name="pk_user_llm_preferences"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_user_llm_preferences_user_id", ondelete="CASCADE"),
        sa.CheckConstraint("length(preferred_model) BETWEEN 1 AND 100", name=prefix + "preferred_model"),
        sa.CheckConstraint("length(fallback_model) BETWEEN 1 AND 100", name=prefix + "fallback_model"),
        sa.CheckConstraint("timeout_seconds > 0 AND timeout_seconds <= 300", name=prefix + "timeout_seconds"),
        sa.CheckConstraint("max_retries BETWEEN 0 AND 10", name=prefix + "max_retries"),
        sa.CheckConstraint(f"{kind}(task_type_configs) = 'object'", name=prefix + "task_type_configs"),
    )


def _administration() -> None:
    op.create_table(
        "credentials",
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("ciphertext", sa.LargeBinary, nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary, nullable=False),
        sa.Column("kek_id", sa.String(100), nullable=False),
        sa.Column("last4", sa.String(4), nullable=False),
        _when("created_at"),
        _when("updated_at"),
        sa.PrimaryKeyConstraint("name", name="pk_credentials"),
        sa.CheckConstraint("version >= 1", name="ck_credentials_version"),
    )
    op.create_table(
        "configuration_versions",
        sa.Column("id", sa.Integer, autoincrement=True, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("comment", sa.Text),
        _when("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_configuration_versions"),
    )
    op.create_table(
        "audit_log",
        sa.Column("seq", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("action", sa.String(100), nullable=False),
        sa.Column("object", sa.String(300), nullable=False),
        sa.Column("before", sa.JSON),
        sa.Column("after", sa.JSON),
        sa.Column("previous_hash", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_audit_log"),
    )


# The database itself keeps the times and refuses to have the audit log changed, whoever asks.
_SQLITE = [
    *(
        f"CREATE TRIGGER {table}_times AFTER UPDATE ON {table} BEGIN"  # noqa: S608  # names from above
        f" UPDATE {table} SET created_at = OLD.created_at, updated_at = CURRENT_TIMESTAMP WHERE {key} = NEW.{key}; END"
        for table, key in _TIMED.items()
    ),
    "CREATE TRIGGER audit_log_no_update BEFORE UPDATE ON audit_log BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END",
    "CREATE TRIGGER audit_log_no_delete BEFORE DELETE ON audit_log BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END",
    # `INSERT OR REPLACE` deletes without its trigger, unless recursive triggers are on: it is refused before it begins.
    "CREATE TRIGGER audit_log_no_replace BEFORE INSERT ON audit_log WHEN EXISTS (SELECT 1 FROM audit_log WHERE seq = NEW.seq)"
    " BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END",
]

_POSTGRESQL = [
    "CREATE FUNCTION comporta_keep_times() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN NEW.created_at = OLD.created_at; NEW.updated_at = CURRENT_TIMESTAMP; RETURN NEW; END $$",
    *(f"CREATE TRIGGER {table}_times BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION comporta_keep_times()" for table in _TIMED),
    "CREATE FUNCTION comporta_append_only() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$",
    "CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE ON audit_log FOR EACH ROW EXECUTE FUNCTION comporta_append_only()",
    "CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON audit_log FOR EACH STATEMENT EXECUTE FUNCTION comporta_append_only()",
]
