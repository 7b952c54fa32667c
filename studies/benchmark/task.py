"""A task: a table, the columns to search for, and how far a search came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from evaluators.tabular import Table, TabularEvaluator
from kernels.errors import NasError
from search_spaces.choose import Decider
from search_spaces.space import Candidate, DataSpec, Space
from search_spaces.zoo import load_space
from studies.metrics import Direction
from studies.pareto import hypervolume, non_dominated
from studies.samplers.ehvi.runs import Runs

Array = npt.NDArray[np.float64]

REACH = 20.0
"""How far beyond the best a quality is still useful, in points of accuracy."""
_DATA = DataSpec((3, 32, 32), 10)


@dataclass(frozen=True)
class Task:
    """A quality and one cost or more, to be searched for in a table.

    The quality is a column to make large, ``accuracy``, or, with ``-`` before it, to make small; so
    ``-perplexity``. Costs are columns to make small. Columns that are known without payment have a
    ``?`` behind them: ``cifar10_test_200,raspi4?``.

    Attributes:
        files: of the table.
        columns: the quality first, as described above.
        space: name of the search space that the rows are candidates of.
    """

    files: tuple[str, ...]
    columns: tuple[str, ...]
    space: str = "nas-bench-201"

    def __post_init__(self) -> None:
        if len(self.columns) < 2 or len(set(self.names)) != len(self.columns):
            raise NasError(
                f"A task is a quality and costs, as in 'accuracy,latency'; got {self.name!r}."
            )

    @property
    def name(self) -> str:
        """The columns as they were given."""
        return ",".join(self.columns)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names in the table."""
        return tuple(column.removeprefix("-").removesuffix("?") for column in self.columns)

    @property
    def free(self) -> tuple[bool, ...]:
        """Which columns are known without payment."""
        return tuple(column.endswith("?") for column in self.columns)

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Which way each column is better."""
        first: Direction = "min" if self.columns[0].startswith("-") else "max"
        return (first, *["min"] * (len(self.columns) - 1))  # type: ignore[arg-type]

    @cached_property
    def table(self) -> Table:
        """The table."""
        return _load(self.files)

    @cached_property
    def searched(self) -> tuple[Space, DataSpec]:
        """The space, and what it must know of the data."""
        return _remembered(self.space), _DATA

    @cached_property
    def evaluator(self) -> TabularEvaluator:
        """Looks up the objectives."""
        columns = {name: name for name in self.names}
        return TabularEvaluator(self.table, columns, *self.searched)

    @cached_property
    def values(self) -> Array:
        """The objectives of all rows, (rows, objectives)."""
        return np.column_stack([self.table.figures(name) for name in self.names])

    @cached_property
    def front(self) -> list[int]:
        """The rows that no other dominates."""
        return non_dominated(self.values.tolist(), self.directions)

    @cached_property
    def reference(self) -> tuple[float, ...]:
        """The reference point: 20 from the best quality, and the dearest costs of the true front.

        Its quality says how bad is still useful: a front of all that is fast would mostly measure
        networks that learn nothing.
        """
        quality = self.values[:, 0]
        sign = 1.0 if self.directions[0] == "max" else -1.0
        best = float((sign * quality).max())
        costs = self.values[self.front, 1:].max(axis=0)
        return (sign * (best - REACH), *costs.tolist())

    def share(self, rows: Sequence[int]) -> float:
        """Return the hypervolume of some rows as a share of the true front's."""
        return self._volume(rows) / self._whole

    @cached_property
    def _whole(self) -> float:
        return self._volume(self.front)

    def _volume(self, rows: Sequence[int]) -> float:
        return hypervolume(self.values[list(rows)].tolist(), self.reference, self.directions)

    @cached_property
    def seconds(self) -> Array:
        """What it would cost to train and measure each row, in simulated seconds, (rows,).

        A column ``train_seconds`` says so where there is one. Else a training is taken to be 200
        epochs of 50,000 images, forwards and backwards, at 10 TFLOP/s, by the column ``flops``
        (multiply-accumulates); else an hour. Nothing was measured.
        """
        if "train_seconds" in self.table.columns:
            return self.table.figures("train_seconds")
        if "flops" in self.table.columns:
            macs = self.table.figures("flops")
            return macs * _PASSES * _IMAGES * 2 / _RATE + _OVERHEAD
        return np.full(len(self.table), 3600.0)


_PASSES, _IMAGES, _RATE, _OVERHEAD = 3, 200 * 50_000, 10e12, 60.0


@lru_cache(maxsize=4)
def _remembered(name: str) -> Space:
    """Return a space that makes each candidate once: races meet the same ones again and again."""
    plain = load_space(name)
    return _Remembered(
        plain.name,
        plain.version,
        plain.function,
        plain.reads,
        runs=Runs(plain, _DATA, lambda candidate, *_: candidate),
    )


@dataclass(frozen=True, slots=True)
class _Remembered(Space):
    """Ignores the data of a call: all races have one."""

    runs: Runs[Candidate] = field(kw_only=True, compare=False)

    def run(self, decider: Decider, data: DataSpec) -> Candidate:
        """See :class:`~search_spaces.space.Space`."""
        return self.runs.run(decider)


@lru_cache(maxsize=4)
def _load(files: tuple[str, ...]) -> Table:
    return Table.load([Path(file) for file in files])
