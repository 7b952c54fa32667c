"""The samplers that Optuna ships, and how one is found by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from studies.samplers.encoding import Encoding
from studies.samplers.genetic import Genetic
from studies.samplers.guided import STARTUP, Guided, Problem, known_rows
from studies.samplers.user import UserModel
from studies.samplers.window import Entry

_GP_LESSONS = 100
"""Newest lessons a Gaussian process is fitted to, and the most of the front besides."""


class Tpe(Guided):
    """Parzen estimators of good and bad candidates.

    Optuna 5.0 (``_tpe/sampler.py``, ``_split_trials``) sorts infeasible trials by their violation
    alone and does not read their values, so a placeholder says nothing.
    """

    def fresh(self, seed: int, encoding: Encoding, trials: Sequence[FrozenTrial]) -> BaseSampler:
        """See :class:`~studies.samplers.guided.Guided`."""
        sampler = _Tpe(multivariate=True, n_startup_trials=STARTUP, seed=seed)
        sampler.space = encoding.distributions
        return sampler


class Gp(Guided):
    """Gaussian processes of objectives and constraints.

    Optuna 5.0 (``_gp/sampler.py``) fits the objectives to all trials, the infeasible included. A
    lesson without values is told with the means of those that have some, which standardisation
    makes 0, what the process assumes where it knows nothing; its violations are learned as they
    are.
    """

    def fresh(self, seed: int, encoding: Encoding, trials: Sequence[FrozenTrial]) -> BaseSampler:
        """See :class:`~studies.samplers.guided.Guided`."""
        sampler = _Gp(n_startup_trials=STARTUP, seed=seed, warn_independent_sampling=False)
        sampler.space = encoding.distributions
        return sampler

    def placeholder(self, entries: Sequence[Entry]) -> tuple[float, ...]:
        """Return the mean of each objective."""
        rows = known_rows(entries)
        return tuple(np.mean(rows, axis=0).tolist()) if len(rows) else super().placeholder(entries)


def make_model(name: str, problem: Problem) -> Guided:
    """Return Optuna's sampler of that name, or a user's.

    Raises:
        NasError: a user's sampler cannot be loaded or made.
    """
    if name == "tpe":
        return Tpe(name, problem)
    if name == "gp":
        return Gp(name, problem, newest=_GP_LESSONS, front=_GP_LESSONS, tries=2)
    if name in ("nsga2", "nsga3"):
        return Genetic(name, problem)
    return UserModel(name, problem)


class _Tpe(TPESampler):
    space: Mapping[str, BaseDistribution]

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return dict(self.space)


class _Gp(GPSampler):
    space: Mapping[str, BaseDistribution]

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return dict(self.space)
