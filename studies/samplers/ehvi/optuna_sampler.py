"""The search as an ordinary Optuna sampler."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import SystemRandom
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from studies.metrics import Direction
from studies.samplers.ehvi.parameters import Features, ParameterDomain
from studies.samplers.ehvi.search import Search
from studies.samplers.protocol import Lesson


class EhviSampler(BaseSampler):
    """Gaussian processes and expected hypervolume improvement, for one objective and more.

    Made for categorical and integer parameters, conditional ones too; it never proposes parameters
    that a trial of the study had before, as long as others are left. Constraints
    (``trial.set_constraint``), failed and running trials are taken into account. The first trial of
    a study is random: until then nobody knows which parameters there are.

    Args:
        seed: two samplers with one seed propose the same, where trials end in the same order.
        features: what else is known of parameters without running a trial, such as analytic
            costs of the network they describe: a function from parameters to numbers, always as
            many.

    Example:
        >>> import optuna
        >>> optuna.logging.set_verbosity(optuna.logging.ERROR)
        >>> study = optuna.create_study(
        ...     sampler=EhviSampler(seed=0), directions=["minimize", "minimize"]
        ... )
        >>> def objective(trial):
        ...     x = trial.suggest_int("x", 0, 20)
        ...     return x**2, (x - 4) ** 2
        >>> study.optimize(objective, n_trials=21)
        >>> len({trial.params["x"] for trial in study.trials})
        21
    """

    def __init__(self, *, seed: int | None = None, features: Features | None = None) -> None:
        self._seed = SystemRandom().randrange(2**31) if seed is None else seed
        self._features = features
        self._random = RandomSampler(seed=self._seed)
        self._state: _State | None = None

    def reseed_rng(self) -> None:
        """See Optuna: other processes that run the study draw other numbers."""
        self._seed = SystemRandom().randrange(2**31)
        self._random.reseed_rng()
        self._state = None

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return all parameters that a trial had, as the newest had them."""
        found: dict[str, BaseDistribution] = {}
        for item in study.get_trials(deepcopy=False):
            if item.number != trial.number:
                found.update(item.distributions)
        return dict(sorted(found.items()))

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the parameters that are expected to make the front grow most."""
        if not search_space:
            return {}
        trials = [item for item in study.get_trials(deepcopy=False) if item.number != trial.number]
        state = self._state
        if state is None or not state.fits(study, search_space, trials):
            state = self._state = _State(study, search_space, trials, self._features, self._seed)
        state.learn(trials)
        return state.propose(trial.number, trials)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return a random value: of a parameter that no trial had, or not this combination."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)


class _State:
    """The search of one study with one set of parameters, and which of its trials it knows."""

    def __init__(
        self,
        study: Study,
        space: dict[str, BaseDistribution],
        trials: Sequence[FrozenTrial],
        features: Features | None,
        seed: int,
    ) -> None:
        directions = _directions(study)
        self._seed = seed
        self._signature = (study.study_name, directions, dict(space), _constraints(trials))
        self._domain = ParameterDomain(space, features, objectives=len(directions), seed=seed)
        self._search = Search(
            self._domain, directions=directions, constraints=self._signature[3], seed=seed
        )
        self._told: set[int] = set()

    def fits(
        self, study: Study, space: dict[str, BaseDistribution], trials: Sequence[FrozenTrial]
    ) -> bool:
        """Tell whether this is still the study, with the same parameters and constraints."""
        now = (study.study_name, _directions(study), dict(space), _constraints(trials))
        return self._signature == now

    def learn(self, trials: Sequence[FrozenTrial]) -> None:
        """Learn from the trials that ended since."""
        for trial in trials:
            if trial.number in self._told or not trial.state.is_finished():
                continue
            self._told.add(trial.number)
            point = self._domain.point(trial.params)
            if point is None:
                continue  # a range has changed since
            self._domain.see(trial.params)
            values = trial.values if trial.state is TrialState.COMPLETE else None
            if values is not None and not all(map(math.isfinite, values)):
                values = None
            violations = {
                name: value for name, value in trial.constraints.items() if math.isfinite(value)
            }
            self._search.learn(
                Lesson(
                    trial.number,
                    point.key,
                    point.decisions,
                    None if values is None else tuple(values),
                    violations,
                )
            )

    def propose(self, number: int, trials: Sequence[FrozenTrial]) -> dict[str, Any]:
        """Return the parameters of a trial."""
        pending = [
            point
            for trial in trials
            if not trial.state.is_finished()
            and trial.params
            and (point := self._domain.point(trial.params)) is not None
        ]
        for _, point in self._search.points(number, pending):
            return dict(point.decisions)
        return {}  # all that was thought of was met: each parameter is drawn at random


def _directions(study: Study) -> tuple[Direction, ...]:
    return tuple("max" if item is StudyDirection.MAXIMIZE else "min" for item in study.directions)


def _constraints(trials: Sequence[FrozenTrial]) -> tuple[str, ...]:
    return tuple(sorted({name for trial in trials for name in trial.constraints}))
