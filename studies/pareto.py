"""Dominance, fronts and hypervolume; moocore does the counting."""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
import numpy.typing as npt

from kernels.errors import NasError
from studies.metrics import Direction

Point = Sequence[float]


def dominates(a: Point, b: Point, directions: Sequence[Direction]) -> bool:
    """Tell whether ``a`` is nowhere worse than ``b`` and somewhere better; NaN never is."""
    signs = [1.0 if direction == "min" else -1.0 for direction in directions]
    pairs = [(s * x, s * y) for s, x, y in zip(signs, a, b, strict=True)]
    return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)


def non_dominated(points: Sequence[Point], directions: Sequence[Direction]) -> list[int]:
    """Return the positions of the points that no other dominates, ascending.

    Equal points are all kept; a point with a NaN or an infinity is never on a front.

    Example:
        >>> non_dominated([(0.9, 5.0), (0.8, 4.0), (0.8, 6.0)], ["max", "min"])
        [0, 1]
    """
    rows, finite = _finite(points, directions)
    if not len(finite):
        return []
    kept = moocore.is_nondominated(rows[finite], maximise=_maximise(directions), keep_weakly=True)
    return [int(index) for index in finite[np.asarray(kept, dtype=bool)]]


def hypervolume(
    points: Sequence[Point], reference: Point, directions: Sequence[Direction]
) -> float:
    """Return the volume between the points' front and ``reference``; 0.0 of no points.

    Points with a NaN or an infinity, and those not better than the reference everywhere, add
    nothing. Its unit is the product of the objectives' units.
    """
    (reference_row,), ok = _finite([reference], directions)
    if not len(ok):
        raise NasError(f"The reference of a hypervolume must be finite, got {list(reference)}.")
    rows, finite = _finite(points, directions)
    if not len(finite):
        return 0.0
    volume = moocore.hypervolume(rows[finite], reference_row, maximise=_maximise(directions))
    return float(volume)


def _finite(
    points: Sequence[Point], directions: Sequence[Direction]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
    """Return all points as rows, and the positions of the finite ones."""
    wrong = [len(point) for point in points if len(point) != len(directions)]
    if wrong:
        raise NasError(f"Expected {len(directions)} objectives a point, got {wrong[0]}.")
    rows = np.array(points, dtype=np.float64).reshape(len(points), len(directions))
    return rows, np.flatnonzero(np.isfinite(rows).all(axis=1))


def _maximise(directions: Sequence[Direction]) -> list[bool]:
    return [direction == "max" for direction in directions]
