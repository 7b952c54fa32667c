"""The accuracy of a classifier on a finite sample, with its binomial uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kernels.errors import NasError

# Two-sided 95 % quantile of the standard normal distribution.
_Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Accuracy:
    """``correct`` of ``total`` images classified rightly.

    Example:
        >>> Accuracy(correct=90, total=100).value
        0.9

    Raises:
        NasError: ``total`` is not positive, or ``correct`` is not between 0 and ``total``.
    """

    correct: int
    total: int

    def __post_init__(self) -> None:
        if self.total < 1 or not 0 <= self.correct <= self.total:
            raise NasError(
                "An accuracy needs 0 <= correct <= total and total >= 1, "
                f"got correct={self.correct}, total={self.total}."
            )

    @property
    def value(self) -> float:
        """The share of correct answers, in 0..1."""
        return self.correct / self.total

    @property
    def low(self) -> float:
        """Lower end of the Wilson 95 % interval, in 0..1."""
        # Rounding must not leave the value outside at 0 and at 1.
        return max(0.0, min(self.value, self._centre - self._half_width))

    @property
    def high(self) -> float:
        """Upper end of the Wilson 95 % interval, in 0..1."""
        return min(1.0, max(self.value, self._centre + self._half_width))

    @property
    def _centre(self) -> float:
        z2 = _Z95 * _Z95
        return (self.correct + z2 / 2) / (self.total + z2)

    @property
    def _half_width(self) -> float:
        z2 = _Z95 * _Z95
        wrong = self.total - self.correct
        return _Z95 * math.sqrt(self.correct * wrong / self.total + z2 / 4) / (self.total + z2)
