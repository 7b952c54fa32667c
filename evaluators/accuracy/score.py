"""How well a network does on a finite sample, with the uncertainty that this leaves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from kernels.errors import NasError

# Two-sided 95 % quantile of the standard normal distribution.
_Z95 = 1.959963984540054


class Figure(NamedTuple):
    """One figure of a score, with the ends of its 95 % interval."""

    metric: str
    value: float
    low: float
    high: float


class Score(Protocol):
    """What a task says of a network."""

    @property
    def value(self) -> float:
        """The first figure's."""
        ...

    @property
    def figures(self) -> tuple[Figure, ...]:
        """All figures, that which selects first."""
        ...

    @property
    def counts(self) -> Mapping[str, float]:
        """What the figures were computed from, by name."""
        ...

    def row(self) -> tuple[float, ...]:
        """Return plain numbers from which the score can be made again."""
        ...


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
    def figures(self) -> tuple[Figure, ...]:
        """See :class:`Score`."""
        return (Figure("accuracy", self.value, self.low, self.high),)

    @property
    def counts(self) -> Mapping[str, float]:
        """See :class:`Score`."""
        return {"correct": self.correct, "total": self.total}

    def row(self) -> tuple[float, ...]:
        """See :class:`Score`."""
        return self.correct, self.total

    @property
    def _centre(self) -> float:
        z2 = _Z95 * _Z95
        return (self.correct + z2 / 2) / (self.total + z2)

    @property
    def _half_width(self) -> float:
        z2 = _Z95 * _Z95
        wrong = self.total - self.correct
        return _Z95 * math.sqrt(self.correct * wrong / self.total + z2 / 4) / (self.total + z2)


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How well the tokens of a text were foretold.

    Attributes:
        nats: minus the logarithm of the probability of all of them.
        tokens: how many.
        length: of the text that they stand for, in bytes.
        deviation: standard deviation of ``nats``, from how windows differ.

    Example:
        >>> uniform = Likelihood(nats=80 * math.log(256), tokens=80, length=80, deviation=0.0)
        >>> round(uniform.value, 3), round(uniform.bits_per_byte, 3)
        (5.545, 8.0)

    Raises:
        NasError: there are no tokens.
    """

    nats: float
    tokens: int
    length: int
    deviation: float

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.length < 1:
            raise NasError(f"A likelihood needs tokens, got {self.tokens} of {self.length} bytes.")

    @property
    def value(self) -> float:
        """Nats a token: the mean cross-entropy."""
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        """Bits a byte of text, which compares between vocabularies."""
        return self.nats / self.length / math.log(2)

    @property
    def figures(self) -> tuple[Figure, ...]:
        """See :class:`Score`."""
        margin = _Z95 * self.deviation
        scales = {"loss": self.tokens, "bits_per_byte": self.length * math.log(2)}
        return tuple(
            Figure(name, self.nats / per, (self.nats - margin) / per, (self.nats + margin) / per)
            for name, per in scales.items()
        )

    @property
    def counts(self) -> Mapping[str, float]:
        """See :class:`Score`."""
        return {"nats": self.nats, "tokens": self.tokens, "bytes": self.length}

    def row(self) -> tuple[float, ...]:
        """See :class:`Score`."""
        return self.nats, self.tokens, self.length, self.deviation
