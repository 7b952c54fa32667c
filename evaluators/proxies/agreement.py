"""How well a score ranks candidates whose quality is known."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_FEWEST = 3


class Agreement(NamedTuple):
    """Rank correlations of a score with the truth; nan where either is the same for all.

    Attributes:
        rho: Spearman's.
        tau: Kendall's tau-b.
        half: Spearman's among the better half, by truth.
        tenth: Spearman's among the best tenth.
        found: truth of the candidate that the score puts first; of several the mean.
        best: the best there is.
    """

    rho: float
    tau: float
    half: float
    tenth: float
    found: float
    best: float


def agreement(scores: Sequence[float] | Floats, truth: Sequence[float] | Floats) -> Agreement:
    """Compare a score with the truth; of both, more is better, and infinite scores are ranked."""
    mine, quality = np.asarray(scores, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    order = np.argsort(-quality, kind="stable")
    half, tenth = order[: (len(order) + 1) // 2], order[: (len(order) + 9) // 10]
    first = mine == mine.max()
    return Agreement(
        rho=spearman(mine, quality),
        tau=kendall(mine, quality),
        half=spearman(mine[half], quality[half]),
        tenth=spearman(mine[tenth], quality[tenth]),
        found=float(quality[first].mean()),
        best=float(quality.max()),
    )


def spearman(a: Floats, b: Floats) -> float:
    """Return the rank correlation; nan where one of the two is constant."""
    from scipy.stats import rankdata

    ranks = np.vstack([rankdata(a), rankdata(b)])
    if len(a) < _FEWEST or (np.ptp(ranks, axis=1) == 0).any():
        return nan
    return float(np.corrcoef(ranks)[0, 1])


def kendall(a: Floats, b: Floats) -> float:
    """Return Kendall's tau-b, which corrects for ties; nan where one of the two is constant."""
    from scipy.stats import kendalltau, rankdata

    if len(a) < _FEWEST:
        return nan
    return float(kendalltau(rankdata(a), rankdata(b)).statistic)
