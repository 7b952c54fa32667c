"""Which task goes with which data."""

from __future__ import annotations

import torch
from torch import nn

from evaluators.accuracy.data import AnyDataset, TextDataset, TextSplit
from evaluators.accuracy.evaluation import evaluate
from evaluators.accuracy.recipe import Recipe
from evaluators.accuracy.score import Score
from evaluators.accuracy.tasks import classification, language
from evaluators.accuracy.tasks.protocol import Task

_IMAGES, _AT_ONCE, _TEXTS = 512, 128, 16


def make_task(dataset: AnyDataset, recipe: Recipe, device: torch.device) -> Task:
    """Return what is learned from a data set.

    Raises:
        NasError: the recipe does not suit the data.
    """
    if isinstance(dataset, TextDataset):
        return language.LanguageModelling(dataset, recipe, device)
    return classification.Classification(dataset, recipe, device)


def metrics_of(dataset: AnyDataset) -> tuple[str, ...]:
    """Return the names of the figures that training on a data set gives, the first selects."""
    return language.METRICS if isinstance(dataset, TextDataset) else classification.METRICS


def example_inputs(dataset: AnyDataset) -> list[torch.Tensor]:
    """Return the first inputs of the training split, a few hundred images or some dozen texts."""
    train = dataset.train
    if isinstance(train, TextSplit):
        count = min(_TEXTS, len(train))
        return [train.windows(torch.arange(count) * train.context)[0]]
    count = min(_IMAGES, len(train))
    return [train.batch(slice(at, at + _AT_ONCE)) for at in range(0, count, _AT_ONCE)]


def score_split(module: nn.Module, dataset: AnyDataset, which: str) -> Score:
    """Return how well a trained module does.

    Args:
        module: on any device.
        dataset: what it was trained on.
        which: ``validation`` or ``test``.
    """
    if isinstance(dataset, TextDataset):
        lengths = torch.from_numpy(dataset.tokeniser.lengths)
        return language.score_text(module, getattr(dataset, which), lengths)
    return evaluate(module, getattr(dataset, which))
