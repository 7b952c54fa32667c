"""The record read as a dashboard must: read-only, without locks kept, never upgraded.

A SQLite file in write-ahead mode has readers that never wait for its writer nor make it wait. A
connection lasts as long as a question, so that no old snapshot keeps the log from being folded in.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kernels.errors import NasError, UnknownNameError
from studies.config import StudyConfig
from studies.storage.models import REVISIONS, VERSION_TABLE
from studies.workspace import Workspace

WAIT_SECONDS = 2.0
"""How long a question waits where the log is being recovered; readers wait for nothing else."""

_HASH = re.compile(r"[0-9a-f]{16,128}")
_LARGEST = 20_000_000
"""Bytes of a kept document that is read; none of ours comes near."""

Stamp = tuple[tuple[int, int, int], ...]
"""Size, time of change and number of the files of a record: unequal once something is written."""


class RecordError(NasError):
    """The record cannot be read now; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class StudyRow:
    """A study as the record has it.

    Attributes:
        id: its number in the record.
        name: unique in the record.
        config: its settings.
        conditions: what does not change while it goes on, such as the device.
        versions: of the libraries it was started with.
        created: when, UTC, in ISO form.
        archived: whether lists leave it out.
    """

    id: int
    name: str
    config: StudyConfig
    conditions: dict[str, str]
    versions: dict[str, str]
    created: str
    archived: bool


class ReadOnlyRecord:
    """The record of a workspace, opened anew for each question.

    Args:
        workspace: whose record it is.

    Attributes:
        path: of the database.
        root: directory of the artifacts.

    Raises:
        RecordError: it is not a file; only SQLite records can be shown.
    """

    def __init__(self, workspace: Workspace | Path | str) -> None:
        place = Workspace.of(workspace)
        target = place.database or str(place.root / "record.db")
        if "://" in target and not target.startswith("sqlite:///"):
            raise RecordError(
                "The dashboard reads SQLite records, not a database server; copy the studies to a "
                "workspace of their own."
            )
        self.path = Path(target.removeprefix("sqlite:///")).absolute()
        self.root = place.root.absolute()

    def stamp(self) -> Stamp:
        """Return what changes whenever something is written; costs two system calls."""
        found = []
        for path in (self.path, self.path.with_name(f"{self.path.name}-wal")):
            try:
                status = path.stat()
            except OSError:
                found.append((0, 0, 0))
            else:
                found.append((status.st_size, status.st_mtime_ns, status.st_ino))
        return tuple(found)

    def document(self, content_hash: str) -> dict[str, Any] | None:
        """Return a document that was kept under its hash; None where it cannot be read."""
        if not _HASH.fullmatch(content_hash):
            return None
        path = self.root / "artifacts" / f"{content_hash}.json"
        try:
            if path.stat().st_size > _LARGEST:
                return None
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    @contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        """Give a connection that cannot write, within one snapshot.

        Raises:
            RecordError: there is no record, it is damaged, or of another schema.
        """
        if not self.path.is_file():
            raise RecordError(f"There is no record {self.path}; check the workspace's path.")
        try:
            connection = self._connect()
            try:
                connection.execute("BEGIN")
                self._check(connection)
                yield connection
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
        connection = sqlite3.connect(
            address, uri=True, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        if VERSION_TABLE not in tables:
            if {"meta", "study", "trial"} <= tables:
                raise RecordError(
                    f"{self.path} is a record of schema v1; this dashboard reads {REVISIONS[-1]}. "
                    "Any other command of this release, such as 'nas studies list', upgrades it."
                )
            raise RecordError(f"{self.path} is no record of studies; give another workspace.")
        row = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()
        found = "unknown" if row is None else row[0]
        if found == REVISIONS[-1]:
            return
        remedy = (
            "Any other command of this release, such as 'nas studies list', upgrades it."
            if found in REVISIONS
            else "Use the release that wrote it."
        )
        raise RecordError(
            f"{self.path} is a record of schema {found}; this dashboard reads {REVISIONS[-1]}. "
            f"{remedy}"
        )

    def _sentence(self, problem: Exception) -> str:
        reason = str(problem).splitlines()[0]
        if isinstance(problem, json.JSONDecodeError):
            return f"The record {self.path} is damaged: a row holds no JSON; put back a copy of it."
        if "not a database" in reason:
            return f"{self.path} is not a database; give another workspace."
        if "malformed" in reason:
            return f"The record {self.path} is damaged ({reason}); put back a copy of it."
        return f"Cannot read the record {self.path}: {reason}."


def studies(connection: sqlite3.Connection) -> list[StudyRow]:
    """Return all studies, the newest first."""
    query = "SELECT id, name, config, conditions, versions, created, archived FROM study"
    return [_study(row) for row in connection.execute(f"{query} ORDER BY id DESC")]


def study(connection: sqlite3.Connection, name: str) -> StudyRow:
    """Return the study of a name.

    Raises:
        UnknownNameError: there is none, or it was deleted; lists those there are.
    """
    query = "SELECT id, name, config, conditions, versions, created, archived FROM study"
    row = connection.execute(f"{query} WHERE name = ?", (name,)).fetchone()
    if row is None:
        names = [item[0] for item in connection.execute("SELECT name FROM study")]
        raise UnknownNameError("study", name, names)
    return _study(row)


def loads(text: str | None) -> Any:
    """Read a JSON column; None where it is empty."""
    return None if text is None else json.loads(text)


def moment(text: str | None) -> str | None:
    """Return a stored moment, UTC without a zone, in ISO form with one."""
    return None if text is None else f"{text.replace(' ', 'T')}Z"


def _study(row: sqlite3.Row) -> StudyRow:
    return StudyRow(
        id=row["id"],
        name=row["name"],
        config=StudyConfig(**loads(row["config"])),
        conditions=loads(row["conditions"]),
        versions=loads(row["versions"]),
        created=moment(row["created"]) or "",
        archived=bool(row["archived"]),
    )
