"""Which points to look at before anything is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from studies.samplers.ehvi.kernel import Block, Pairs, decays
from studies.samplers.ehvi.process import Prior, covariance

_NUGGET = 0.05
"""Share of a point's variance that looking at it leaves; keeps lonely points from being chosen."""


def order_by_news(blocks: Sequence[Block], count: int) -> list[int]:
    """Order points so that the first few say most about all of them.

    Each next point is the one that lowers the variance summed over all points the most, by what a
    process assumes of them before it knows a figure. So points are chosen that stand for many
    others, and not far from the middle as those that only differ from all others are.

    Args:
        blocks: describe the points.
        count: how many to choose, at most as many as there are.

    Returns:
        Their positions.
    """
    pairs = Pairs.of(blocks, blocks)
    prior = Prior.of(decays(blocks), len(pairs.products))
    between = covariance(prior.mean, pairs)
    chosen: list[int] = []
    for _ in range(min(count, len(between))):
        variance = np.diag(between)
        worth = (between**2).sum(axis=1) / (variance + _NUGGET)
        worth[chosen] = -1.0
        best = int(np.argmax(worth))
        chosen.append(best)
        column = between[:, best].copy()
        between = between - np.outer(column, column) / (column[best] + _NUGGET)
    return chosen
