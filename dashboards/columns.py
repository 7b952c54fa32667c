"""A study's trials in memory, by column; kept up to date by reading only what changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from dashboards.elsewhere import MARK, figures_elsewhere
from dashboards.record import Floats, Reading, StudyRow, marks
from studies.pareto import non_dominated
from studies.storage import TrialState

Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]
_Item = TypeVar("_Item", bound=np.generic)

_MANY = 2000
"""Changed trials from which a column is read anew as a whole."""
_AT_ONCE = 500
_PROBED = 50
"""Trials at either end of a study that are asked which metrics they have."""
_STATES = [str(state) for state in TrialState]
_FIGURE = ("value", "low", "high")
_CODES = " ".join(f"WHEN '{state}' THEN {code}" for code, state in enumerate(_STATES))
_TRIALS = (
    f"SELECT id, number, CASE state {_CODES} END, CASE WHEN baseline THEN 1 ELSE 0 END "
    "FROM trial WHERE"
)


class StudyColumns:
    """The trials of a study.

    Attributes:
        study: the study.
        ids: of the trials in the record, rising; the other columns have the same order.
        number: in the study.
        baseline: whether it is a baseline.
    """

    def __init__(self, study: StudyRow) -> None:
        self.study = study
        self.ids: Integers = np.empty(0, dtype=np.int64)
        self.number: Integers = np.empty(0, dtype=np.int64)
        self.baseline: Bools = np.empty(0, dtype=np.bool_)
        self._state: Integers = np.empty(0, dtype=np.int64)
        self._figures: dict[str, Floats] = {}
        self._front: list[int] | None = None

    def refresh(self, connection: Reading) -> None:
        """Read trials that are new or were running, and their figures."""
        late = self.ids[self.front()]  # figures may come late: tests of the front
        changed = self._read_trials(connection)
        missing = len(self.ids)
        for name, figures in self._figures.items():
            grown = np.full((missing, len(_FIGURE)), np.nan)
            grown[: len(figures)] = figures
            self._figures[name] = grown
            self._read_figures(connection, name, np.union1d(changed, late))
        self._front = None

    def load(self, connection: Reading, metrics: Iterable[str]) -> None:
        """Read metrics that were not read before."""
        for name in metrics:
            if name not in self._figures:
                self._figures[name] = np.full((len(self.ids), len(_FIGURE)), np.nan)
                self._read_figures(connection, name, self.ids)
                self._front = None

    def load_own(self, connection: Reading) -> list[str]:
        """Read what the study asks for and return it: its objectives, then its bounds."""
        config = self.study.config
        names = list(dict.fromkeys([*config.names, *(str(b.metric) for b in config.bounds)]))
        self.load(connection, names)
        return names

    def metrics(self, connection: Reading) -> list[str]:
        """Return the metrics that trials have: the study's own first, then others by name."""
        complete = self.ids[self._state == _STATES.index(TrialState.COMPLETE)]
        probed = np.union1d(complete[:_PROBED], complete[-_PROBED:])
        own = self.load_own(connection)
        probed = np.union1d(probed, self.ids[self.front()])  # these alone may have been tested
        found: set[str] = set()
        for part in _parts(probed):
            query = f"SELECT DISTINCT metric FROM value WHERE trial_id IN ({marks(part)})"
            found.update(row[0] for row in connection.execute(query, part))
        return list(dict.fromkeys([*own, *sorted(found)]))

    def values(self, metric: str, part: str = "value") -> Floats:
        """Return a loaded metric's figures by row, or the ``low`` or ``high`` ends of its spread.

        NaN where a trial has none.
        """
        figures: Floats = self._figures[metric][:, _FIGURE.index(part)]
        return figures

    def states(self) -> dict[str, int]:
        """Return how many trials are in each state that any is in."""
        codes, counts = np.unique(self._state, return_counts=True)
        return {_STATES[code]: int(count) for code, count in zip(codes, counts, strict=True)}

    def state(self, row: int) -> TrialState:
        """Return the state of the trial of a row."""
        return TrialState(_STATES[self._state[row]])

    def baselines(self) -> list[int]:
        """Return the rows of complete baselines."""
        rows = np.flatnonzero(self.baseline & (self._state == _STATES.index(TrialState.COMPLETE)))
        return [int(row) for row in rows]

    def complete(self) -> Bools:
        """Tell which trials are complete candidates with a figure of every objective and bound."""
        kept: Bools = (self._state == _STATES.index(TrialState.COMPLETE)) & ~self.baseline
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
        """Return the rows on the study's front, in order; none before its metrics are read."""
        if self._front is None:
            config = self.study.config
            known = {*config.names, *(str(bound.metric) for bound in config.bounds)}
            if not known <= self._figures.keys():
                return []
            rows = np.flatnonzero(self.feasible())
            points = np.stack([self.values(name)[rows] for name in config.names], axis=1)
            directions = [target.direction for target in config.targets]
            best = non_dominated(points, directions)  # type: ignore[arg-type]
            self._front = [int(rows[place]) for place in best]
        return self._front

    def _read_trials(self, connection: Reading) -> Integers:
        """Read trials that are new, or were running, and return their ids."""
        running = self.ids[self._state == _STATES.index(TrialState.RUNNING)]
        last = int(self.ids[-1]) if len(self.ids) else -1
        asked: list[tuple[str, tuple[int, ...]]] = [
            ("study_id = ? AND id > ?", (self.study.id, last))
        ]
        asked += [(f"id IN ({marks(part)})", tuple(part)) for part in _parts(running)]
        tables = [connection.table(f"{_TRIALS} {where}", values) for where, values in asked]
        found = np.concatenate([table.reshape(-1, 4) for table in tables]).astype(np.int64)
        ids = found[:, 0]
        new = np.unique(ids[~np.isin(ids, self.ids)])
        self.ids = np.concatenate([self.ids, new])
        self.number = _longer(self.number, len(self.ids))
        self.baseline = _longer(self.baseline, len(self.ids))
        self._state = _longer(self._state, len(self.ids))
        rows = np.searchsorted(self.ids, ids)
        self.number[rows], self._state[rows], self.baseline[rows] = found[:, 1:].T
        return ids

    def _read_figures(self, connection: Reading, metric: str, trials: Integers) -> None:
        if MARK in metric:
            tables = [figures_elsewhere(connection, self.study, metric)]
        elif len(trials) > _MANY:
            query = (
                "SELECT t.id, v.value, v.low, v.high FROM trial t JOIN value v "
                "ON v.trial_id = t.id AND v.metric = ? WHERE t.study_id = ?"
            )
            tables = [connection.table(query, (metric, self.study.id))]
        else:
            query = "SELECT trial_id, value, low, high FROM value WHERE metric = ? AND trial_id IN "
            tables = [
                connection.table(f"{query}({marks(part)})", (metric, *part))
                for part in _parts(trials)
            ]
        for table in tables:
            if len(table):
                rows = np.searchsorted(self.ids, table[:, 0].astype(np.int64))
                self._figures[metric][rows] = table[:, 1:]


def _longer(column: npt.NDArray[_Item], rows: int) -> npt.NDArray[_Item]:
    grown = np.zeros(rows, dtype=column.dtype)
    grown[: len(column)] = column
    return grown


def _parts(items: Integers) -> Iterable[Sequence[int]]:
    whole = items.tolist()
    return (whole[start : start + _AT_ONCE] for start in range(0, len(whole), _AT_ONCE))
