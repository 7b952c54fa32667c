"""The scale that objectives are modelled on: differences near the best count most."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

REACH = 4.0
"""The reference point, in spans from the best: what is worse than it is of no interest."""
_BEYOND = 1.5
"""How far beyond the reference a figure can appear, as a share of the reach.

With less, all that is bad looks equally bad, and a process is too sure that what lies near it is.
"""
UNITS = (0.1, 0.3, 1.0)
"""Distances from the best, in spans, up to which a scale can be linear; logarithmic beyond."""
_UNIT = 0.3
"""The same before anything is known."""
_LEAST = -0.99
"""Nothing counts as so much better than the best known figure that the logarithm fails."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Takes objectives, to be made small, to their distance from the best, small or logarithmic.

    A span is the distance from the best known figure to the median of points that were not chosen
    for being good. On this scale the best is 0; up to the unit it is linear, beyond logarithmic,
    and what is far worse than the reference is cut off softly. It is the same whatever units and
    offsets objectives have. The errors of a prediction grow with the distance from the best, for
    one objective more than for another: with the right unit they are alike everywhere.

    Attributes:
        best: of each objective, (m,).
        span: of each objective, (m,), positive.
        unit: of each objective, in spans, (m,).
    """

    best: Array
    span: Array
    unit: Array

    @classmethod
    def of(cls, values: Array, sample: Array) -> Scale:
        """Find the scale.

        Args:
            values: (n, m), all known figures, at least one.
            sample: (k, m), figures of points that were not chosen for being good; NaN where one is
                not known, at least one of each objective.
        """
        best = values.min(axis=0)
        span = np.nanmedian(sample, axis=0) - best
        wide = np.maximum(np.nanmax(sample, axis=0), values.max(axis=0)) - best
        span = np.where(span > 1e-12 * (1 + np.abs(best)), span, wide / REACH)
        return cls(best, np.where(span > 0, span, 1.0), np.full(len(best), _UNIT))

    def with_unit(self, objective: int, unit: float) -> Scale:
        """Return the scale with another unit of an objective."""
        changed = self.unit.copy()
        changed[objective] = unit
        return replace(self, unit=changed)

    @property
    def reference(self) -> Array:
        """The reference point on the scale, (m,)."""
        return np.asarray(np.arcsinh(REACH / self.unit))

    def apply(self, values: Array) -> Array:
        """Take figures (n, m) to the scale; those below the best become negative."""
        return np.asarray(np.arcsinh(self._spans(values) / self.unit))

    def stretch(self, values: Array) -> Array:
        """Return the logarithm of how the scale stretches spans at figures (n, m)."""
        return np.asarray(-0.5 * np.log(self._spans(values) ** 2 + self.unit**2))

    def growth(self, objective: int, places: Array) -> Array:
        """Return what places on the scale count when a front grows: the logarithm of spans.

        With it a span from the best counts ln 2, as does from there to three spans, whatever the
        unit is.
        """
        spans = self.unit[objective] * np.sinh(places)
        return np.asarray(np.log1p(np.maximum(spans, _LEAST)))

    def _spans(self, values: Array) -> Array:
        spans = (values - self.best) / self.span
        room = _BEYOND * REACH
        far = REACH + room * np.tanh(np.maximum(spans - REACH, 0.0) / room)
        return np.where(spans > REACH, far, spans)
