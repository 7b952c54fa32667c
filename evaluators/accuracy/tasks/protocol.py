"""The seam between training and what is learned."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from evaluators.accuracy.score import Score


class Task(Protocol):
    """The training data of a network on a device, its loss, and how well it does.

    Attributes:
        unit: what a sample is called in messages: ``images``, ``sequences``.
        samples: of the training split.
    """

    unit: str
    samples: int

    def batch(
        self, index: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return inputs and targets on the device.

        Args:
            index: int64 ``(b,)`` on the CPU, numbers of samples.
            generator: on the CPU, of all that is random about a sample.
        """
        ...

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of a batch."""
        ...

    def check(self, outputs: torch.Tensor, inputs: torch.Tensor) -> None:
        """Refuse outputs of another form than the task's.

        Raises:
            NasError: says what was expected and what came.
        """
        ...

    def validate(self, module: nn.Module, most: int | None = None) -> Score:
        """Return how well a module does on the validation split, or on its first samples.

        Args:
            module: on the device.
            most: samples to look at.
        """
        ...

    def score(self, *row: float) -> Score:
        """Return a score from what :meth:`Score.row` gave."""
        ...
