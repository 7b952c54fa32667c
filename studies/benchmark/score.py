"""How samplers did: hypervolume against what was paid, its spread, and what that compares to."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from studies.benchmark.plain import PLAIN
from studies.benchmark.race import Course
from studies.benchmark.suite import Entry
from studies.benchmark.task import Task

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Score:
    """How one sampler did on one task.

    Attributes:
        task: the task.
        sampler: the sampler.
        pending: trials in flight.
        seeds: how many races.
        curve: mean share of the true hypervolume after each paid row, (paid,).
        spread: standard deviation over the seeds, (paid,).
        hours: mean simulated hours until each paid row is known, (paid,).
        ask_ms: median over the races of the median time of an ask.
        trials: mean number of trials, repeats included.
    """

    task: Task
    sampler: str
    pending: int
    seeds: int
    curve: Array
    spread: Array
    hours: Array
    ask_ms: float
    trials: float


def scores(entries: Sequence[Entry], courses: Sequence[Course]) -> list[Score]:
    """Join the races of each sampler on each task; those that paid for less end the curve."""
    groups: dict[tuple[Task, str, int], list[Course]] = {}
    for entry, course in zip(entries, courses, strict=True):
        groups.setdefault((entry.task, entry.sampler, entry.pending), []).append(course)
    found = []
    for (task, sampler, pending), members in groups.items():
        place = {index: row for row, index in enumerate(task.table.columns["index"])}
        paid = min(len(course.rows) for course in members)
        rows = [[place[index] for index in course.rows[:paid]] for course in members]
        curves = np.array([_curve(task, item) for item in rows])
        hours = np.array([_clock(task.seconds[item], pending) / 3600 for item in rows])
        found.append(
            Score(
                task,
                sampler,
                pending,
                len(members),
                curve=curves.mean(axis=0),
                spread=curves.std(axis=0, ddof=1) if len(members) > 1 else 0 * curves[0],
                hours=hours.mean(axis=0),
                ask_ms=statistics.median(course.ask_ms for course in members),
                trials=statistics.mean(course.trials for course in members),
            )
        )
    return found


def shortfalls(found: Sequence[Score], budget: int) -> dict[tuple[str, str, int], float]:
    """Return what each sampler misses of the front, as a share of what Optuna's best misses.

    Args:
        found: the scores.
        budget: rows paid for.

    Returns:
        By task, sampler and trials in flight; of tasks that Optuna's samplers ran on as well.
    """
    best: dict[str, float] = {}
    for score in found:
        if score.sampler in PLAIN and len(score.curve) >= budget:
            best[score.task.name] = max(best.get(score.task.name, 0.0), score.curve[budget - 1])
    return {
        (score.task.name, score.sampler, score.pending): (1 - float(score.curve[budget - 1]))
        / (1 - best[score.task.name])
        for score in found
        if score.sampler not in PLAIN
        and score.task.name in best
        and len(score.curve) >= budget
        and best[score.task.name] < 1
    }


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean; 0 if a value is 0."""
    return math.exp(statistics.mean(map(math.log, values))) if min(values) > 0 else 0.0


def paid_until(score: Score, share: float) -> int | None:
    """Return how many rows were paid for when the mean first reached a share; None if never."""
    reached = np.flatnonzero(score.curve >= share)
    return int(reached[0]) + 1 if len(reached) else None


def _curve(task: Task, rows: Sequence[int]) -> list[float]:
    """Return the share after each row; it is computed anew only where the front changes."""
    signs = np.array([1.0 if item == "min" else -1.0 for item in task.directions])
    values = task.values * signs
    reference = np.array(task.reference) * signs
    front: list[int] = []
    share, curve = 0.0, []
    for row in rows:
        useful = (values[row] < reference).all()
        if useful and not any((values[other] <= values[row]).all() for other in front):
            front = [other for other in front if not (values[row] <= values[other]).all()] + [row]
            share = task.share(front)
        curve.append(share)
    return curve


def _clock(seconds: Array, pending: int) -> Array:
    """Return when each result is told, in seconds: in order, with so many in flight at a time."""
    told = np.zeros(len(seconds))
    for number, needed in enumerate(seconds):
        begin = told[number - pending] if number >= pending else 0.0
        told[number] = max(begin + needed, told[number - 1] if number else 0.0)
    return told
