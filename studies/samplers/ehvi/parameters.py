"""The parameters of an Optuna study as points."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import product
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution

from studies.samplers.ehvi.answers import Columns, stack
from studies.samplers.ehvi.distributions import Parameter
from studies.samplers.ehvi.domain import Point
from studies.samplers.ehvi.kernel import Block
from studies.samplers.protocol import ask_seed

Array = npt.NDArray[np.float64]
Features = Callable[[Mapping[str, Any]], Sequence[float]]
"""Returns what else is known of parameters without payment, always as many numbers."""

SAMPLE = 300
"""Points that features are scaled by; a study's first are chosen among them."""
_MORE = 0.35
"""Chance that a change changes one parameter more."""
_TRIES = 20
_ROUNDS = 1000
"""Values that are drawn of continuous parameters to find a new point."""
_LEAST = 1e-9
_WIDTH = 3.0
"""How far apart the ends of a continuous range are."""


class ParameterDomain:
    """See :class:`~studies.samplers.ehvi.domain.Domain`.

    Which parameters a trial has may depend on others in ways that only the objective function
    knows. So points have the parameters of trials that were seen: a changed point those of its
    parent, a random one those of some trial.

    Args:
        distributions: of all parameters.
        features: see :data:`Features`; where None, there are none.
        objectives: their number.
        seed: of what is drawn for scaling.
    """

    pace = 200

    def __init__(
        self,
        distributions: Mapping[str, BaseDistribution],
        features: Features | None,
        *,
        objectives: int,
        seed: int,
    ) -> None:
        self._features, self._seed = features, seed
        self._unknown = np.full(objectives, np.nan)
        self._parameters = {name: Parameter(item) for name, item in sorted(distributions.items())}
        self._continuous = [name for name, item in self._parameters.items() if not item.values]
        self._patterns: Counter[tuple[str, ...]] = Counter()

    def see(self, decisions: Mapping[str, Any]) -> None:
        """Note which parameters a trial had."""
        self._patterns[tuple(name for name in self._parameters if name in decisions)] += 1

    @cached_property
    def sample_points(self) -> list[Point]:
        """See :class:`~studies.samplers.ehvi.domain.Domain`."""
        rng = Random(ask_seed(self._seed, -1))
        drawn = [self.sample(rng) for _ in range(SAMPLE)]
        return list({point.key: point for point in drawn}.values())

    def point(self, decisions: Mapping[str, Any]) -> Point | None:
        """See :class:`~studies.samplers.ehvi.domain.Domain`."""
        items = self._parameters.items()
        known = {name: decisions[name] for name, _ in items if name in decisions}
        if not all(self._parameters[name].holds(value) for name, value in known.items()):
            return None
        shares = [
            self._parameters[name].share(known[name]) - 0.5 if name in known else 0.0
            for name in self._continuous
        ]
        graph = [] if self._features is None else self._features(known)
        return Point(
            key=repr(list(known.items())),
            decisions=known,
            open=tuple(name for name in known if not self._parameters[name].single),
            answers={
                name: self._parameters[name].vector(value)
                for name, value in known.items()
                if self._parameters[name].values
            },
            graph=np.array([*shares, *graph], dtype=float),
            known=self._unknown,
        )

    def sample(self, rng: Random) -> Point:
        """See :class:`~studies.samplers.ehvi.domain.Domain`."""
        patterns = self._seen_together()
        weights = [self._patterns[pattern] or 1 for pattern in patterns]
        names = rng.choices(patterns, weights)[0]
        point = self.point({name: self._parameters[name].draw(rng) for name in names})
        assert point is not None, "what was drawn is in range"
        return point

    def every(self) -> Iterator[Point]:
        """Yield all points whose parameters go together as those of some trial did.

        Where a parameter has more values than can be walked through, a number of random ones.
        """
        rng = Random(ask_seed(self._seed, -2))
        for names in self._seen_together():
            parameters = [self._parameters[name] for name in names]
            rounds = 1 if all(item.values for item in parameters) else _ROUNDS
            for _ in range(rounds):
                columns = [item.values or (item.draw(rng),) for item in parameters]
                for values in product(*columns):
                    point = self.point(dict(zip(names, values, strict=True)))
                    assert point is not None, "a parameter holds its own values"
                    yield point

    def change(self, point: Point, rng: Random) -> Point | None:
        """See :class:`~studies.samplers.ehvi.domain.Domain`."""
        for _ in range(_TRIES if point.open else 0):
            count = 1
            while count < len(point.open) and rng.random() < _MORE:
                count += 1
            changed = dict(point.decisions)
            for name in rng.sample(point.open, count):
                changed[name] = self._parameters[name].change(changed[name], rng)
            found = self.point(changed)
            if found is not None and found.key != point.key:
                return found
        return None

    def cross(self, first: Point, second: Point, rng: Random) -> Point | None:
        """See :class:`~studies.samplers.ehvi.domain.Domain`."""
        other = second.decisions
        return self.point(
            {
                name: other[name] if name in other and rng.random() < 0.5 else value
                for name, value in first.decisions.items()
            }
        )

    def blocks(self, points: Sequence[Point], columns: Columns) -> list[Block]:
        """See :class:`~studies.samplers.ehvi.domain.Domain`."""
        shares = len(self._continuous)
        discrete = len(self._parameters) - shares
        answers, lengths = stack([point.answers for point in points], columns)
        rows = np.array([point.graph for point in points])
        centre, spread = self._usual
        varied = spread > _LEAST
        graph = (rows[:, shares:] - centre)[:, varied] / spread[varied]
        every = [
            Block(answers / math.sqrt(discrete or 1), lengths / (discrete or 1), np.ones(1), True),
            Block.apart(_WIDTH * rows[:, :shares], 0.3, linear=True),
            Block.apart(graph, 0.05, linear=True),
        ]
        present = (discrete > 0, shares > 0, varied.any())
        return [block for block, there in zip(every, present, strict=True) if there]

    def _seen_together(self) -> list[tuple[str, ...]]:
        return sorted(self._patterns) or [tuple(self._parameters)]

    @cached_property
    def _usual(self) -> tuple[Array, Array]:
        """Mean and deviation of the features of points drawn at random."""
        rows = np.array([point.graph for point in self.sample_points])[:, len(self._continuous) :]
        return rows.mean(axis=0), rows.std(axis=0)
