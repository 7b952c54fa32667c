"""Optuna's samplers as they come, to compare with: no window, and repeats are proposed."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)
from optuna.study import StudyDirection
from optuna.trial import TrialState

from evaluators.protocol import EvaluationError
from search_spaces.choose import Chooser, Decisions, Option, Rejected
from studies.benchmark.task import Task

PLAIN: dict[str, Callable[[int], BaseSampler]] = {
    "optuna:random": lambda seed: RandomSampler(seed=seed),
    "optuna:tpe": lambda seed: TPESampler(seed=seed),
    "optuna:tpe-multivariate": lambda seed: TPESampler(seed=seed, multivariate=True),
    "optuna:nsga2": lambda seed: NSGAIISampler(seed=seed),
    "optuna:nsga2-20": lambda seed: NSGAIISampler(seed=seed, population_size=20),
    "optuna:nsga3": lambda seed: NSGAIIISampler(seed=seed),
    "optuna:gp": lambda seed: GPSampler(seed=seed),
}
"""By name, what makes one of a seed."""
_DIRECTIONS = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}


class Plain:
    """Asks an Optuna sampler on a study of its own; see :class:`~studies.benchmark.race.Racer`."""

    def __init__(self, name: str, task: Task, seed: int) -> None:
        logging.getLogger("optuna").setLevel(logging.WARNING)
        directions = [_DIRECTIONS[item] for item in task.directions]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self._study = optuna.create_study(sampler=PLAIN[name](seed), directions=directions)
        self._task = task
        self._asked: dict[int, optuna.Trial] = {}

    def ask(self, number: int) -> int:
        """See :class:`~studies.benchmark.race.Racer`."""
        space, data = self._task.searched
        while True:
            trial = self._study.ask()
            decider = _TrialDecider(trial)
            try:
                space.function(Chooser(decider.decide), data)
                row = self._task.table.row(decider.decisions)
            except (Rejected, EvaluationError):
                self._study.tell(trial, state=TrialState.FAIL)
                continue
            self._asked[number] = trial
            return row

    def tell(self, number: int, values: Sequence[float]) -> None:
        """See :class:`~studies.benchmark.race.Racer`."""
        self._study.tell(self._asked.pop(number), [float(value) for value in values])


class _TrialDecider:
    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial
        self.decisions: Decisions = {}

    def decide(self, name: str, options: Sequence[Option]) -> int:
        answer = self._trial.suggest_categorical(name, list(options))
        self.decisions[name] = answer
        return options.index(answer)
