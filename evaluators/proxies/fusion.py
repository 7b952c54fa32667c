"""One ranking from several scores: candidates that are good by all of them come first.

Scores of different kinds have no common unit, so their ranks are joined: ``sum ln(rank / n)`` over
the scores, ranks from 1 for the worst of n candidates, equal ones sharing the mean of theirs. The
logarithm punishes being among the worst by one score more than it rewards being among the best by
another; a score that is the same for all candidates changes nothing. (AZ-NAS, Lee and Ham,
CVPR 2024, ranks so.)
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isnan, log
from typing import Literal

import numpy as np
import numpy.typing as npt

from kernels.errors import NasError

Floats = npt.NDArray[np.float64]
Scores = Mapping[str, Literal["max", "min"]]
"""Names of scores, and which way is better."""

DESCRIPTION: Scores = {
    "params": "max",
    "macs": "max",
    "rf_gain": "max",
    "depth": "max",
    "path_local": "max",
    "path_spatial": "max",
    "shortest_path": "min",
    "path_pools": "min",
    "bottlenecks": "min",
}
"""What the ranking by the description alone joins: size, reach, what a path does, what is in it."""

PROBED: Scores = {**DESCRIPTION, "trainability": "max", "narrowest": "max"}
"""What the ranking joins that runs fresh networks too: AZ-NAS's view of their weakest blocks."""

FUSED, FUSED_PROBED = "joint_rank", "joint_probe"
"""The metrics that join :data:`DESCRIPTION` and :data:`PROBED`."""

SINGLE: Scores = {
    **DESCRIPTION,
    "layers": "max",
    "rf_volume": "max",
    "rf_local": "max",
}
"""Scores found by arithmetic, and which way each ranks; as a cost, size is better small."""


def fuse(columns: Mapping[str, Sequence[float] | Floats], scores: Scores = DESCRIPTION) -> Floats:
    """Return the joint score of some candidates, (n,); more is better, 0 is the most.

    A score that is not a number counts as the worst. Networks without a live path do not belong
    among the candidates: each would move the others' ranks.

    Args:
        columns: a figure a candidate, by name of the score.
        scores: what to join.

    Raises:
        NasError: a score is missing, or the columns are not of one length.

    Example:
        >>> fuse({"a": [1, 2, 3, 4], "b": [8, 9, 7, 6]}, {"a": "max", "b": "min"}).round(3)
        array([-2.079, -2.079, -0.575,  0.   ])
    """
    missing = [name for name in scores if name not in columns]
    if missing:
        raise NasError(f"The ranking needs {', '.join(missing)} too.")
    found = [oriented(columns[name], way) for name, way in scores.items()]
    if len({len(column) for column in found}) > 1:
        raise NasError("The scores are not of the same candidates.")
    total = np.zeros(len(found[0]))
    for column in found:
        total += np.log(ranks(column) / max(len(column), 1))
    return total


def oriented(column: Sequence[float] | Floats, way: Literal["max", "min"]) -> Floats:
    """Return figures of which more is better; what is not a number is the worst."""
    values = np.asarray(column, dtype=np.float64) * (1.0 if way == "max" else -1.0)
    values[np.isnan(values)] = -inf
    return values


def ranks(values: Floats) -> Floats:
    """Return each value's rank from 1; equal ones share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    result: Floats = (last - (counts - 1) / 2)[place]
    return result


@dataclass(frozen=True)
class Reference:
    """A sample of candidates to rank single ones in, so that their joint score is a figure.

    Attributes:
        scores: what is joined.
        sample: by name the sorted figures of the sample, oriented so that more is better.
    """

    scores: Scores
    sample: Mapping[str, Sequence[float]]

    @classmethod
    def of(cls, columns: Mapping[str, Sequence[float] | Floats], scores: Scores) -> Reference:
        """Take candidates as the sample."""
        sample = {
            name: sorted(oriented(columns[name], way).tolist()) for name, way in scores.items()
        }
        return cls(scores, sample)

    def score(self, figures: Mapping[str, float]) -> float:
        """Return the joint score of a candidate: ``sum ln(share of the sample it beats)``.

        The share is ``(worse + equal / 2 + 1/2) / (n + 1)``, so that it is never zero.
        """
        total = 0.0
        for name, way in self.scores.items():
            value = figures[name] if way == "max" else -figures[name]
            value = -inf if isnan(value) else value
            sample = self.sample[name]
            worse = bisect_left(sample, value)
            equal = bisect_right(sample, value) - worse
            total += log((worse + equal / 2 + 0.5) / (len(sample) + 1))
        return total
