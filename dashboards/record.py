"""The record read as a dashboard must: read-only, without locks kept, never upgraded.

What views ask is plain SQL that both kinds of record understand: a file (``record_file``) and a
database server (``record_server``).
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from kernels.errors import NasError, UnknownNameError
from studies.config import StudyConfig
from studies.storage.models import REVISIONS

Floats = npt.NDArray[np.float64]

_HASH = re.compile(r"[0-9a-f]{16,128}")
_LARGEST = 20_000_000
"""Bytes of a kept document that is read; none of ours comes near."""
_STUDY = "SELECT id, name, config, conditions, versions, created, archived FROM study"


class RecordError(NasError):
    """The record cannot be read now; the message says why and what to do."""


class Rows(Protocol):
    """What a question found: rows whose columns are known by place and by name."""

    def __iter__(self) -> Iterator[Any]: ...

    def fetchone(self) -> Any:
        """Return the next row; None where there is none."""
        ...

    def fetchall(self) -> list[Any]:
        """Return all rows that are left."""
        ...


class Reading(Protocol):
    """A connection that cannot write, within one snapshot."""

    def execute(self, query: str, values: Sequence[Any] = (), /) -> Rows:
        """Ask; a question mark stands for each value."""
        ...

    def table(self, query: str, values: Sequence[Any] = (), /) -> Floats:
        """Ask for numbers alone, of very many rows; NaN where there is none.

        Returns:
            (rows, columns); without rows the columns are none either.
        """
        ...


def number_table(rows: list[tuple[Any, ...]]) -> Floats:
    """Return plain rows of numbers as an array; see :meth:`Reading.table`."""
    return np.array(rows, dtype=np.float64) if rows else np.empty((0, 0))


class Stamp(NamedTuple):
    """What changes whenever something is written.

    Attributes:
        words: unequal to those before.
        settled: whether a later change will surely give others.
    """

    words: tuple[int, ...]
    settled: bool


class Record(ABC):
    """The record of a workspace.

    Args:
        root: directory of the artifacts.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    @abstractmethod
    def stamp(self) -> Stamp:
        """Return what changes whenever something is written; cheap enough to ask each second."""

    @abstractmethod
    def open(self) -> AbstractContextManager[Reading]:
        """Give a connection for one question.

        Raises:
            RecordError: there is no record, it is damaged, or of another schema.
        """

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


def check_revision(name: str, found: str | None) -> None:
    """Refuse a record of another schema than the one that is read here.

    Args:
        name: of the record, for people.
        found: the revision that it says; None where it says none.

    Raises:
        RecordError: says which it is and what to do.
    """
    if found == REVISIONS[-1]:
        return
    remedy = (
        "Any other command of this release, such as 'nas studies list', upgrades it."
        if found in REVISIONS
        else "Use the release that wrote it."
    )
    raise RecordError(
        f"{name} is a record of schema {found or 'unknown'}; this dashboard reads "
        f"{REVISIONS[-1]}. {remedy}"
    )


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


def studies(connection: Reading) -> list[StudyRow]:
    """Return all studies, the newest first."""
    return [_study(row) for row in connection.execute(f"{_STUDY} ORDER BY id DESC")]


def study(connection: Reading, name: str) -> StudyRow:
    """Return the study of a name.

    Raises:
        UnknownNameError: there is none, or it was deleted; lists those there are.
    """
    row = connection.execute(f"{_STUDY} WHERE name = ?", (name,)).fetchone()
    if row is None:
        names = [item[0] for item in connection.execute("SELECT name FROM study")]
        raise UnknownNameError("study", name, names)
    return _study(row)


def marks(values: Sequence[Any]) -> str:
    """Return as many question marks as there are values, for ``IN (...)``."""
    return ",".join("?" * len(values))


def loads(content: Any) -> Any:
    """Return what a JSON column holds, whether the database reads it or not; None where empty."""
    return json.loads(content) if isinstance(content, str) else content


def moment(stored: str | datetime | None) -> str | None:
    """Return a stored moment in UTC in ISO form with its zone; files keep it without one."""
    if stored is None:
        return None
    if isinstance(stored, datetime):
        stored = stored.astimezone(UTC).replace(tzinfo=None).isoformat()
    return f"{stored.replace(' ', 'T')}Z"


def _study(row: Any) -> StudyRow:
    return StudyRow(
        id=row["id"],
        name=row["name"],
        config=StudyConfig(**loads(row["config"])),
        conditions=loads(row["conditions"]),
        versions=loads(row["versions"]),
        created=moment(row["created"]) or "",
        archived=bool(row["archived"]),
    )
