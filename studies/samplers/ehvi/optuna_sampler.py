"""The search as an ordinary Optuna sampler."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from random import SystemRandom
from threading import Lock
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from studies.metrics import Direction
from studies.samplers.ehvi.domain import Point
from studies.samplers.ehvi.parameters import Features, ParameterDomain
from studies.samplers.ehvi.search import Search
from studies.samplers.protocol import Lesson

_log = logging.getLogger(__name__)


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
        self._lock = Lock()  # trials of one study may be asked for in several threads
        self._trials: _Trials | None = None
        self._guide: _Guide | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs; it reads the study's trials anew."""
        names = ("_seed", "_features", "_random")
        return {name: self.__dict__[name] for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up what a copy needs."""
        self.__dict__.update(state)
        self._lock = Lock()
        self._trials = self._guide = None

    def reseed_rng(self) -> None:
        """See Optuna: other processes that run the study draw other numbers."""
        self._seed = SystemRandom().randrange(2**31)
        self._random.reseed_rng()
        self._trials = self._guide = None

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return all parameters that a trial had, as the newest had them."""
        with self._lock:
            return dict(sorted(self._read(study, trial).distributions.items()))

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the parameters that are expected to make the front grow most."""
        if not search_space:
            return {}
        with self._lock:
            trials = self._read(study, trial)
            signature = (_directions(study), tuple(search_space.items()), tuple(trials.constraints))
            guide = self._guide
            if guide is None or guide.signature != signature:
                guide = self._guide = _Guide(*signature, self._features, self._seed)
            guide.learn(trials.ended)
            return guide.propose(trial.number, trials.running)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return a random value: of a parameter that no trial had, or not this combination."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _read(self, study: Study, trial: FrozenTrial) -> _Trials:
        if self._trials is None or self._trials.study != study.study_name:
            self._trials, self._guide = _Trials(study.study_name), None
        self._trials.read(study.get_trials(deepcopy=False), trial.number)
        return self._trials


class _Trials:
    """The trials of a study, each read until it has ended: after that it does not change.

    Attributes:
        study: its name.
        ended: those that ended, in the order in which that was seen.
        running: the others but the one that asks.
        distributions: of all parameters they had, by name.
        constraints: names of the constraints they were held against, sorted.
    """

    def __init__(self, study: str) -> None:
        self.study = study
        self.ended: list[FrozenTrial] = []
        self.running: list[FrozenTrial] = []
        self.distributions: dict[str, BaseDistribution] = {}
        self.constraints: list[str] = []
        self._open: list[int] = []
        self._seen = 0

    def read(self, trials: Sequence[FrozenTrial], asking: int) -> None:
        """Look at the trials that are new or had not ended.

        Args:
            trials: all of the study, by number.
            asking: number of the trial that asks.
        """
        numbers = [*self._open, *range(self._seen, len(trials))]
        self._seen = len(trials)
        self._open = [number for number in numbers if not trials[number].state.is_finished()]
        self.running = [trials[number] for number in self._open if number != asking]
        new = [trials[number] for number in numbers if trials[number].state.is_finished()]
        self.ended += new
        for trial in [*new, *self.running]:
            self.distributions.update(trial.distributions)
        names = {name for trial in new for name in trial.constraints}
        self.constraints = sorted(names.union(self.constraints))


class _Guide:
    """The search among one set of parameters, and how many trials it knows."""

    def __init__(
        self,
        directions: tuple[Direction, ...],
        space: tuple[tuple[str, BaseDistribution], ...],
        constraints: tuple[str, ...],
        features: Features | None,
        seed: int,
    ) -> None:
        self.signature = (directions, space, constraints)
        self._domain = ParameterDomain(dict(space), features, objectives=len(directions), seed=seed)
        self._search = Search(
            self._domain, directions=directions, constraints=constraints, seed=seed
        )
        self._told = 0
        self._is_exhausted = False

    def learn(self, ended: Sequence[FrozenTrial]) -> None:
        """Learn from the trials that ended since."""
        for trial in ended[self._told :]:
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
        self._told = len(ended)

    def propose(self, number: int, running: Sequence[FrozenTrial]) -> dict[str, Any]:
        """Return the parameters of a trial; none where each is to be drawn by itself."""
        known = (self._domain.point(trial.params) for trial in running if trial.params)
        pending = [point for point in known if point is not None]
        points = (point for _, point in self._search.points(number, pending))
        found = next(points, None) or self._left(pending)
        return {} if found is None else dict(found.decisions)

    def _left(self, pending: Sequence[Point]) -> Point | None:
        """Return the first combination that was not met, in the order of values."""
        if self._is_exhausted:
            return None
        waiting = {point.key for point in pending}
        for point in self._domain.every():
            if point.key not in waiting and not self._search.met(point.key):
                return point
        if not waiting:
            self._is_exhausted = True
            _log.warning("All combinations of the parameters were tried: from here on they repeat.")
        return None


def _directions(study: Study) -> tuple[Direction, ...]:
    return tuple("max" if item is StudyDirection.MAXIMIZE else "min" for item in study.directions)
