"""What every evaluator returns, and the one protocol they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from kernels.errors import NasError
from search_spaces.architecture import Architecture

Slot = Literal["inline", "training", "measurement"]
"""Where an evaluator runs: in the driver, which must stay free; beside others; or alone."""


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

    One whose slot is not ``inline`` runs in a process of its own, so it must be picklable.
    """

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics it gives."""
        ...

    @property
    def slot(self) -> Slot:
        """Where it runs.

        ``inline`` costs under a millisecond and runs in the driver; ``training`` may run beside
        others; beside a ``measurement`` nothing else runs on the device.
        """
        ...

    def cache_key(self, architecture: Architecture) -> str:
        """Name the result; equal keys mean that evaluating again could only repeat it.

        An empty name means that it must not be reused.
        """
        ...

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        """Return one figure per metric.

        Raises:
            EvaluationError: the candidate has no such figures; the message is the reason.
        """
        ...


@runtime_checkable
class Stepwise(Evaluator, Protocol):
    """An evaluator that can be looked at on its way: a training, after some of its epochs."""

    @property
    def steps(self) -> int:
        """How many steps it takes in all."""
        ...

    def until(self, step: int, metrics: tuple[str, ...]) -> Evaluator:
        """Return one that goes so far and leaves its state for one that goes on from there.

        Args:
            step: the last one it takes, from 1.
            metrics: names of the figures after that step, in the order of its own.
        """
        ...

    def state_files(self, architecture: Architecture) -> tuple[Path, ...]:
        """Return where the state of a candidate lies between steps; nothing where none is kept."""
        ...
