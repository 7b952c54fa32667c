"""Learning to tell the classes of images."""

from __future__ import annotations

import torch
from torch import nn

from evaluators.accuracy.augment import augment
from evaluators.accuracy.data import Dataset, Split
from evaluators.accuracy.evaluation import check_logits, evaluate
from evaluators.accuracy.recipe import Recipe
from evaluators.accuracy.score import Accuracy
from kernels.errors import NasError

METRICS = ("accuracy",)


class Classification:
    """See :class:`evaluators.accuracy.tasks.Task`; inputs are ``(b, c, h, w)``, targets ``(b,)``.

    Args:
        dataset: its training and validation splits are held on the device.
        recipe: its augmentation, memory layout and label smoothing are the task's to apply.
        device: where the network is.
    """

    unit = "images"

    def __init__(self, dataset: Dataset, recipe: Recipe, device: torch.device) -> None:
        self._recipe, self._device = recipe, device
        self._train = dataset.train.to(device)
        self._validation = dataset.validation.to(device)
        self._black = torch.tensor(dataset.black, device=device).view(-1, 1, 1)
        self._classes = dataset.classes
        self.samples = len(dataset.train)

    def batch(
        self, index: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See :class:`evaluators.accuracy.tasks.Task`."""
        chosen = index.to(self._device)
        images = self._train.batch(chosen)
        steps = self._recipe.augmentation
        images = augment(images, steps, black=self._black, generator=generator)
        if self._recipe.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return images, self._train.labels[chosen]

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean cross-entropy, in float32."""
        smoothing = self._recipe.label_smoothing
        return nn.functional.cross_entropy(outputs.float(), targets, label_smoothing=smoothing)

    def check(self, outputs: torch.Tensor, inputs: torch.Tensor) -> None:
        """See :class:`evaluators.accuracy.tasks.Task`."""
        check_logits(outputs, inputs)
        if outputs.shape[1] != self._classes:
            raise NasError(f"Expected logits of {self._classes} classes, got {outputs.shape[1]}.")

    def validate(self, module: nn.Module, most: int | None = None) -> Accuracy:
        """See :class:`evaluators.accuracy.tasks.Task`."""
        split = self._validation
        if most is not None and most < len(split):
            split = Split(split.images[:most], split.labels[:most], split.levels)
        return evaluate(module, split)

    def score(self, *row: float) -> Accuracy:
        """See :class:`evaluators.accuracy.tasks.Task`."""
        return Accuracy(*map(int, row))
