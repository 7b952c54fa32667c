"""How much a front can be expected to grow: boxes of the region that no point dominates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import moocore
import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from studies.samplers.ranking import crowding

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]

_MOST = {1: 1, 2: 400, 3: 60, 4: 30, 5: 16}
"""Points of a front by number of objectives, so that there are at most some 10,000 boxes."""
_MOST_ELSE = 10
_SMALL = 1e-4
"""Step over which a slope is taken."""


@dataclass(frozen=True, slots=True)
class Boxes:
    """The region between a front and a reference point, cut into disjoint boxes.

    Attributes:
        edges: of each objective, the coordinates at which boxes begin and end, ascending from
            minus infinity.
        weights: of each objective, what a step between two edges counts.
        lower: (boxes, m), positions among the edges.
        upper: (boxes, m), the same.
    """

    edges: tuple[Array, ...]
    weights: tuple[Array, ...]
    lower: Index
    upper: Index

    @classmethod
    def of(
        cls, points: Array, reference: Array, growths: Sequence[Callable[[Array], Array]] = ()
    ) -> Boxes:
        """Cut up what no point dominates.

        Args:
            points: (n, m), to be made small; those not better than the reference are left out. Of
                a front with very many points those with most room around them are used.
            reference: (m,).
            growths: of each objective, what its coordinates count, ascending; taken as straight
                between two edges. Without them they count what they are.
        """
        front = points[(points < reference).all(axis=1)]
        if len(front):
            front = np.unique(front[np.asarray(moocore.is_nondominated(front), dtype=bool)], axis=0)
        most = _MOST.get(len(reference), _MOST_ELSE)
        if len(front) > most:
            front = front[np.sort(np.argsort(-crowding(front), kind="stable")[:most])]
        edges = tuple(
            np.concatenate([[-np.inf], np.unique(np.append(column, limit))])
            for column, limit in zip(front.T, reference, strict=True)
        )
        places = np.array(
            [np.searchsorted(edge, column) for edge, column in zip(edges, front.T, strict=True)],
            dtype=np.intp,
        ).T.reshape(len(front), len(reference))
        ends = np.array([len(edge) - 1 for edge in edges], dtype=np.intp)
        lower, upper = _cut(places, ends)
        weights = (
            tuple(_weights(edge, growth) for edge, growth in zip(edges, growths, strict=True))
            if growths
            else tuple(np.ones(len(edge) - 1) for edge in edges)
        )
        return cls(edges, weights, lower, upper)

    def expected(self, mean: Array, deviation: Array) -> Array:
        """Return the expected improvement in hypervolume of normal, independent objectives.

        Args:
            mean: (k, m).
            deviation: (k, m), positive.

        Returns:
            (k,).
        """
        product = np.ones((len(mean), len(self.lower)))
        for objective, (edge, weights) in enumerate(zip(self.edges, self.weights, strict=True)):
            below = _shortfall(edge, weights, mean[:, objective], deviation[:, objective])
            width = below[:, self.upper[:, objective]] - below[:, self.lower[:, objective]]
            product *= width
        return np.asarray(product.sum(axis=1))


def _cut(points: Index, ends: Index) -> tuple[Index, Index]:
    """Return lower and upper corners of the boxes, by slabs of the last objective.

    Args:
        points: (n, m), places of the points of a front; 0 is minus infinity.
        ends: (m,), places of the reference.
    """
    if len(ends) == 1:
        low = min([int(points.min())], default=0) if len(points) else int(ends[0])
        return np.zeros((1, 1), dtype=np.intp), np.array([[low]], dtype=np.intp)
    order = np.argsort(points[:, -1], kind="stable")
    points = points[order]
    levels = np.unique(points[:, -1])
    starts = np.concatenate([[0], levels]).astype(np.intp)
    stops = np.concatenate([levels, ends[-1:]]).astype(np.intp)
    lowers, uppers = [], []
    for start, stop in zip(starts, stops, strict=True):
        if start == stop:
            continue
        above = points[points[:, -1] <= start, :-1]
        lower, upper = _cut(_front(above), ends[:-1])
        count = len(lower)
        lowers.append(np.column_stack([lower, np.full(count, start)]))
        uppers.append(np.column_stack([upper, np.full(count, stop)]))
    return np.vstack(lowers), np.vstack(uppers)


def _front(points: Index) -> Index:
    if len(points) < 2:
        return points
    kept = np.flatnonzero(moocore.is_nondominated(points.astype(np.float64)))
    return np.asarray(points[kept])


def _weights(edges: Array, growth: Callable[[Array], Array]) -> Array:
    """Return the slope of growth between edges; before the first finite one, that at it."""
    ends = edges[1:]
    start = np.append(ends[0] - _SMALL, ends)
    return np.asarray(np.diff(growth(start)) / np.diff(start))


def _shortfall(edges: Array, weights: Array, mean: Array, deviation: Array) -> Array:
    """Return by how much a normal value is expected to stay below each edge, (k, edges).

    A step between two edges counts its weight.
    """
    z = (edges[1:] - mean[:, None]) / deviation[:, None]
    density = np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
    found = deviation[:, None] * (z * ndtr(z) + density)
    steps = np.diff(found, axis=1, prepend=0.0) * weights
    return np.hstack([np.zeros((len(mean), 1)), np.cumsum(steps, axis=1)])
