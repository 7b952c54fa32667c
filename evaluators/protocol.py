"""What every evaluator returns, and the one protocol they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from kernels.errors import NasError
from search_spaces.architecture import Architecture


class EvaluationError(NasError):
    """A candidate cannot be evaluated; the reason is recorded and the study goes on."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure about one candidate, with its uncertainty and how it came about.

    Attributes:
        metric: its name in the metric grammar, such as ``latency_ms`` or ``accuracy``.
        value: the figure; always finite.
        low: lower end of its spread: p10 of a latency, 95 % bound of an accuracy; None if exact.
        high: upper end.
        detail: everything else worth keeping, as JSON: samples, device, versions, recipe, seed.
    """

    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


class Evaluator(Protocol):
    """Finds out some metrics of a candidate; the same candidate and seed may be asked twice.

    Attributes:
        metrics: names of the metrics it gives.
        exclusive: whether nothing else may run on the device meanwhile, as for a latency.
    """

    metrics: tuple[str, ...]
    exclusive: bool

    def cache_key(self, architecture: Architecture) -> str:
        """Name the result; equal keys mean that evaluating again could only repeat it."""
        ...

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        """Return one figure per metric.

        Raises:
            EvaluationError: the candidate has no such figures; the message is the reason.
        """
        ...
