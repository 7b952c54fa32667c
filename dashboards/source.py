"""All views of one workspace, read when they are asked for and kept while nothing changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, TypeVar

import numpy as np

from dashboards import record
from dashboards.columns import StudyColumns
from dashboards.record import Reading, Record, RecordError, Stamp
from dashboards.record_file import FileRecord
from dashboards.record_server import ServerRecord
from dashboards.spaces import Descriptions
from dashboards.views.front import front_view
from dashboards.views.kernels import kernels_view
from dashboards.views.progress import progress_view
from dashboards.views.proxies import proxies_view
from dashboards.views.space import space_view
from dashboards.views.studies import studies_view
from dashboards.views.table import FrontTable, front_table
from dashboards.views.trial import architecture_json, trial_view
from kernels.errors import UnknownNameError
from studies.workspace import Workspace

Json = dict[str, Any]
Made = TypeVar("Made")
Drawing = Callable[[StudyColumns, Reading], Made]


class Numbers(NamedTuple):
    """Numbers of trials: on the front, and complete ones."""

    front: list[int]
    shown: list[int]


class Source:
    """What pages are made from.

    What is drawn from a study's columns is made one after the other, as they are shared; each of
    the others has a connection of its own.

    Args:
        workspace: whose record is shown.
        patient: whether what takes long, such as the size of a space, is waited for.
    """

    def __init__(self, workspace: Workspace | Path | str, *, patient: bool = False) -> None:
        self.record = record_of(workspace)
        self._patient = patient
        self._spaces = Descriptions()
        self._lock = Lock()
        self._columns: dict[str, StudyColumns] = {}
        self._stamps: dict[str, Stamp | None] = {}

    def version(self) -> str:
        """Return a word that changes whenever the record does; cheap enough to ask each second."""
        return "-".join(f"{part:x}" for part in self.record.stamp().words)

    def studies(self) -> Json:
        """Return the list of studies."""
        with self.record.open() as connection:
            return studies_view(connection)

    def front(self, study: str, metrics: Sequence[str] = (), *, whole: bool = False) -> Json:
        """Return the front page of a study."""
        return self._with(study, lambda c, db: front_view(c, db, metrics, whole=whole))

    def numbers(self, study: str) -> Numbers:
        """Return which trials a report shows: on the front, and all that are complete."""

        def find(columns: StudyColumns, connection: Reading) -> Numbers:
            columns.load_own(connection)
            shown = np.flatnonzero(columns.complete())
            return Numbers(columns.number[columns.front()].tolist(), columns.number[shown].tolist())

        return self._with(study, find)

    def front_table(self, study: str) -> FrontTable:
        """Return the front of a study as a plain table."""
        return self._with(study, front_table)

    def progress(self, study: str) -> Json:
        """Return the progress page of a study."""
        return self._with(study, progress_view)

    def proxies(self, study: str) -> Json:
        """Return the page of a study's proxies."""
        return self._with(study, proxies_view)

    def space(self, study: str, metric: str | None = None) -> Json:
        """Return the page of a study's space."""

        def described(reference: str, shape: tuple[int, ...], classes: int) -> Json:
            return self._spaces.get(reference, shape, classes, wait=self._patient)

        return self._with(study, lambda c, db: space_view(c, db, metric, described))

    def trial(self, study: str, number: int) -> Json:
        """Return the page of a trial."""
        with self.record.open() as connection:
            return trial_view(self.record, connection, record.study(connection, study), number)

    def architecture(self, key: str) -> Json:
        """Return the JSON form of a recorded network."""
        with self.record.open() as connection:
            return architecture_json(connection, key)

    def kernels(self) -> Json:
        """Return the recorded results of the kernel benches."""
        return kernels_view()

    def _with(self, study: str, make: Drawing[Made]) -> Made:
        with self._lock:
            stamp = self.record.stamp()
            with self.record.open() as connection:
                try:
                    row = record.study(connection, study)
                except (RecordError, UnknownNameError):
                    self._columns.pop(study, None)
                    raise
                columns = self._columns.get(study)
                if columns is None or columns.study.id != row.id or _older(row, columns.study):
                    columns = self._columns[study] = StudyColumns(row)
                    self._stamps.pop(study, None)
                if self._stamps.get(study) != stamp:
                    columns.study = row
                    del self._columns[study]  # what is half read is never shown
                    columns.refresh(connection)
                    self._columns[study] = columns
                    self._stamps[study] = stamp if stamp.settled else None
                return make(columns, connection)


def record_of(workspace: Workspace | Path | str) -> Record:
    """Return the record of a workspace: a file, or in a database server.

    Raises:
        RecordError: it is in a server of another kind.
    """
    place = Workspace.of(workspace)
    target = place.database or str(place.root / "record.db")
    if "://" in target and not target.startswith("sqlite:///"):
        return ServerRecord(place.root, target)
    return FileRecord(place.root, Path(target.removeprefix("sqlite:///")))


def _older(row: record.StudyRow, known: record.StudyRow) -> bool:
    """Tell whether a study was deleted and another one made with its number and name."""
    return row.created != known.created
