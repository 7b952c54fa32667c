"""How Alembic runs our scripts: on the connection given, with a version table of its own.

Optuna's studies may share the database and use Alembic's usual version table: tables that are not
ours are never looked at.
"""

from __future__ import annotations

from typing import Any

from alembic import context

from studies.storage.models import VERSION_TABLE, Base


def include_name(name: str | None, kind: str, parents: Any) -> bool:
    """Tell whether Alembic may look at something: only at what belongs to our tables."""
    return kind != "table" or name in Base.metadata.tables


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    include_name=include_name,
)
context.run_migrations()
