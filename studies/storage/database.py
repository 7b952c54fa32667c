"""Opening the record's database, its transactions, and rows that are inserted once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Insert, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from kernels.errors import NasError
from studies.storage.refusals import LOCK_SECONDS, explained

_WRITES = "nas_writes"
_AT_ONCE = 500
"""Rows in one statement: databases limit how many values it may name."""

_SETTINGS = ("PRAGMA synchronous=NORMAL", "PRAGMA foreign_keys=ON")
"""With a write-ahead log, NORMAL loses no transaction when a process dies; when the power fails,
at most the last ones, and the file stays whole."""


def open_engine(target: Path | str, *, create: bool) -> Engine:
    """Make an engine; the caller checks the schema.

    Args:
        target: path of a SQLite file, or a database URL.
        create: whether to make the folder of a file where there is none.

    Raises:
        NasError: there is no such file, or the URL cannot be used.
    """
    url = str(target)
    if "://" not in url:
        url = f"sqlite:///{target}"
    try:
        address = make_url(url)
        backend = address.get_backend_name()
        if backend not in ("sqlite", "postgresql"):
            raise NasError(f"Cannot use the database {url!r}: a record is SQLite or PostgreSQL.")
        if backend == "sqlite" and address.database not in (None, "", ":memory:"):
            _check_file(Path(address.database), create=create)
        if backend == "postgresql":
            return create_engine(address, connect_args=_server_settings(address))
        engine = create_engine(url, connect_args={"timeout": LOCK_SECONDS})
    except (ArgumentError, NoSuchModuleError, ImportError) as problem:
        raise NasError(f"Cannot use the database {url!r}: {problem}") from None
    event.listen(engine, "connect", _set_up)
    event.listen(engine, "begin", _begin)
    return engine


def _server_settings(address: URL) -> dict[str, str]:
    """Return what a connection to a server is opened with, where the URL does not say.

    A server that is gone without a word is noticed within half a minute, and a client that stands
    still in a transaction does not keep its rows locked for others.
    """
    settings = {
        "application_name": "paretonas",
        "connect_timeout": "10",
        "keepalives_idle": "10",
        "keepalives_interval": "5",
        "keepalives_count": "3",
        "tcp_user_timeout": "30000",
        "options": f"-c lock_timeout={LOCK_SECONDS}s -c idle_in_transaction_session_timeout=60s",
    }
    return {name: value for name, value in settings.items() if name not in address.query}


def _check_file(path: Path, *, create: bool) -> None:
    if path.is_dir():
        raise NasError(f"{path} is a directory, not a record; give the path of a file.")
    if create:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise NasError(f"Cannot make the folder of the record {path}: {problem}.") from None
    elif not path.is_file():
        raise NasError(f"There is no record {path}; check the workspace's path.")


def _set_up(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # transactions begin where we say, DDL included
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    except sqlite3.OperationalError as problem:
        if "readonly" not in str(problem):  # it can still be read
            raise
    for setting in _SETTINGS:
        connection.execute(setting)


def _begin(connection: Connection) -> None:
    # A transaction that reads before it writes would fail at once, without waiting, where another
    # process has written in between; one that is to write takes the lock first.
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Run one transaction that only reads.

    Raises:
        NasError: the database refused; names it, the reason and what to do.
    """
    with explained(engine), engine.begin() as connection:
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Run one transaction that writes: all of it is stored, or nothing.

    Raises:
        NasError: the database refused; names it, the reason and what to do.
    """
    with explained(engine), engine.execution_options(**{_WRITES: True}).begin() as connection:
        yield connection


def insert_absent(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]
) -> set[Any]:
    """Insert the rows whose key is not there; return their primary keys."""
    (key,) = table.primary_key.columns
    found: set[Any] = set()
    for start in range(0, len(rows), _AT_ONCE):
        statement = _own_insert(connection.dialect.name, table).values(
            list(rows[start : start + _AT_ONCE])
        )
        absent = statement.on_conflict_do_nothing().returning(key)
        found.update(connection.execute(absent).scalars())
    return found


def insert_if_absent(connection: Connection, table: Table, row: Mapping[str, Any]) -> int | None:
    """Insert a row unless one with the same key is there.

    Returns:
        its primary key where that is a number, else 1; None where a row was there.
    """
    found = connection.execute(_insert_if_absent(connection.dialect.name, table), row).scalar()
    if found is None:
        return None
    return found if isinstance(found, int) else 1


@cache
def _insert_if_absent(dialect: str, table: Table) -> Insert:
    (key,) = table.primary_key.columns
    return _own_insert(dialect, table).on_conflict_do_nothing().returning(key)


def _own_insert(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
