"""Where candidates stand among random ones by each of several scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Standing:
    """A sample of candidates to compare others with, score by score.

    The logarithm of the share of the sample that a candidate beats makes scores of any unit
    comparable; their sum is the joint ranking of :mod:`evaluators.proxies.fusion`.

    Attributes:
        sample: (n, scores), each column rising.
        centre: mean of the sample's sums.
        spread: their deviation; 0 where no score tells candidates apart.
    """

    sample: Array
    centre: float
    spread: float

    @classmethod
    def of(cls, scores: Array) -> Standing:
        """Take candidates as the sample, but for those that nothing passes through.

        Args:
            scores: (n, scores), more is better; infinite where nothing passes.
        """
        live = scores[np.isfinite(scores).all(axis=1)]
        sample = np.sort(live, axis=0)
        sums = _shares(sample, live).sum(axis=1)
        varied = len(live) > 0 and bool((sample[0] < sample[-1]).any())
        return cls(sample, float(sums.mean()) if varied else 0.0, float(sums.std() * varied))

    def shares(self, scores: Array) -> Array:
        """Return logarithms of the shares of the sample that candidates beat, about 0 on average.

        Args:
            scores: (k, scores).

        Returns:
            (k, scores), at most 1.
        """
        return 1.0 + _shares(self.sample, scores)  # the mean logarithm of a share is -1

    def joint(self, scores: Array) -> Array:
        """Return the joint score of candidates, with mean 0 and deviation 1 in the sample, (k,)."""
        return np.asarray((_shares(self.sample, scores).sum(axis=1) - self.centre) / self.spread)


def _shares(sample: Array, scores: Array) -> Array:
    """Return ``ln((worse + equal / 2 + 1/2) / (n + 1))``, so that no share is zero."""
    found = np.empty(scores.shape)
    for number, (column, ordered) in enumerate(zip(scores.T, sample.T, strict=True)):
        ends = (np.searchsorted(ordered, column, side) for side in ("left", "right"))
        found[:, number] = (sum(ends) / 2 + 0.5) / (len(ordered) + 1)
    return np.asarray(np.log(found))
