"""A Gaussian process over points whose likeness is given by pairs of numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from studies.samplers.ehvi.kernel import Pairs

Array = npt.NDArray[np.float64]

_LINEAR = 0.3
"""Variance of what is linear in a block before anything is known; that of the figures is 1."""
_NOISE = 0.01
"""Variance of the noise before anything is known."""
_SPREADS = {"decay": 1.0, "linear": 2.0, "smooth": 1.0, "noise": 1.5}
"""How far the logarithms of parameters may lie from what is assumed, as deviations of normals."""
_FAR = 4.0
"""Deviations that are looked at."""
_STEPS = 40
"""Steps of the search for parameters."""
_LEAST = 1e-9


@dataclass(frozen=True, slots=True)
class Prior:
    """What is assumed of a process's parameters, as normals of their logarithms.

    The parameters are, in this order: a decay per group of distances, a variance per product, the
    variance of the smooth part, that of the noise.

    Attributes:
        mean: (parameters,).
        deviation: (parameters,).
    """

    mean: Array
    deviation: Array

    @classmethod
    def of(cls, decays: Array, products: int) -> Prior:
        """Return what is assumed for groups with these decays, and a number of products."""
        counts = {"decay": len(decays), "linear": products, "smooth": 1, "noise": 1}
        mean = [*np.log(decays), *[np.log(_LINEAR)] * products, 0.0, np.log(_NOISE)]
        return cls(np.array(mean), np.repeat(list(_SPREADS.values()), list(counts.values())))


def covariance(parameters: Array, pairs: Pairs) -> Array:
    """Return the covariance of two sets of points, noise left out."""
    groups = len(pairs.distances)
    weights = np.exp(parameters)
    smooth = weights[-2] * np.exp(-np.tensordot(weights[:groups], pairs.distances, 1))
    return np.asarray(smooth + np.tensordot(weights[groups:-2], pairs.products, 1))


def fit(pairs: Pairs, figures: Array, prior: Prior) -> tuple[Array, float]:
    """Find the most plausible parameters of a process.

    Args:
        pairs: of the points with themselves.
        figures: (n,), with mean 0 and variance 1.
        prior: what is assumed.

    Returns:
        The logarithms of the parameters, and minus that of how plausible they make the figures.
    """
    reach = _FAR * prior.deviation
    found = minimize(
        _Likelihood(pairs, figures, prior),
        prior.mean,
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(prior.mean - reach, prior.mean + reach, strict=True)),
        options={"maxiter": _STEPS},
    )
    return np.asarray(found.x), float(found.fun)


class _Likelihood:
    """Minus the logarithm of the plausibility of parameters, with its gradient."""

    def __init__(self, pairs: Pairs, figures: Array, prior: Prior) -> None:
        count = len(figures)
        self._shape = (count, count)
        self._distances = pairs.distances.reshape(-1, count * count)
        self._products = pairs.products.reshape(-1, count * count)
        self._figures, self._prior, self._eye = figures, prior, np.eye(count)

    def __call__(self, parameters: Array) -> tuple[float, Array]:
        groups = len(self._distances)
        weights = np.exp(parameters)
        smooth = weights[-2] * np.exp(-(weights[:groups] @ self._distances)).reshape(self._shape)
        linear = (weights[groups:-2] @ self._products).reshape(self._shape)
        try:
            root = cholesky(smooth + linear + weights[-1] * self._eye, lower=True)
        except LinAlgError:
            return 1e10, np.zeros_like(parameters)
        inverse = cho_solve((root, True), self._eye)
        solved = inverse @ self._figures
        away = (parameters - self._prior.mean) / self._prior.deviation
        value = 0.5 * (self._figures @ solved + away @ away) + np.log(np.diag(root)).sum()
        slope = 0.5 * (inverse - np.outer(solved, solved))
        curved = (slope * smooth).ravel()
        gradient = np.concatenate(
            [
                -weights[:groups] * (self._distances @ curved),
                weights[groups:-2] * (self._products @ slope.ravel()),
                [curved.sum(), weights[-1] * np.trace(slope)],
            ]
        )
        return float(value), gradient + away / self._prior.deviation


def _root(between: Array, noise: float) -> Array:
    """Return the Cholesky factor; more noise is assumed where rounding asks for it."""
    least = 1e-10 * float(np.trace(between)) / len(between)
    while True:
        try:
            return np.asarray(cholesky(between + noise * np.eye(len(between)), lower=True))
        except LinAlgError:
            noise = max(10.0 * noise, least)


@dataclass(frozen=True, slots=True)
class Process:
    """A process that knows figures of some points.

    Attributes:
        parameters: logarithms of the parameters.
        mean: of the figures it was made of.
        deviation: of the same.
        root: Cholesky factor of the points' covariance, (n, n).
        solved: that covariance's inverse times the scaled figures, (n,).
    """

    parameters: Array
    mean: float
    deviation: float
    root: Array
    solved: Array

    @classmethod
    def of(cls, parameters: Array, pairs: Pairs, figures: Array) -> Process:
        """Take in the figures (n,) of points, whose pairs are given."""
        mean, deviation = float(figures.mean()), float(figures.std()) or 1.0
        between = covariance(parameters, pairs)
        root = _root(between, float(np.exp(parameters[-1])))
        solved = cho_solve((root, True), (figures - mean) / deviation)
        return cls(parameters, mean, deviation, root, solved)

    @property
    def noise(self) -> float:
        """Deviation of the figures' noise."""
        return self.deviation * float(np.exp(0.5 * self.parameters[-1]))

    def predict(self, pairs: Pairs, squares: Array) -> tuple[Array, Array]:
        """Return mean and deviation of the figures of other points, noise left out.

        Args:
            pairs: of the other points (k) with the known ones (n).
            squares: (products, k), products of the other points with themselves.
        """
        between = covariance(self.parameters, pairs)
        groups = len(pairs.distances)
        own = np.exp(self.parameters[-2]) + np.exp(self.parameters[groups:-2]) @ squares
        seen = solve_triangular(self.root, between.T, lower=True, check_finite=False)
        variance = np.maximum(own - (seen**2).sum(axis=0), _LEAST)
        mean = self.mean + self.deviation * (between @ self.solved)
        return np.asarray(mean), np.asarray(self.deviation * np.sqrt(variance))
