"""What is known of a running study, kept so that it can be drawn at any moment.

The driver's thread writes, the drawing thread reads. Writing a trial costs one comparison with the
front; what costs more (the hypervolume) waits until something is drawn.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas.live.work import Work
from studies.config import StudyConfig
from studies.executors import Job, Outcome
from studies.flight import Progress
from studies.pareto import hypervolume
from studies.presets import BASELINE
from studies.storage import TrialRecord, TrialState

FIRST = 10
"""Complete trials whose worst figures are the reference of the hypervolume."""
_RECENT = 20
_STEPS_READ = 40
"""Hypervolumes computed of a history that was read from the record."""

Rows = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FrontRow:
    """A point of the front so far: trial number and figures in the order of the objectives."""

    number: int
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Volume:
    """Hypervolume of the front so far.

    Attributes:
        reference: the worst figure of each objective in the first complete trials.
        first: how many these were.
        history: pairs of complete trials and volume; 1 is the box that the first ones span.
    """

    reference: tuple[float, ...]
    first: int
    history: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is drawn.

    Attributes:
        complete: trials evaluated in full.
        trials: how many are wanted.
        counts: trials by state, without those that run.
        running: evaluations in work by their first metric: how many, and seconds of the longest.
        waiting: evaluations that wait for a worker.
        front: best in the first objective first.
        volume: None before there are enough complete trials.
        reasons: why trials failed, most frequent first.
        drops: trials dropped, by stage.
        evaluation_seconds: spent evaluating, over all runs.
        elapsed: seconds of this run.
        left: seconds until the wanted trials are complete, as the newest ones went, or until a
            budget ends the run, if that is sooner; None before there is a measure.
    """

    complete: int
    trials: int
    counts: dict[TrialState, int]
    running: dict[str, tuple[int, float]]
    waiting: int
    front: tuple[FrontRow, ...]
    volume: Volume | None
    reasons: tuple[tuple[str, int], ...]
    drops: dict[str, int]
    evaluation_seconds: float
    elapsed: float
    left: float | None


class Board:
    """The state of a running study.

    Args:
        config: the settings.
        recorded: trials of earlier runs, in order.
        spent_seconds: evaluation time of earlier runs.
    """

    def __init__(
        self,
        config: StudyConfig,
        recorded: Iterable[TrialRecord] = (),
        *,
        spent_seconds: float = 0.0,
    ) -> None:
        self.config = config
        self._names = config.names
        self._signs = np.array([-1.0 if t.direction == "max" else 1.0 for t in config.targets])
        self._lock = threading.Lock()
        self._begun = time.monotonic()
        self._spent = spent_seconds
        self._counts: Counter[TrialState] = Counter()
        self._reasons: Counter[str] = Counter()
        self._drops: Counter[str] = Counter()
        self._work = Work(config.workers or 1)
        self._finishes: deque[tuple[float, int]] = deque(maxlen=_RECENT + 1)
        self._front: list[FrontRow] = []
        self._costs: Rows = np.empty((0, len(self._names)))
        self._first: list[Rows] = []
        self._history: list[tuple[int, float]] = []
        self._stale = False
        past = list(recorded)
        step = max(1, len(past) // _STEPS_READ)
        for index, trial in enumerate(past):
            self._take(trial)
            if index % step == 0:
                self._measure()
        self._measure()
        self._finishes.append((self._begun, self._counts[TrialState.COMPLETE]))

    def submitted(self, job: Job, workers: int = 0) -> None:
        """Note an evaluation that is to be made, and how many train at once now, where known."""
        with self._lock:
            self._work.submitted(job, workers)

    def returned(self, outcomes: Sequence[Outcome]) -> None:
        """Note evaluations that were made."""
        with self._lock:
            self._work.returned(outcomes)
            for outcome in outcomes:
                self._spent += (outcome.ended - outcome.started).total_seconds()

    def ended(self, progress: Progress) -> None:
        """Note a trial that ended."""
        with self._lock:
            before = self._counts[TrialState.COMPLETE]
            self._take(progress.trial)
            complete = self._counts[TrialState.COMPLETE]
            if complete > before:
                self._finishes.append((time.monotonic(), complete))

    def snapshot(self) -> Snapshot:
        """Return what is to be drawn."""
        now = time.monotonic()
        with self._lock:
            self._measure()
            return Snapshot(
                complete=self._counts[TrialState.COMPLETE],
                trials=self.config.trials,
                counts=dict(self._counts),
                running=self._work.running(),
                waiting=self._work.waiting(),
                front=tuple(sorted(self._front, key=lambda row: self._cost(row)[0])),
                volume=self._volume(),
                reasons=tuple(self._reasons.most_common()),
                drops=dict(self._drops),
                evaluation_seconds=self._spent,
                elapsed=now - self._begun,
                left=self._left(now),
            )

    def _cost(self, row: FrontRow) -> Rows:
        """Return figures with the sign that makes small ones good."""
        cost: Rows = self._signs * np.array(row.values)
        return cost

    def _take(self, trial: TrialRecord) -> None:
        state = trial.state
        if trial.origin.get("by") == BASELINE or state is TrialState.RUNNING:
            return
        self._counts[state] += 1
        if state is TrialState.FAILED:
            self._reasons[trial.reason or "no reason was given"] += 1
        elif state is TrialState.DROPPED:
            self._drops[trial.stage or "a constraint"] += 1
        elif state is TrialState.COMPLETE and trial.values.keys() >= set(self._names):
            values = tuple(trial.values[name].value for name in self._names)
            self._to_front(FrontRow(trial.number, values))

    def _to_front(self, row: FrontRow) -> None:
        cost = self._cost(row)
        if not self._enough():
            self._first.append(cost)
            if self._enough():
                self._history = self._early_history()
        no_worse = (self._costs <= cost).all(axis=1)
        no_better = (self._costs >= cost).all(axis=1)
        if (no_worse & ~no_better).any():
            return
        beaten = np.logical_and(no_better, np.logical_not(no_worse))
        if beaten.any():
            self._front = [item for item, gone in zip(self._front, beaten, strict=True) if not gone]
        self._front.append(row)
        self._costs = np.vstack([self._costs[~beaten], cost])
        self._stale = True

    def _enough(self) -> bool:
        return len(self._first) >= min(FIRST, self.config.trials)

    def _measure(self) -> None:
        """Compute the hypervolume, if the front changed since."""
        if self._stale and self._enough():
            self._history.append((self._counts[TrialState.COMPLETE], self._share(self._costs)))
            self._stale = False

    def _early_history(self) -> list[tuple[int, float]]:
        """Return the volumes after each of the first trials, but for the last of them."""
        rows = np.array(self._first)
        return [(count, self._share(rows[:count])) for count in range(1, len(rows))]

    def _share(self, costs: Rows) -> float:
        """Return the hypervolume of costs, by that of the box which the first trials span."""
        worst, best = np.max(self._first, axis=0), np.min(self._first, axis=0)
        span = np.where(worst > best, worst - best, 1.0)
        count = len(self._names)
        points = ((costs - worst) / span).tolist()
        return hypervolume(points, [0.0] * count, ["min"] * count)

    def _volume(self) -> Volume | None:
        if not self._enough():
            return None
        worst = self._signs * np.max(self._first, axis=0)
        return Volume(tuple(worst.tolist()), len(self._first), tuple(self._history))

    def _left(self, now: float) -> float | None:
        limits = []
        since, complete = self._finishes[0]
        _, newest = self._finishes[-1]
        if newest > complete:
            pace = (now - since) / (newest - complete)
            limits.append(pace * max(0, self.config.trials - newest))
        if self.config.minutes is not None:
            limits.append(max(0.0, 60 * self.config.minutes - (now - self._begun)))
        return min(limits) if limits else None
