"""Credentials: by what one is told from another without being shown, and when it was last replaced."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("credentials", sa.Column("fingerprint", sa.String(32)))
    op.add_column("credentials", sa.Column("rotated_at", sa.DateTime(timezone=True)))
