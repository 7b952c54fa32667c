"""An evaluation made several times on purpose, to see its noise."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from hashlib import blake2b

from evaluators.protocol import Evaluator, Measured, Slot
from search_spaces.architecture import Architecture


@dataclass(frozen=True)
class RepeatedEvaluator:
    """The mean of several evaluators of one metric; low and high are the extremes.

    Attributes:
        parts: at least two; each is paid, though an equal one may have been before.
    """

    parts: tuple[Evaluator, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those of the first part."""
        return self.parts[0].metrics

    @property
    def slot(self) -> Slot:
        """That of the first part."""
        return self.parts[0].slot

    def cache_key(self, architecture: Architecture) -> str:
        """See :class:`evaluators.protocol.Evaluator`."""
        keys = [part.cache_key(architecture) for part in self.parts]
        text = f"repeat {len(keys)} {' '.join(keys)}"
        return blake2b(text.encode(), digest_size=16).hexdigest() if all(keys) else ""

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        """Evaluate with each part.

        Raises:
            EvaluationError: one of the parts failed.
        """
        rounds = [part.evaluate(architecture) for part in self.parts]
        return [_mean(figures) for figures in zip(*rounds, strict=True)]


def _mean(figures: tuple[Measured, ...]) -> Measured:
    values = [item.value for item in figures]
    detail = {
        **figures[0].detail,
        "repeats": [{"value": item.value, **item.detail} for item in figures],
        "standard_deviation": statistics.stdev(values),
    }
    return Measured(figures[0].metric, statistics.fmean(values), min(values), max(values), detail)
