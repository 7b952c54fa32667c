"""Evaluations without a trial say of which network they are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v4"
down_revision = "v3"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column."""
    op.add_column("evaluation", sa.Column("architecture_key", sa.String(32)))
