"""The schema of a record: made in a new one, brought up to date in an older, refused in a newer."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, Engine, func, inspect, select, text

from kernels.errors import NasError
from studies.storage.database import reading, writing
from studies.storage.models import REVISIONS, VERSION_TABLE, Base, version
from studies.storage.refusals import name_of

_LOCK = 0x6E6173  # "nas": whoever makes or upgrades a record holds it
_MIGRATIONS = Path(__file__).parent / "migrations"


def ensure_schema(engine: Engine, *, create: bool) -> None:
    """Bring a record to the schema of this release.

    Args:
        engine: of the record.
        create: whether to make the tables where there are none.

    Raises:
        NasError: it is no record, one of a newer schema, or it cannot be upgraded.
    """
    with reading(engine) as connection:
        if _revision(engine, connection) == REVISIONS[-1]:
            return
    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":  # a writer of SQLite is alone anyway
            connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        # Another process may have been here in between.
        found = _revision(engine, connection)
        if found is None:
            if not create:
                raise _no_record(engine)
            Base.metadata.create_all(connection)
            _stamp(connection, REVISIONS[-1])
            return
        if found == REVISIONS[-1]:
            return
        copy = _copy(engine, found)
        try:
            upgrade(connection, found)
        except Exception as problem:
            kept = f" A copy of it is {copy}." if copy else ""
            raise NasError(
                f"Cannot upgrade the record {name_of(engine)} from schema {found} to "
                f"{REVISIONS[-1]}; it is as it was.{kept} Reason: {str(problem).splitlines()[0]}"
            ) from problem
    if copy is not None:
        copy.unlink()


def upgrade(connection: Connection, found: str) -> None:
    """Run the migrations after a revision, in the connection's transaction."""
    from alembic import command
    from alembic.config import Config

    if not inspect(connection).has_table(VERSION_TABLE):
        _stamp(connection, found)
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _revision(engine: Engine, connection: Connection) -> str | None:
    """Return the revision of a record; None where there is none.

    Raises:
        NasError: there are tables that are no record, or the schema is not known here.
    """
    tables = set(inspect(connection).get_table_names())
    found = None
    if VERSION_TABLE in tables:
        found = connection.execute(select(version.c.version_num)).scalar()
    elif {"meta", "study", "trial"} <= tables:
        # Records of the first schema say so themselves.
        query = "SELECT value FROM meta WHERE name = 'schema_version'"
        found = f"v{connection.execute(text(query)).scalar()}"
    elif tables & set(Base.metadata.tables):
        raise _no_record(engine)
    if found is not None and found not in REVISIONS:
        raise NasError(
            f"{name_of(engine)} is a record of schema {found}; this version reads up to "
            f"{REVISIONS[-1]}. Use the release that wrote it, or another workspace."
        )
    return found


def _no_record(engine: Engine) -> NasError:
    return NasError(f"{name_of(engine)} is no record of studies; give another workspace.")


def _stamp(connection: Connection, revision: str) -> None:
    version.create(connection)
    connection.execute(version.insert().values(version_num=revision))


def _copy(engine: Engine, revision: str) -> Path | None:
    """Copy a SQLite file beside itself; other databases have backups of their own."""
    database = engine.url.database
    if engine.dialect.name != "sqlite" or not database or not Path(database).is_file():
        return None
    copy = Path(f"{database}.{revision}-copy")
    try:
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
    except sqlite3.Error as problem:
        copy.unlink(missing_ok=True)
        raise NasError(
            f"Cannot copy the record {database} before it is upgraded: {problem}. Free some space "
            "or make its directory writable."
        ) from None
    return copy
