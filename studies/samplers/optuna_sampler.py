"""Optuna's samplers through ask and tell on a study in memory; our record is the only memory."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.trial import TrialState

from search_spaces.choose import Decider, Option, Rejected, ReplayDecider
from search_spaces.errors import SpaceError
from search_spaces.space import RESAMPLES, Candidate, DataSpec, Space
from studies.metrics import Direction
from studies.samplers.protocol import ask_seed

STARTUP = 10
"""Random candidates before TPE models them."""
POPULATION = 20
"""Candidates of one NSGA-II generation: Optuna's 50 would make a study of 50 a random search."""

_log = logging.getLogger(__name__)


class OptunaDecider:
    """Lets an Optuna trial answer; parameters are positions among the options.

    NOTE: Optuna refuses other choices under a known name, so a parameter's name holds the options.
    """

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial

    def decide(self, name: str, options: Sequence[Option]) -> int:
        """See :class:`search_spaces.choose.Decider`."""
        if len(options) == 1:
            return 0  # nothing to learn
        return self._trial.suggest_categorical(_parameter(name, options), range(len(options)))


class OptunaSampler:
    """TPE or NSGA-II over the decisions of a space; see :class:`~studies.samplers.Sampler`.

    NOTE: what was told enters the Optuna study as finished trials, and an asked trial is closed as
    FAIL at once, which samplers ignore: none stays RUNNING (TPE would avoid its place for ever),
    and a study rebuilt from the record is the study that was never interrupted.
    """

    def __init__(
        self,
        algorithm: Literal["tpe", "nsga2"],
        space: Space,
        data: DataSpec,
        *,
        directions: Sequence[Direction],
        seed: int,
    ) -> None:
        self._algorithm, self._space, self._data, self._seed = algorithm, space, data, seed
        self._complete = 0
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(
            directions=["minimize" if item == "min" else "maximize" for item in directions],
            sampler=self._fresh(0),
        )

    def ask(self, number: int) -> Candidate:
        """See :class:`~studies.samplers.Sampler`."""
        sampler = self._study.sampler = self._fresh(ask_seed(self._seed, number))
        if isinstance(sampler, NSGAIISampler):
            # NOTE: Optuna orders a generation's parents differently the first time it wants them.
            sampler.get_parent_population(self._study, self._complete // POPULATION)
        rejections: Counter[str] = Counter()
        for _ in range(RESAMPLES):
            trial = self._study.ask()
            try:
                found = self._space.run(OptunaDecider(trial), self._data)
            except Rejected as rejected:
                rejections[rejected.rule] += 1
                continue
            finally:
                self._study.tell(trial, state=TrialState.FAIL)
            return Candidate(found.architecture, found.decisions, dict(rejections))
        rule, count = rejections.most_common(1)[0]
        raise SpaceError(
            f"{self._space.name}: {RESAMPLES} proposals in a row were rejected, "
            f"{count} by the rule {rule!r}."
        )

    def tell(self, decisions: Mapping[str, Option], values: Sequence[float] | None) -> None:
        """See :class:`~studies.samplers.Sampler`; what no longer fits is skipped."""
        if values is None:
            return  # Optuna's samplers ignore failed trials
        questions = _Questions(ReplayDecider(decisions))
        try:
            self._space.run(questions, self._data)
        except (Rejected, SpaceError) as problem:
            _log.warning("A recorded trial no longer fits the space: %s", problem)
            return
        # Optuna counts generations by this attribute of the completed trials.
        generation = {NSGAIISampler._get_generation_key(): self._complete // POPULATION}
        self._study.add_trial(
            optuna.trial.create_trial(
                values=[float(value) for value in values],  # Optuna fails later on whole numbers
                params=questions.answers,
                distributions=questions.distributions,
                system_attrs=generation if self._algorithm == "nsga2" else None,
            )
        )
        self._complete += 1

    def _fresh(self, seed: int) -> BaseSampler:
        if self._algorithm == "nsga2":
            return NSGAIISampler(population_size=POPULATION, seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return TPESampler(multivariate=True, group=True, n_startup_trials=STARTUP, seed=seed)


class _Questions:
    """Notes what another decider was asked, as Optuna's parameters."""

    def __init__(self, decider: Decider) -> None:
        self._decider = decider
        self.answers: dict[str, int] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def decide(self, name: str, options: Sequence[Option]) -> int:
        """See :class:`search_spaces.choose.Decider`."""
        answer = self._decider.decide(name, options)
        if len(options) > 1:
            parameter = _parameter(name, options)
            self.answers[parameter] = answer
            self.distributions[parameter] = CategoricalDistribution(range(len(options)))
        return answer


def _parameter(name: str, options: Sequence[Option]) -> str:
    return f"{name}{list(options)}"
