"""Accuracy of a candidate: build, initialise by seed, train, validate; and test from weights."""

from __future__ import annotations

import copy
import pickle
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch

from evaluators.accuracy.data import Dataset
from evaluators.accuracy.evaluation import evaluate
from evaluators.accuracy.initialise import initialise
from evaluators.accuracy.recipe import Recipe
from evaluators.accuracy.training import TrainingResult, TrainingStatus, train
from evaluators.keys import accuracy_key, dense_key
from evaluators.protocol import EvaluationError, Measured, Slot
from search_spaces.architecture import Architecture
from search_spaces.build import build, load_weights, weights_by_node

Weights = Mapping[str, torch.Tensor]
"""A trained network's state on the CPU, by canonical node number: no scope name enters."""
SaveWeights = Callable[[str, Weights], None]
"""Keeps trained weights under their dense key."""


class AccuracyEvaluator:
    """Trains a candidate and returns its accuracy on the validation split.

    Low and high are the ends of the Wilson 95 % interval. The weights depend on topology, recipe,
    data and seed only, so they are handed to ``save`` under the :func:`~evaluators.keys.dense_key`.
    It can be pickled if ``save`` can; a data set that is loaded by name travels as its name and
    fingerprint, and is loaded where it is first used.

    Args:
        dataset: what to train on and to select by; its test split is not touched.
        recipe: how to train.
        seed: of the initial weights and of the training.
        device: a torch device name.
        threads: CPU threads of the training.
        save: keeps the trained weights; None drops them.
        metric: the name of the figure: an evaluator by another recipe, such as a shorter training
            that comes first, gives it another one, ``accuracy[recipe=cifar-short]``.
        checkpoints: a folder where trainings that are killed leave their state; None: nowhere.
        send: told of the state that a training leaves which was to go :meth:`until` an epoch.
    """

    slot: Slot = "training"

    def __init__(
        self,
        dataset: Dataset,
        recipe: Recipe,
        *,
        seed: int,
        device: str = "cpu",
        threads: int = 1,
        save: SaveWeights | None = None,
        metric: str = "accuracy",
        checkpoints: Path | None = None,
        send: Callable[[Path], None] | None = None,
    ) -> None:
        self._dataset: Dataset | bytes = dataset
        self.recipe, self.seed = recipe, seed
        self.device, self.threads = device, threads
        self.metrics: tuple[str, ...] = (metric,)
        self._save, self._checkpoints, self._send = save, checkpoints, send
        self._until: int | None = None

    @property
    def dataset(self) -> Dataset:
        """What it trains on and selects by.

        Raises:
            NasError: this is another process than the data set was loaded in, and it cannot be
                loaded here or has changed.
        """
        dataset = self._dataset
        if isinstance(dataset, bytes):
            dataset = self._dataset = cast("Dataset", pickle.loads(dataset))
        return dataset

    def __getstate__(self) -> dict[str, Any]:
        # Pickled within the pickle: unpickling an evaluator must neither take long nor fail.
        state = self.__dict__.copy()
        if not isinstance(self._dataset, bytes):
            state["_dataset"] = pickle.dumps(self._dataset, pickle.HIGHEST_PROTOCOL)
        return state

    def dense_key(self, architecture: Architecture) -> str:
        """Name the weights that training the architecture here gives."""
        return dense_key(
            architecture,
            self.recipe.digest,
            data_fingerprint=self.dataset.fingerprint,
            seed=self.seed,
        )

    def cache_key(self, architecture: Architecture) -> str:
        """See :class:`evaluators.protocol.Evaluator`."""
        return accuracy_key(architecture, self.dense_key(architecture), metric=self.metrics[0])

    @property
    def steps(self) -> int:
        """See :class:`evaluators.protocol.Stepwise`."""
        return self.recipe.epochs

    def until(self, step: int, metrics: tuple[str, ...]) -> AccuracyEvaluator:
        """See :class:`evaluators.protocol.Stepwise`."""
        part = copy.copy(self)
        part._until, part.metrics = step, metrics
        return part

    def state_files(self, architecture: Architecture) -> tuple[Path, ...]:
        """See :class:`evaluators.protocol.Stepwise`."""
        path = self._checkpoint(self.dense_key(architecture))
        return () if path is None else (path,)

    def _checkpoint(self, key: str) -> Path | None:
        return None if self._checkpoints is None else self._checkpoints / f"{key}.pt"

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        """Train and validate.

        Raises:
            EvaluationError: the training failed, as with a loss that is not finite or a device
                out of memory.
        """
        _refuse_variants(architecture)
        key = self.dense_key(architecture)
        module = build(architecture)
        initialise(module, self.seed)
        result = train(
            module,
            self.dataset,
            self.recipe,
            seed=self.seed,
            device=self.device,
            threads=self.threads,
            checkpoint=self._checkpoint(key),
            until=self._until,
        )
        if result.status is TrainingStatus.FAILED or result.validation is None:
            raise EvaluationError(f"The training failed: {result.reason}")
        if self._until is not None:
            return [self._on_the_way(architecture, result, self._until)]
        if self._save is not None:
            state = weights_by_node(module, architecture)
            self._save(key, {name: tensor.detach().cpu() for name, tensor in state.items()})
        accuracy = result.validation
        detail = {**self._detail(result), "dense_key": key, "correct": accuracy.correct}
        return [Measured(self.metrics[0], accuracy.value, accuracy.low, accuracy.high, detail)]

    def _on_the_way(
        self, architecture: Architecture, result: TrainingResult, epoch: int
    ) -> Measured:
        """Return the figure after an epoch; the training may be further than that already."""
        for path in self.state_files(architecture):
            if self._send is not None and path.exists():
                self._send(path)
        accuracy = result.history[epoch - 1].validation
        detail = {**self._detail(result), "correct": accuracy.correct, "total": accuracy.total}
        return Measured(self.metrics[0], accuracy.value, accuracy.low, accuracy.high, detail)

    def _detail(self, result: TrainingResult) -> dict[str, Any]:
        return {
            "split": "validation",
            "total": len(self.dataset.validation),
            "data": self.dataset.name,
            "data_fingerprint": self.dataset.fingerprint,
            "recipe": self.recipe.name,
            "recipe_digest": self.recipe.digest,
            "seed": result.seed,
            "device": result.device,
            "threads": result.threads,
            "torch": torch.__version__,
            "seconds": result.wall_seconds,
            "resumed": result.resumed,
            "history": [
                {
                    "epoch": epoch.number,
                    "train_loss": epoch.train_loss,
                    "validation": epoch.validation.value,
                }
                for epoch in result.history
            ],
        }


def measure_test_accuracy(
    architecture: Architecture, weights: Weights, dataset: Dataset, *, device: str = "cpu"
) -> Measured:
    """Return the ``test_accuracy`` of trained weights, with its Wilson 95 % interval.

    Args:
        architecture: the network.
        weights: its trained state, by canonical node number.
        dataset: the one it was trained on; only the test split is read.
        device: a torch device name.

    Raises:
        ArchitectureError: the weights are not those of this network.
    """
    _refuse_variants(architecture)
    start = time.perf_counter()
    module = build(architecture)
    load_weights(module, architecture, weights)
    accuracy = evaluate(module.to(device), dataset.test, device=device)
    detail = {
        "split": "test",
        "total": accuracy.total,
        "correct": accuracy.correct,
        "data": dataset.name,
        "data_fingerprint": dataset.fingerprint,
        "device": device,
        "torch": torch.__version__,
        "seconds": time.perf_counter() - start,
    }
    return Measured("test_accuracy", accuracy.value, accuracy.low, accuracy.high, detail)


def _refuse_variants(architecture: Architecture) -> None:
    """An accuracy of a variant is that of its packed form, never of the dense one."""
    if architecture.regions:
        raise EvaluationError(
            f"Variants cannot be trained yet; this network has {architecture.regions[0]}."
        )
