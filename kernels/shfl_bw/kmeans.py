"""Rows into groups as published: K-means with clusters of one size on a loose mask.

Source: the pruning toolbox of two of Shfl-BW's authors (prune_utils/admm.py, "block_row_permuted");
its K-means is Bradley, Bennett and Demiriz, Constrained K-Means Clustering, 2000: each assignment
of rows to clusters is the cheapest that fills every cluster. Here it is solved as an assignment
problem with V places a cluster, which has the same optimum as their flow.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

Floats = npt.NDArray[np.float64]

_TOLERANCE = 1e-4  # of squared centre movement, relative to the mean variance of a column


def constrained_kmeans(
    points: Floats, v: int, *, restarts: int = 10, iterations: int = 300, seed: int = 0
) -> tuple[npt.NDArray[np.int64], float]:
    """Return the cluster of each point and the sum of squared distances to their centres.

    Args:
        points: (groups * v, columns).
        v: points of each cluster.
        restarts: runs from new centres; the best counts.
        iterations: most steps of a run.
        seed: of the centres.
    """
    generator = np.random.default_rng(seed)
    tolerance = _TOLERANCE * float(points.var(0).mean())
    runs = [_run(points, v, iterations, tolerance, generator) for _ in range(restarts)]
    return min(runs, key=lambda run: run[1])


def _run(
    points: Floats, v: int, iterations: int, tolerance: float, generator: np.random.Generator
) -> tuple[npt.NDArray[np.int64], float]:
    groups = len(points) // v
    centres = _spread_centres(points, groups, generator)
    for _ in range(iterations):
        label, inertia = _assign(points, centres, v)
        moved = np.stack([points[label == group].mean(0) for group in range(groups)])
        shift = float(((moved - centres) ** 2).sum())
        centres = moved
        if shift <= tolerance:
            break
    label, inertia = _assign(points, centres, v)
    return label, inertia


def _spread_centres(points: Floats, count: int, generator: np.random.Generator) -> Floats:
    """Draw centres by greedy k-means++: each the best of a few drawn by squared distance."""
    norms = (points**2).sum(1)
    chosen = [int(generator.integers(len(points)))]
    nearest = _distances(points, points[chosen], norms)[:, 0]
    for _ in range(count - 1):
        total = float(nearest.sum())
        weights = nearest / total if total > 0 else None
        drawn = generator.choice(len(points), size=2 + int(np.log(count)), p=weights)
        closer = np.minimum(nearest[:, None], _distances(points, points[drawn], norms))
        best = int(closer.sum(0).argmin())
        chosen.append(int(drawn[best]))
        nearest = closer[:, best]
    return points[chosen]


def _distances(points: Floats, centres: Floats, norms: Floats) -> Floats:
    squared = norms[:, None] - 2 * points @ centres.T + (centres**2).sum(1)
    distances: Floats = np.maximum(squared, 0.0)
    return distances


def _assign(points: Floats, centres: Floats, v: int) -> tuple[npt.NDArray[np.int64], float]:
    """Fill every cluster with V points at the least sum of squared distances."""
    cost = _distances(points, centres, (points**2).sum(1))
    point, place = linear_sum_assignment(np.repeat(cost, v, axis=1))
    label = np.empty(len(points), np.int64)
    label[point] = place // v
    return label, float(cost[np.arange(len(points)), label].sum())
