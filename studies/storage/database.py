"""Opening the record's database, and saying clearly why it cannot be opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, inspect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import Session

from kernels.errors import NasError
from studies.storage.models import SCHEMA_VERSION, Base, Meta

_LOCK_SECONDS = 30
"""How long a SQLite writer waits for another; a transaction of ours takes milliseconds."""


def open_engine(target: Path | str, *, create: bool) -> Engine:
    """Open a record and check its schema.

    Args:
        target: path of a SQLite file, or a database URL.
        create: whether to make the tables where there are none.

    Raises:
        NasError: there is no record, it is no database, or one of a newer schema.
    """
    url = str(target)
    if "://" not in url:
        path = Path(target)
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
        elif not path.is_file():
            raise NasError(f"There is no record {path}; check the workspace's path.")
        url = f"sqlite:///{path}"
    try:
        sqlite = make_url(url).get_backend_name() == "sqlite"
        engine = create_engine(url, connect_args={"timeout": _LOCK_SECONDS} if sqlite else {})
    except (ArgumentError, NoSuchModuleError, ImportError) as problem:
        raise NasError(f"Cannot use the database {url!r}: {problem}") from None
    if sqlite:
        event.listen(engine, "connect", _enforce_foreign_keys)
    try:
        _check_schema(engine, create=create)
    except NasError:
        engine.dispose()
        raise
    return engine


def _enforce_foreign_keys(connection: Any, _: object) -> None:
    connection.execute("PRAGMA foreign_keys=ON")


def _check_schema(engine: Engine, *, create: bool) -> None:
    with session(engine) as db:
        tables = inspect(db.connection()).get_table_names()
        meta = db.get(Meta, "schema_version") if Meta.__tablename__ in tables else None
        if meta is None:
            if not create or set(tables) & set(Base.metadata.tables):
                raise NasError(f"{_name(engine)} is no record of studies; give another workspace.")
            Base.metadata.create_all(db.connection())
            db.add(Meta(name="schema_version", value=str(SCHEMA_VERSION)))
        elif int(meta.value) != SCHEMA_VERSION:
            raise NasError(
                f"{_name(engine)} is a record of schema {meta.value}; this version reads schema "
                f"{SCHEMA_VERSION}. Use the release that wrote it, or another workspace."
            )


@contextmanager
def session(engine: Engine) -> Iterator[Session]:
    """Run one transaction.

    Raises:
        NasError: the database refused; names it and the reason.
    """
    try:
        with Session(engine) as db, db.begin():
            yield db
    except IntegrityError as problem:
        raise NasError(
            f"{_name(engine)} refused a row ({problem.orig}); does another process run this study?"
        ) from problem
    except SQLAlchemyError as problem:
        reason = str(getattr(problem, "orig", None) or problem).splitlines()[0]
        raise NasError(f"Cannot use the record {_name(engine)}: {reason}.") from problem


def _name(engine: Engine) -> str:
    if engine.url.get_backend_name() == "sqlite" and engine.url.database:
        return engine.url.database
    return engine.url.render_as_string(hide_password=True)
