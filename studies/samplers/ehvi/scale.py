"""The scale that objectives are modelled on: differences near the best count most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

REACH = 4.0
"""The reference point, in spans from the best: what is worse than it is of no interest."""
_BEYOND = 1.5
"""How far beyond the reference a figure can appear, as a share of the reach.

With less, all that is bad looks equally bad, and a process is too sure that what lies near it is.
"""


@dataclass(frozen=True, slots=True)
class Scale:
    """Takes objectives, to be made small, to the logarithm of their distance from the best.

    A span is the distance from the best known figure to the median of points that were not chosen
    for being good. On this scale the best is 0, a span is ln 2, and what is far worse than
    the reference is cut off softly. It is the same whatever units and offsets objectives have.

    Attributes:
        best: of each objective, (m,).
        span: of each objective, (m,), positive.
    """

    best: Array
    span: Array

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
        return cls(best, np.where(span > 0, span, 1.0))

    @property
    def reference(self) -> Array:
        """The reference point on the scale, (m,)."""
        return np.full(len(self.best), np.log1p(REACH))

    def apply(self, values: Array) -> Array:
        """Take figures (n, m) to the scale; those below the best become negative."""
        spans = (values - self.best) / self.span
        room = _BEYOND * REACH
        far = REACH + room * np.tanh(np.maximum(spans - REACH, 0.0) / room)
        near = np.where(spans > REACH, far, spans)
        return np.asarray(np.log1p(np.maximum(near, _LEAST)))


_LEAST = -0.99
"""No figure is so much better than the best known one that the logarithm fails."""
