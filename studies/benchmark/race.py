"""One sampler, one task, one seed: which rows it pays for, in order."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from kernels.errors import UnknownNameError
from search_spaces.choose import Option
from search_spaces.space import Candidate
from studies.benchmark.task import Task
from studies.samplers import SAMPLERS, Free, Lesson, make_sampler

TRIALS = 20
"""Trials for each paid one, after which a sampler that repeats itself is stopped."""


@dataclass(frozen=True, slots=True)
class Course:
    """What a sampler did.

    Attributes:
        rows: those it paid for, in order, by the table's own index.
        trials: how many it asked for; repeats cost nothing.
        ask_ms: median processor time of an ask.
        cpu_seconds: processor time of all.
    """

    rows: tuple[str, ...]
    trials: int
    ask_ms: float
    cpu_seconds: float


class Racer(Protocol):
    """A sampler that knows its task."""

    def ask(self, number: int) -> int:
        """Return the row of the next trial."""
        ...

    def tell(self, number: int, values: Sequence[float]) -> None:
        """Tell what a trial was worth; trials are told in the order of their numbers."""
        ...


def race(task: Task, sampler: str, *, seed: int, paid: int, pending: int = 1) -> Course:
    """Run a sampler until it has paid for a number of rows.

    Args:
        task: what is searched.
        sampler: one of the project's, or of :data:`~studies.benchmark.plain.PLAIN`.
        seed: of the study.
        paid: rows to pay for.
        pending: trials in flight; trial n is asked for when n - pending is told.

    Raises:
        NasError: there is no such sampler, or the table does not fit the task.
    """
    racer = make_racer(task, sampler, seed)
    waiting: deque[tuple[int, int]] = deque()
    rows: dict[int, None] = {}
    asks: list[float] = []
    while len(rows) < paid and len(asks) < TRIALS * paid:
        while len(waiting) >= pending:
            number, row = waiting.popleft()
            racer.tell(number, task.values[row].tolist())
        begin = time.process_time()
        row = racer.ask(len(asks))
        waiting.append((len(asks), row))
        asks.append(time.process_time() - begin)
        rows.setdefault(row)
    index = task.table.columns["index"]
    return Course(
        rows=tuple(index[row] for row in rows),
        trials=len(asks),
        ask_ms=1e3 * statistics.median(asks),
        cpu_seconds=sum(asks),
    )


def make_racer(task: Task, sampler: str, seed: int) -> Racer:
    """Return a sampler that was told nothing yet.

    Raises:
        UnknownNameError: there is none of that name.
    """
    if sampler in SAMPLERS or (":" in sampler and not sampler.startswith("optuna:")):
        return _Own(sampler, task, seed)
    from studies.benchmark.plain import PLAIN, Plain

    if sampler not in PLAIN:
        raise UnknownNameError("sampler", sampler, [*SAMPLERS, *PLAIN])
    return Plain(sampler, task, seed)


class _Own:
    """A sampler of the project, asked as a study's driver asks it."""

    def __init__(self, name: str, task: Task, seed: int) -> None:
        space, data = task.searched
        self._task = task
        self._sampler = make_sampler(
            name,
            space,
            data,
            directions=task.directions,
            constraints=[],
            seed=seed,
            identify=lambda candidate: str(task.table.row(candidate.decisions)),
            free=self._free if any(task.free) else None,
        )
        self._waiting: dict[int, Mapping[str, Option]] = {}

    def ask(self, number: int) -> int:
        candidate = self._sampler.ask(number, list(self._waiting.values())).candidate
        self._waiting[number] = candidate.decisions
        return self._task.table.row(candidate.decisions)

    def tell(self, number: int, values: Sequence[float]) -> None:
        decisions = self._waiting.pop(number)
        key = str(self._task.table.row(decisions))
        self._sampler.tell(Lesson(number, key, decisions, tuple(values)))

    def _free(self, candidate: Candidate) -> Free:
        values = self._task.values[self._task.table.row(candidate.decisions)].tolist()
        pairs = zip(values, self._task.free, strict=True)
        return Free(tuple(value if free else math.nan for value, free in pairs))
