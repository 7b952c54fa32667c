"""Leases count what their drivers wrote; the workers of a study can be seen."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v3"
down_revision = "v2"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column and a table."""
    counter = sa.Column("sequence", sa.BigInteger, nullable=False, server_default=sa.text("0"))
    op.add_column("lease", counter)
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "worker",
        sa.Column("study_id", sa.Integer, sa.ForeignKey("study.id"), primary_key=True),
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("node", sa.String(255), nullable=False),
        sa.Column("slot", sa.String(16), nullable=False),
        sa.Column("device", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("trial", sa.Integer),
        sa.Column("since", moment, nullable=False),
        sa.Column("seen", moment, nullable=False),
    )
