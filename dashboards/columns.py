"""A study's trials in memory, by column; kept up to date by reading only what changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dashboards.record import StudyRow
from studies.pareto import non_dominated
from studies.storage import TrialState

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

_MANY = 2000
"""Changed trials from which a column is read anew as a whole."""
_AT_ONCE = 500
_PROBED = 50
"""Trials at either end of a study that are asked which metrics they have."""


@dataclass(slots=True)
class Column:
    """Figures of one metric by row; NaN where a trial has none or it is exact."""

    value: list[float] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)

    def grow(self, rows: int) -> None:
        """Add rows without a figure up to that many."""
        for part in (self.value, self.low, self.high):
            part.extend([np.nan] * (rows - len(part)))


class StudyColumns:
    """The trials of a study.

    Attributes:
        study: the study.
        ids: of the trials in the record, rising; the other lists have the same order.
        number: in the study.
        state: how far each came.
        baseline: whether it is a baseline.
        ended: when it ended, in minutes since the study was enrolled; NaN while it runs.
    """

    def __init__(self, study: StudyRow) -> None:
        self.study = study
        self.ids: list[int] = []
        self.number: list[int] = []
        self.state: list[str] = []
        self.baseline: list[bool] = []
        self.ended: list[float] = []
        self._row: dict[int, int] = {}
        self._running: set[int] = set()
        self._columns: dict[str, Column] = {}

    def refresh(self, connection: sqlite3.Connection) -> None:
        """Read trials that are new or were running, and their figures."""
        changed = self._read_trials(connection)
        for column in self._columns.values():
            column.grow(len(self.ids))
        late = [self.ids[row] for row in self.front()] if self.ids else []
        touched = sorted({*changed, *late})  # figures may come late: tests of the front
        for name, column in self._columns.items():
            self._read_values(connection, name, column, touched)

    def load(self, connection: sqlite3.Connection, metrics: Iterable[str]) -> None:
        """Read metrics that were not read before."""
        for name in metrics:
            if name not in self._columns:
                column = self._columns[name] = Column()
                column.grow(len(self.ids))
                self._read_values(connection, name, column, self.ids)

    def metrics(self, connection: sqlite3.Connection) -> list[str]:
        """Return the metrics that trials have: objectives and bounds first, then others by name."""
        config = self.study.config
        first = [*config.names, *(str(bound.metric) for bound in config.bounds)]
        complete = [i for i, s in zip(self.ids, self.state, strict=True) if s == "complete"]
        probed = {*complete[:_PROBED], *complete[-_PROBED:]}
        found: set[str] = set()
        for part in _parts(sorted(probed)):
            query = f"SELECT DISTINCT metric FROM value WHERE trial_id IN ({_marks(part)})"
            found.update(row[0] for row in connection.execute(query, part))
        return list(dict.fromkeys([*first, *sorted(found)]))

    def values(self, metric: str, part: str = "value") -> Floats:
        """Return a loaded metric's figures by row."""
        return np.array(getattr(self._columns[metric], part), dtype=np.float64)

    def complete(self) -> Bools:
        """Tell which trials are complete candidates with a figure of every objective and bound."""
        kept = np.array([state == TrialState.COMPLETE for state in self.state], dtype=np.bool_)
        kept &= ~np.array(self.baseline, dtype=np.bool_)
        config = self.study.config
        for name in dict.fromkeys([*config.names, *(str(item.metric) for item in config.bounds)]):
            kept &= np.isfinite(self.values(name))
        return kept

    def feasible(self) -> Bools:
        """Tell which of them keep the study's constraints."""
        kept = self.complete()
        for bound in self.study.config.bounds:
            figures = self.values(str(bound.metric))
            kept &= figures <= bound.bound if bound.relation == "<=" else figures >= bound.bound
        return kept

    def front(self) -> list[int]:
        """Return the rows on the study's front, in order; none before the objectives are read."""
        config = self.study.config
        if not set(config.names) <= self._columns.keys():
            return []
        rows = np.flatnonzero(self.feasible())
        points = np.stack([self.values(name)[rows] for name in config.names], axis=1)
        directions = [target.direction for target in config.targets]
        return [int(rows[place]) for place in non_dominated(points, directions)]  # type: ignore[arg-type]

    def _read_trials(self, connection: sqlite3.Connection) -> list[int]:
        query = (
            "SELECT id, number, state, baseline, "
            "(julianday(ended) - julianday(?)) * 1440 FROM trial WHERE study_id = ? "
        )
        start = self.study.created.removesuffix("Z")
        last = self.ids[-1] if self.ids else -1
        rows = connection.execute(
            query + "AND id > ? ORDER BY id", (start, self.study.id, last)
        ).fetchall()
        for part in _parts(sorted(self._running)):
            where = f"AND id IN ({_marks(part)})"
            rows += connection.execute(query + where, (start, self.study.id, *part)).fetchall()
        for trial_id, number, state, baseline, ended in rows:
            row = self._row.setdefault(trial_id, len(self.ids))
            if row == len(self.ids):
                self.ids.append(trial_id)
                self.number.append(number)
                self.state.append(state)
                self.baseline.append(bool(baseline))
                self.ended.append(np.nan)
            self.state[row] = state
            self.ended[row] = np.nan if ended is None else ended
            (self._running.add if state == "running" else self._running.discard)(trial_id)
        return [row[0] for row in rows]

    def _read_values(
        self, connection: sqlite3.Connection, metric: str, column: Column, trials: Sequence[int]
    ) -> None:
        if len(trials) > _MANY:
            query = (
                "SELECT t.id, v.value, v.low, v.high FROM trial t JOIN value v "
                "ON v.trial_id = t.id AND v.metric = ? WHERE t.study_id = ?"
            )
            self._store(column, connection.execute(query, (metric, self.study.id)))
            return
        query = "SELECT trial_id, value, low, high FROM value WHERE metric = ? AND trial_id IN "
        for part in _parts(trials):
            self._store(column, connection.execute(f"{query}({_marks(part)})", (metric, *part)))

    def _store(self, column: Column, rows: Iterable[sqlite3.Row]) -> None:
        for trial_id, value, low, high in rows:
            row = self._row.get(trial_id)
            if row is not None:
                column.value[row] = value
                if low is not None:
                    column.low[row] = low
                if high is not None:
                    column.high[row] = high


def _parts(items: Sequence[int]) -> Iterable[Sequence[int]]:
    return (items[start : start + _AT_ONCE] for start in range(0, len(items), _AT_ONCE))


def _marks(items: Sequence[int]) -> str:
    return ",".join("?" * len(items))
