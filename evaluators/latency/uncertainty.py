"""How far the median of a measurement may be from that of another run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from kernels.errors import NasError

BETWEEN_RUN: Mapping[str, float] = {"cuda": 0.0045, "cpu": 0.03}
"""Relative standard deviation of medians between runs, by kind of device: see docs/measuring.md."""
_AT_ONE_PLACE: Mapping[str, float] = {"cuda": 0.011, "cpu": 0.0}  # of one capture of a graph
_Z95 = 1.96


def interval(
    round_medians: Sequence[float], median: float, between_run: float
) -> tuple[float, float]:
    """Return where the median of another run is expected with 95 % probability.

    Args:
        round_medians: of the undisturbed rounds; their scatter is the part within the run.
        median: of all their samples.
        between_run: relative standard deviation between runs.

    Example:
        >>> low, high = interval([10.0, 10.0, 10.0], 10.0, 0.01)
        >>> round(low, 3), round(high, 3)
        (9.723, 10.277)
    """
    within = 0.0
    if len(round_medians) > 1:
        within = statistics.stdev(round_medians) / math.sqrt(len(round_medians))
    both = math.hypot(within, between_run * median)
    half = _Z95 * math.sqrt(2) * both  # both runs scatter
    return max(0.0, median - half), median + half


def margin(device_kind: str) -> float:
    """Return by how much two functions must differ that were timed side by side, relative.

    On a GPU each has one capture at one place in memory, which may be worth more than its samples
    scatter, and does not cancel out.

    Args:
        device_kind: ``"cuda"`` or ``"cpu"``.
    """
    return _Z95 * math.sqrt(2) * _AT_ONE_PLACE[device_kind]


def learn_between_run(pairs: Sequence[tuple[float, float]]) -> float:
    """Return the relative standard deviation between runs from repeated measurements.

    Args:
        pairs: medians of the same thing in two runs; at least five.

    Raises:
        NasError: there are fewer, or one is not positive.
    """
    if len(pairs) < 5 or any(min(pair) <= 0 for pair in pairs):
        raise NasError(f"At least five pairs of positive medians are needed, got {len(pairs)}.")
    squares = [(2 * (b - a) / (a + b)) ** 2 for a, b in pairs]
    return math.sqrt(statistics.fmean(squares) / 2)
