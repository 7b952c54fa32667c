"""One network trained from several seeds, and how far its accuracies lie apart."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from evaluators.protocol import Measured
from kernels.errors import NasError


@dataclass(frozen=True, slots=True)
class SeedSummary:
    """Figures of one network over training seeds; make it with :meth:`of`.

    Args:
        seeds: how many.
        mean: of their figures.
        low: the smallest.
        high: the largest.
        deviation: standard deviation of a single training (n - 1); None of one seed.
    """

    seeds: int
    mean: float
    low: float
    high: float
    deviation: float | None

    @classmethod
    def of(cls, measured: Sequence[Measured]) -> SeedSummary:
        """Summarise one figure per seed.

        Example:
            >>> SeedSummary.of([Measured("accuracy", 0.5), Measured("accuracy", 0.75)]).mean
            0.625

        Raises:
            NasError: there is none.
        """
        if not measured:
            raise NasError("A summary needs the figure of at least one seed, got none.")
        values = [figure.value for figure in measured]
        deviation = statistics.stdev(values) if len(values) > 1 else None
        return cls(len(values), statistics.fmean(values), min(values), max(values), deviation)
