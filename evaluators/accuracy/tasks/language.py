"""Learning to foretell each token of a text from those before it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from evaluators.accuracy.data import TextDataset, TextSplit
from evaluators.accuracy.evaluation import device_of, in_mode
from evaluators.accuracy.recipe import Recipe
from evaluators.accuracy.score import Likelihood
from kernels.errors import NasError

METRICS = ("loss", "bits_per_byte")

_GPU_BATCH = 64
_CPU_BATCH = 16


class LanguageModelling:
    """See :class:`evaluators.accuracy.tasks.Task`; inputs and targets are ids ``(b, tokens)``.

    A sample is a window of the training text: each begins at a random place within its own stretch,
    so that an epoch reads about all of the text, cut another way each time.

    Args:
        dataset: its training and validation splits are held on the device.
        recipe: its label smoothing is the task's to apply.
        device: where the network is.

    Raises:
        NasError: the recipe alters images.
    """

    unit = "sequences"

    def __init__(self, dataset: TextDataset, recipe: Recipe, device: torch.device) -> None:
        if recipe.augmentation or recipe.channels_last:
            raise NasError(f"The recipe {recipe.name!r} is for images; text has text-short.")
        self._recipe = recipe
        self._train = dataset.train.to(device)
        self._validation = dataset.validation
        self._lengths = torch.from_numpy(dataset.tokeniser.lengths)
        self._classes = dataset.classes
        self.samples = len(dataset.train)

    def batch(
        self, index: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See :class:`evaluators.accuracy.tasks.Task`."""
        context, ids = self._train.context, self._train.ids
        shift = torch.randint(0, context, index.shape, generator=generator)
        starts = (index * context + shift).clamp(max=len(ids) - 1 - context)
        # Not waited for: the copy is behind what the GPU has yet to do.
        return self._train.windows(starts.to(ids.device, non_blocking=True))

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean cross-entropy of a token in nats, in float32."""
        return nn.functional.cross_entropy(
            outputs.float().flatten(0, 1),
            targets.flatten(),
            label_smoothing=self._recipe.label_smoothing,
        )

    def check(self, outputs: torch.Tensor, inputs: torch.Tensor) -> None:
        """See :class:`evaluators.accuracy.tasks.Task`."""
        check_token_logits(outputs, inputs, self._classes)

    def validate(self, module: nn.Module, most: int | None = None) -> Likelihood:
        """See :class:`evaluators.accuracy.tasks.Task`."""
        return score_text(module, self._validation, self._lengths, most=most)

    def score(self, *row: float) -> Likelihood:
        """See :class:`evaluators.accuracy.tasks.Task`."""
        nats, tokens, length, deviation = row
        return Likelihood(nats, int(tokens), int(length), deviation)


def score_text(
    module: nn.Module, split: TextSplit, lengths: torch.Tensor, *, most: int | None = None
) -> Likelihood:
    """Let a language model foretell a text, window after window, in evaluation mode.

    Args:
        module: ids ``(b, tokens)`` to logits ``(b, tokens, vocabulary)``; not moved.
        split: the text; its tokens but for the first are foretold, up to the last whole window.
        lengths: int64, bytes of each token of the vocabulary.
        most: windows to look at; None: all.

    Raises:
        NasError: the module gives other outputs.
    """
    device = device_of(module)
    size = _CPU_BATCH if device.type == "cpu" else _GPU_BATCH
    count = len(split) if most is None else min(most, len(split))
    sums = []
    length = 0
    with in_mode(module, training=False), torch.inference_mode():
        for start in range(0, count, size):
            places = torch.arange(start, min(start + size, count)) * split.context
            inputs, targets = split.windows(places)
            length += int(lengths[targets].sum())
            logits: Any = module(inputs.to(device))
            check_token_logits(logits, inputs, len(lengths))
            each = nn.functional.cross_entropy(
                logits.float().flatten(0, 1), targets.to(device).flatten(), reduction="none"
            )
            sums.append(each.double().reshape(targets.shape).sum(1).cpu())
    windows = torch.cat(sums)
    spread = float(windows.std()) * math.sqrt(count) if count > 1 else 0.0
    return Likelihood(float(windows.sum()), count * split.context, length, spread)


def check_token_logits(logits: object, ids: torch.Tensor, classes: int) -> None:
    """Refuse an output that is not one row of logits a token.

    Raises:
        NasError: says what was expected and what came.
    """
    expected = (*ids.shape, classes)
    came = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if came != expected:
        raise NasError(f"Expected logits {expected} from the module, got {came}.")
