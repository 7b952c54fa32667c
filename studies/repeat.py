"""An evaluation made several times on purpose, to see its noise."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from evaluators.protocol import Evaluator, Measured, Slot, Stepwise
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

    @property
    def steps(self) -> int:
        """See :class:`evaluators.protocol.Stepwise`."""
        return self._stepwise[0].steps

    def until(self, step: int, metrics: tuple[str, ...]) -> RepeatedEvaluator:
        """See :class:`evaluators.protocol.Stepwise`."""
        return RepeatedEvaluator(tuple(part.until(step, metrics) for part in self._stepwise))

    def state_files(self, architecture: Architecture) -> tuple[Path, ...]:
        """See :class:`evaluators.protocol.Stepwise`."""
        return tuple(path for part in self._stepwise for path in part.state_files(architecture))

    @property
    def is_stepwise(self) -> bool:
        """Whether its parts can be looked at on their way."""
        return all(isinstance(part, Stepwise) for part in self.parts)

    @property
    def _stepwise(self) -> tuple[Stepwise, ...]:
        return tuple(part for part in self.parts if isinstance(part, Stepwise))

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
    disturbed = [why for item in figures for why in item.detail.get("disturbed") or ()]
    detail = {
        **figures[0].detail,
        **({"disturbed": disturbed} if disturbed else {}),
        "repeats": [{"value": item.value, **item.detail} for item in figures],
        "standard_deviation": statistics.stdev(values),
    }
    return Measured(figures[0].metric, statistics.fmean(values), min(values), max(values), detail)
