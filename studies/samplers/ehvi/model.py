"""What is known of a study at one moment, and what that says of points not evaluated yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from studies.samplers.ehvi.answers import columns_of
from studies.samplers.ehvi.boxes import Boxes
from studies.samplers.ehvi.domain import Domain, Point
from studies.samplers.ehvi.kernel import Pairs, decays, own_products
from studies.samplers.ehvi.process import Prior, Process, fit
from studies.samplers.ehvi.scale import UNITS, Scale

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Found:
    """What is found of an objective or a constraint.

    Attributes:
        parameters: of its process.
        unit: of its scale; none of a constraint.
    """

    parameters: Array
    unit: float | None = None


Parameters = Mapping[str, Found]
"""By name; those that are missing are as assumed."""

_CERTAIN = 1e-6
"""Deviation of what is known without payment, on the scale of the objectives."""
_TIE = 1e-9
"""Weight of good predictions where no point is expected to make the front grow."""
_BARRED = 1e-9
"""Weight of points that are known to violate a constraint, where there are no others."""
_FAR = 4.0
"""Violations up to which differences count alike, in usual ones."""
_LIKELY = 0.5
"""Chance of keeping the constraints from which a waiting point is counted in the front."""


@dataclass(frozen=True, slots=True)
class Known:
    """What trials have taught.

    Attributes:
        points: those that ended, n of them.
        values: (n, objectives), to be made small; NaN where there are none.
        violations: by constraint, (n,); NaN where it was not looked at.
        scale: of the objectives; None while no values are known.
    """

    points: Sequence[Point]
    values: Array
    violations: Mapping[str, Array]
    scale: Scale | None

    def objectives(self) -> dict[str, Array]:
        """Return the objectives on their scale, (n,) each."""
        if self.scale is None:
            return {}
        columns = self.scale.apply(self.values).T
        return {_objective(number): column for number, column in enumerate(columns)}

    def constraints(self) -> dict[str, Array]:
        """Return violations on their scale, (n,) each, of constraints that were violated."""
        return {
            name: _near_bound(column)
            for name, column in self.violations.items()
            if (column > 0).any()
        }

    def front(self, scale: Scale) -> Array:
        """Return the objectives of the points that have some and keep the constraints."""
        kept = np.isfinite(self.values).all(axis=1)
        for column in self.violations.values():
            kept &= ~(column > 0)
        return scale.apply(self.values[kept])


def _near_bound(violations: Array) -> Array:
    """Take violations (n,) to a scale on which differences near the bound count most.

    It is linear up to a few usual violations and logarithmic beyond: were the largest its unit, all
    points near the bound would look alike.
    """
    usual = float(np.nanmedian(np.abs(violations)))
    return np.arcsinh(violations / (_FAR * usual or 1.0))


def _objective(number: int) -> str:
    return f"objective {number}"


def find_parameters(domain: Domain, known: Known) -> dict[str, Found]:
    """Find the most plausible parameters of all processes; takes up to a few seconds."""
    if not known.points:
        return {}
    blocks = domain.blocks(known.points, columns_of(item.answers for item in known.points))
    pairs = Pairs.of(blocks, blocks)
    prior = Prior.of(decays(blocks), len(pairs.products))
    found = {}
    for name, figures in known.constraints().items():
        parameters, _ = _fit(pairs, figures, prior)
        if parameters is not None:
            found[name] = Found(parameters)
    for number in range(0 if known.scale is None else known.values.shape[1]):
        assert known.scale is not None
        least = np.inf
        for unit in UNITS:
            scale = known.scale.with_unit(number, unit)
            figures = scale.apply(known.values)[:, number]
            parameters, misfit = _fit(pairs, figures, prior)
            misfit -= np.nansum(scale.stretch(known.values)[:, number])
            if parameters is not None and misfit < least:
                least = misfit
                found[_objective(number)] = Found(parameters, unit)
    return found


def _fit(pairs: Pairs, figures: Array, prior: Prior) -> tuple[Array | None, float]:
    """Return parameters of a process of figures (n,), and minus the logarithm of their density.

    NaN are left out; None where the figures do not differ.
    """
    rows = np.flatnonzero(np.isfinite(figures))
    told = figures[rows]
    if len(rows) < 2 or np.ptp(told) <= 0:
        return None, np.inf
    spread = told.std()
    parameters, misfit = fit(pairs.take(rows, rows), (told - told.mean()) / spread, prior)
    return parameters, misfit + len(rows) * float(np.log(spread))


def _in_units(known: Known, parameters: Parameters) -> Known:
    """Return what is known on the scale whose units were found."""
    scale = known.scale
    for number in range(known.values.shape[1]):
        found = parameters.get(_objective(number))
        if scale is not None and found is not None and found.unit is not None:
            scale = scale.with_unit(number, found.unit)
    return replace(known, scale=scale)


class Outlook:
    """What is to be expected of points, by what is known at one moment.

    Args:
        domain: what points are.
        parameters: of the processes.
        known: what is known.
        pending: points in evaluation; they are taken to turn out as predicted.
    """

    def __init__(
        self, domain: Domain, parameters: Parameters, known: Known, pending: Sequence[Point]
    ) -> None:
        known = _in_units(known, parameters)
        seen = [*known.points, *pending]
        self._domain, self._scale = domain, known.scale
        self._columns = columns_of(point.answers for point in seen)
        self._blocks = domain.blocks(seen, self._columns)
        pairs = Pairs.of(self._blocks, self._blocks)
        prior = Prior.of(decays(self._blocks), len(pairs.products)).mean

        def belief(name: str, figures: Array) -> _Belief:
            found = parameters[name].parameters if name in parameters else prior
            return _Belief.of(found, pairs, figures, len(pending))

        self._constraints = [belief(*item) for item in known.constraints().items()]
        self._objectives = [belief(*item) for item in known.objectives().items()]
        if known.scale is not None:
            front = known.front(known.scale)
            if pending:
                mean, _, chance = self._predict(pending, known.scale)
                front = np.vstack([front, mean[chance > _LIKELY]])
            growths = [partial(known.scale.growth, number) for number in range(front.shape[1])]
            self._boxes = Boxes.of(front, known.scale.reference, growths)

    def worth(self, points: Sequence[Point]) -> Array:
        """Return by how much each point is expected to make the front grow, (k,).

        While no values are known, it is the chance of keeping the constraints.
        """
        if self._scale is None:
            return self._chance(points, *self._across(points))
        mean, deviation, chance = self._predict(points, self._scale)
        growth = self._boxes.expected(mean, deviation)
        return np.asarray(chance * (growth + _TIE * np.exp(-mean.sum(axis=1))))

    def _predict(self, points: Sequence[Point], scale: Scale) -> tuple[Array, Array, Array]:
        """Return mean and deviation of the objectives, (k, objectives), and chances, (k,)."""
        across, own = self._across(points)
        free = np.array([point.known for point in points])
        mean = scale.apply(np.where(np.isfinite(free), free, scale.best))
        deviation = np.full(mean.shape, _CERTAIN)
        for number, belief in enumerate(self._objectives):
            paid = np.isnan(free[:, number])
            if paid.any():
                expected, spread = belief.predict(across, own)
                # The front is made of figures as they turned out, with their noise.
                spread = np.hypot(spread, belief.process.noise)
                mean[paid, number], deviation[paid, number] = expected[paid], spread[paid]
        return mean, deviation, self._chance(points, across, own)

    def _chance(self, points: Sequence[Point], across: Pairs, own: Array) -> Array:
        """Return the chance of points to keep all constraints."""
        chance = np.where([point.allowed for point in points], 1.0, _BARRED)
        for belief in self._constraints:
            mean, deviation = belief.predict(across, own)
            chance *= ndtr(-mean / deviation)
        return chance

    def _across(self, points: Sequence[Point]) -> tuple[Pairs, Array]:
        blocks = self._domain.blocks(points, self._columns)
        return Pairs.of(blocks, self._blocks), own_products(blocks)


@dataclass(frozen=True, slots=True)
class _Belief:
    """A process that knows some of the points seen.

    Attributes:
        process: the process.
        rows: positions of the points it knows.
    """

    process: Process
    rows: npt.NDArray[np.intp]

    @classmethod
    def of(cls, parameters: Array, pairs: Pairs, figures: Array, waiting: int) -> _Belief:
        """Make a process of figures, and let it believe what it predicts of waiting points.

        Args:
            parameters: of the process.
            pairs: of all points seen, the waiting last.
            figures: of those that ended; NaN where there is none.
            waiting: how many wait.
        """
        rows = np.flatnonzero(np.isfinite(figures))
        told = figures[rows]
        process = Process.of(parameters, pairs.take(rows, rows), told)
        if not waiting:
            return cls(process, rows)
        last = len(figures) + np.arange(waiting)
        products = np.array([item.diagonal()[last] for item in pairs.products])
        mean, _ = process.predict(pairs.take(last, rows), products.reshape(-1, waiting))
        rows = np.concatenate([rows, last])
        told = np.concatenate([told, mean])
        return cls(Process.of(parameters, pairs.take(rows, rows), told), rows)

    def predict(self, across: Pairs, own: Array) -> tuple[Array, Array]:
        """Return mean and deviation of points, by their pairs with all points seen."""
        everything = np.arange(across.distances.shape[1])
        return self.process.predict(across.take(everything, self.rows), own)
