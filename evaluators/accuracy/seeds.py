"""One network trained from several seeds, and how far its accuracies lie apart."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluators.accuracy.data import AnyDataset
from evaluators.accuracy.evaluator import AccuracyEvaluator, SaveWeights
from evaluators.accuracy.recipe import Recipe
from evaluators.protocol import Measured
from kernels.errors import NasError
from search_spaces.architecture import Architecture


@dataclass(frozen=True, slots=True)
class SeedSummary:
    """Figures of one network over training seeds; make it with :meth:`of`.

    Args:
        seeds: how many.
        mean: of their figures.
        low: the smallest.
        high: the largest.
        deviation: standard deviation of a single training (n - 1); None of one seed.
    """

    seeds: int
    mean: float
    low: float
    high: float
    deviation: float | None

    @classmethod
    def of(cls, measured: Sequence[Measured]) -> SeedSummary:
        """Summarise one figure per seed.

        Example:
            >>> SeedSummary.of([Measured("accuracy", 0.5), Measured("accuracy", 0.75)]).mean
            0.625

        Raises:
            NasError: there is none.
        """
        if not measured:
            raise NasError("A summary needs the figure of at least one seed, got none.")
        values = [figure.value for figure in measured]
        deviation = statistics.stdev(values) if len(values) > 1 else None
        return cls(len(values), statistics.fmean(values), min(values), max(values), deviation)


def train_seeds(
    architecture: Architecture,
    dataset: AnyDataset,
    recipe: Recipe,
    seeds: Sequence[int],
    *,
    device: str = "cpu",
    threads: int = 1,
    save: SaveWeights | None = None,
    checkpoints: Path | None = None,
) -> list[Measured]:
    """Train a network once per seed and return its first validation figures, in order.

    Args:
        architecture: the network.
        dataset: what to train on; its test split is not touched.
        recipe: how to train.
        seeds: of the initial weights and the training; each one once.
        device: a torch device name.
        threads: CPU threads of a training.
        save: keeps each seed's weights under its dense key; None drops them.
        checkpoints: folder for the state of trainings that are killed; None: nowhere.

    Returns:
        One ``accuracy``, or ``loss`` of a text, per seed; ``detail["seed"]`` and
        ``detail["dense_key"]`` say which.

    Raises:
        NasError: no seed is given, or one twice.
        EvaluationError: a training failed.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise NasError(f"Give at least one seed, and each once, got {list(seeds)}.")
    return [
        AccuracyEvaluator(
            dataset,
            recipe,
            seed=seed,
            device=device,
            threads=threads,
            save=save,
            checkpoints=checkpoints,
        ).evaluate(architecture)[0]
        for seed in seeds
    ]
