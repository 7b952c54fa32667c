"""A record in a SQLite file.

In write-ahead mode it has readers that never wait for its writer nor make it wait. A connection
lasts as long as a question, so that no old snapshot keeps the log from being folded in.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import time_ns
from typing import Any
from urllib.parse import quote

from dashboards.record import (
    Floats,
    Reading,
    Record,
    RecordError,
    Rows,
    Stamp,
    check_revision,
    number_table,
)
from studies.storage.models import VERSION_TABLE

WAIT_SECONDS = 2.0
"""How long a question waits where the log is being recovered; readers wait for nothing else."""
_SETTLED_NS = 50_000_000
"""A file changed less than this ago may change again without its time telling (kernel ticks)."""


class _FileReading:
    """A connection as views ask it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._named, self._plain = connection.cursor, connection.cursor()
        connection.row_factory = sqlite3.Row  # of cursors that are made from here on

    def execute(self, query: str, values: Sequence[Any] = (), /) -> Rows:
        return self._named().execute(query, values)

    def table(self, query: str, values: Sequence[Any] = (), /) -> Floats:
        return number_table(self._plain.execute(query, values).fetchall())


class FileRecord(Record):
    """A record in a file, opened anew for each question.

    Args:
        root: directory of the artifacts.
        path: of the database.
    """

    def __init__(self, root: Path, path: Path) -> None:
        super().__init__(root)
        self.path = path.absolute()

    def stamp(self) -> Stamp:
        """Return size, time of change and number of the files; costs two system calls."""
        found: list[int] = []
        settled, now = True, time_ns()
        for path in (self.path, self.path.with_name(f"{self.path.name}-wal")):
            try:
                status = path.stat()
            except OSError:
                found += (0, 0, 0)
            else:
                found += (status.st_size, status.st_mtime_ns, status.st_ino)
                settled &= now - status.st_mtime_ns > _SETTLED_NS
        return Stamp(tuple(found), settled)

    @contextmanager
    def open(self) -> Iterator[Reading]:
        """See :meth:`Record.open`."""
        if not self.path.is_file():
            raise RecordError(f"There is no record {self.path}; check the workspace's path.")
        try:
            connection = self._connect()
            try:
                connection.execute("BEGIN")
                reading = _FileReading(connection)
                self._check(reading)
                yield reading
            finally:
                connection.close()
        except (sqlite3.Error, json.JSONDecodeError) as problem:
            raise RecordError(self._sentence(problem)) from problem

    def _connect(self) -> sqlite3.Connection:
        address = f"file:{quote(str(self.path))}?mode=ro"
        wal = self.path.with_name(f"{self.path.name}-wal")
        if not wal.exists():
            # Nobody has it open. Then a reader would have to create the log's index beside it,
            # which fails where the directory is read-only; a file at rest needs none.
            address += "&immutable=1"
        return sqlite3.connect(
            address, uri=True, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False
        )

    def _check(self, connection: Reading) -> None:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        if VERSION_TABLE not in tables:
            if {"meta", "study", "trial"} <= tables:
                check_revision(str(self.path), "v1")  # it did not say so yet
            raise RecordError(f"{self.path} is no record of studies; give another workspace.")
        row = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()
        check_revision(str(self.path), None if row is None else row[0])

    def _sentence(self, problem: Exception) -> str:
        reason = str(problem).splitlines()[0]
        if isinstance(problem, json.JSONDecodeError):
            return f"The record {self.path} is damaged: a row holds no JSON; put back a copy of it."
        if "not a database" in reason:
            return f"{self.path} is not a database; give another workspace."
        if "malformed" in reason:
            return f"The record {self.path} is damaged ({reason}); put back a copy of it."
        return f"Cannot read the record {self.path}: {reason}."
