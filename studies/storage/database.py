"""Opening the record's database, its transactions, and saying clearly why it cannot be used."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Insert, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, SQLAlchemyError

from kernels.errors import NasError

_LOCK_SECONDS = 30
"""How long a SQLite writer waits for another; a transaction of ours takes milliseconds."""
_WRITES = "nas_writes"

_SETTINGS = ("PRAGMA synchronous=NORMAL", "PRAGMA foreign_keys=ON")
"""With a write-ahead log, NORMAL loses no transaction when a process dies; when the power fails,
at most the last ones, and the file stays whole."""

_REASONS = {
    "not a database": "{name} is not a database; give another workspace.",
    "malformed": "The record {name} is damaged ({reason}); put back a copy of it, or save what can "
    "be read with 'sqlite3 {name} .recover'.",
    "readonly": "The record {name} is read-only; make the file and its directory writable, or "
    "give another workspace.",
    "full": "There is no room left to write the record {name}; what it held before is safe. Free "
    "some space and run the same command.",
    "unable to open": "Cannot open the record {name}; check that its directory exists and that "
    "you may read and write it.",
    "locked": "Another process has kept the record {name} busy for "
    f"{_LOCK_SECONDS} s; stop it, or try again later.",
}
"""What to say by what SQLite's message contains."""


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
        arguments = {"timeout": _LOCK_SECONDS} if backend == "sqlite" else {}
        engine = create_engine(url, connect_args=arguments)
    except (ArgumentError, NoSuchModuleError, ImportError) as problem:
        raise NasError(f"Cannot use the database {url!r}: {problem}") from None
    if backend == "sqlite":
        event.listen(engine, "connect", _set_up)
        event.listen(engine, "begin", _begin)
    return engine


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


@contextmanager
def explained(engine: Engine) -> Iterator[None]:
    """Turn what a database raises into one line."""
    try:
        yield
    except IntegrityError as problem:
        raise NasError(
            f"{name_of(engine)} refused a row ({str(problem.orig).splitlines()[0]}); does another "
            "process run this study?"
        ) from problem
    except (SQLAlchemyError, sqlite3.Error) as problem:
        reason = str(getattr(problem, "orig", None) or problem).splitlines()[0]
        sentence = next(
            (text for part, text in _REASONS.items() if part in reason),
            "Cannot use the record {name}: {reason}.",
        )
        raise NasError(sentence.format(name=name_of(engine), reason=reason)) from problem
    except JSONDecodeError as problem:
        raise NasError(
            f"The record {name_of(engine)} is damaged: a row holds no JSON ({problem}); put back "
            "a copy of it."
        ) from problem


def name_of(engine: Engine) -> str:
    """Return what people know the database by: its file, or its URL without the password."""
    if engine.url.get_backend_name() == "sqlite" and engine.url.database:
        return engine.url.database
    return engine.url.render_as_string(hide_password=True)


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
    own = postgresql if dialect == "postgresql" else sqlite
    (key,) = table.primary_key.columns
    statement: Insert = own.insert(table).on_conflict_do_nothing().returning(key)
    return statement
