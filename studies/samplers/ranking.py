"""Which lessons are better: feasible before infeasible, then fronts, then room around a point."""

from __future__ import annotations

import moocore
import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float64]


def best(values: Rows, violations: Rows, count: int) -> list[int]:
    """Return the positions of the best lessons, the best first.

    Feasible ones come in the order of their non-dominated rank and, within a rank, of their
    crowding distance, the lonely first; then infeasible ones, the least violating first. Ties keep
    their order.

    Args:
        values: (n, m), to be made small; rows of infeasible lessons are not read.
        violations: (n,), 0 for a feasible lesson.
        count: how many to return at most.
    """
    feasible = np.flatnonzero(violations <= 0)
    found: list[int] = []
    if len(feasible):
        ranks = np.asarray(moocore.pareto_rank(values[feasible]))
        for rank in range(int(ranks.max()) + 1):
            members = feasible[ranks == rank]
            order = np.argsort(-crowding(values[members]), kind="stable")
            found.extend(int(index) for index in members[order])
            if len(found) >= count:
                return found[:count]
    infeasible = np.flatnonzero(violations > 0)
    order = np.argsort(violations[infeasible], kind="stable")
    found.extend(int(index) for index in infeasible[order])
    return found[:count]


def crowding(rows: Rows) -> Rows:
    """Return the crowding distance of each point: the gaps between its neighbours, summed.

    Each objective's gap is a share of its range; the two ends of an objective are infinitely far.

    Args:
        rows: (n, m), points of one front.

    Returns:
        (n,), in units of the objectives' ranges.
    """
    total = np.zeros(len(rows))
    for column in rows.T:
        order = np.argsort(column, kind="stable")
        ordered = column[order]
        extent = ordered[-1] - ordered[0]
        if extent <= 0:
            continue
        total[order[1:-1]] += (ordered[2:] - ordered[:-2]) / extent
        total[order[[0, -1]]] = np.inf
    return total
