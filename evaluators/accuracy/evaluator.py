"""How good a candidate is: build, initialise by seed, train, validate; and test from weights."""

from __future__ import annotations

import copy
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from evaluators.accuracy.checkpoint import remove
from evaluators.accuracy.data import AnyDataset
from evaluators.accuracy.initialise import initialise
from evaluators.accuracy.packed import packed
from evaluators.accuracy.recipe import Recipe
from evaluators.accuracy.score import Score
from evaluators.accuracy.tasks import metrics_of, score_split
from evaluators.accuracy.training import Epoch, TrainingResult, TrainingStatus, train
from evaluators.keys import accuracy_key, dense_key
from evaluators.protocol import EvaluationError, Measured, Slot
from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.build import build, load_weights, weights_by_node

Weights = Mapping[str, torch.Tensor]
"""A trained network's state on the CPU, by canonical node number: no scope name enters."""
SaveWeights = Callable[[str, Weights], str | None]
"""Keeps trained weights under their dense key; returns the hash of their content, if it has one."""


@dataclass(frozen=True, slots=True)
class Start:
    """Weights that trainings begin from, such as those of a model that was traced.

    Attributes:
        digest: names them.
        load: returns them by that name, in any process.
    """

    digest: str
    load: Callable[[str], Weights]

    def give(self, module: nn.Module, architecture: Architecture) -> None:
        """Copy them into a module.

        Raises:
            ArchitectureError: they are not those of this network.
        """
        load_weights(module, architecture, self.load(self.digest))


class AccuracyEvaluator:
    """Trains a candidate and returns how well it does on the validation split.

    Of images this is ``accuracy``; of a text ``loss``, in nats a token, and ``bits_per_byte``. Low
    and high are the ends of the 95 % interval. The weights depend on topology, recipe,
    data and seed only, so they are handed to ``save`` under the :func:`~evaluators.keys.dense_key`.
    A network with variants is trained without them, and judged as it then runs, on their kernels.
    It can be pickled if ``save`` can; a data set that is loaded by name travels as its name and
    fingerprint, and is loaded where it is first used.

    Args:
        dataset: what to train on and to select by; its test split is not touched.
        recipe: how to train.
        seed: of the initial weights and of the training.
        device: a torch device name.
        threads: CPU threads of the training.
        save: keeps the trained weights; None drops them.
        metric: the name of the figure, ``accuracy`` or ``loss`` by default: an evaluator by another
            recipe, such as a shorter training that comes first, gives it another one,
            ``accuracy[recipe=cifar-short]``. What stands in brackets goes to all of its figures.
        checkpoints: a folder where trainings that are killed leave their state; None: nowhere.
        on_epoch: told of every epoch; one that is to be pickled has none.
        start: weights that every training begins from; None: fresh ones by the seed.
        send: told of the state that a training leaves which was to go :meth:`until` an epoch.
        load: returns weights that were saved under a key, or raises NasError: variants of a network
            share its trained weights. None: each trains it anew.
    """

    slot: Slot = "training"

    def __init__(
        self,
        dataset: AnyDataset,
        recipe: Recipe,
        *,
        seed: int,
        device: str = "cpu",
        threads: int = 1,
        save: SaveWeights | None = None,
        metric: str = "",
        checkpoints: Path | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
        start: Start | None = None,
        send: Callable[[Path], None] | None = None,
        load: Callable[[str], Weights] | None = None,
    ) -> None:
        self._dataset: AnyDataset | bytes = dataset
        self.recipe, self.seed = recipe, seed
        self.device, self.threads = device, threads
        first, *others = metrics_of(dataset)
        _, bracket, conditions = metric.partition("[")
        self.metrics: tuple[str, ...] = (
            metric or first,
            *(f"{name}{bracket}{conditions}" for name in others),
        )
        self._save, self._checkpoints, self._on_epoch = save, checkpoints, on_epoch
        self._start, self._send, self._load = start, send, load
        self._until: int | None = None

    @property
    def dataset(self) -> AnyDataset:
        """What it trains on and selects by.

        Raises:
            NasError: this is another process than the data set was loaded in, and it cannot be
                loaded here or has changed.
        """
        dataset = self._dataset
        if isinstance(dataset, bytes):
            dataset = self._dataset = cast("AnyDataset", pickle.loads(dataset))
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
            start="" if self._start is None else self._start.digest,
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
        key = self.dense_key(architecture)
        module = build(architecture)
        if architecture.regions and self._is_known(key, module, architecture):
            kept = self._kept(key, module, architecture)
            return self._judged(module, architecture, {**self._about, **kept})
        if self._start is None:
            initialise(module, self.seed)
        else:
            self._start.give(module, architecture)
        file = self._checkpoint(key)
        result = train(
            module,
            self.dataset,
            self.recipe,
            seed=self.seed,
            device=self.device,
            threads=self.threads,
            on_epoch=self._on_epoch,
            checkpoint=file,
            keep_checkpoint=True,
            until=self._until,
        )
        failed = result.status is TrainingStatus.FAILED
        if self._until is not None and not failed:
            return self._on_the_way(result, self._until, file)
        detail = self._detail(result)
        if not failed:
            detail |= self._kept(key, module, architecture)
        if file is not None:  # not before the weights are safe
            remove(file)
        if result.validation is None:
            raise EvaluationError(f"The training failed: {result.reason}")
        if architecture.regions:
            return self._judged(module, architecture, detail)
        return _measured(self.metrics, result.validation, detail)

    def _is_known(self, key: str, module: nn.Module, architecture: Architecture) -> bool:
        """Give a module the weights that were trained under a key, if there are any."""
        if self._load is None or self._until is not None:
            return False
        try:
            load_weights(module, architecture, self._load(key))
        except NasError:
            return False
        return True

    def _kept(self, key: str, module: nn.Module, architecture: Architecture) -> dict[str, Any]:
        """Save trained weights, and return what names them."""
        if self._save is None:
            return {"dense_key": key}
        state = weights_by_node(module, architecture)
        digest = self._save(key, {name: item.detach().cpu() for name, item in state.items()})
        return {"dense_key": key} | ({} if digest is None else {"weights": digest})

    def _judged(
        self, module: nn.Module, architecture: Architecture, detail: Mapping[str, Any]
    ) -> list[Measured]:
        """Return the figures of trained weights in the form in which the network runs."""
        running = packed(architecture, module, self.dataset).to(self.device)
        return _measured(self.metrics, score_split(running, self.dataset, "validation"), detail)

    def _on_the_way(self, result: TrainingResult, epoch: int, state: Path | None) -> list[Measured]:
        """Return the figures after an epoch; the training may be further than that already."""
        if self._send is not None and state is not None and state.exists():
            self._send(state)
        return _measured(self.metrics, result.history[epoch - 1].validation, self._detail(result))

    @property
    def _about(self) -> dict[str, Any]:
        """What is known of a figure without a training."""
        return {
            "split": "validation",
            "total": len(self.dataset.validation),
            "data": self.dataset.name,
            "data_fingerprint": self.dataset.fingerprint,
            "recipe": self.recipe.name,
            "recipe_digest": self.recipe.digest,
            "seed": self.seed,
            "device": self.device,
            "threads": self.threads,
            "torch": torch.__version__,
        }

    def _detail(self, result: TrainingResult) -> dict[str, Any]:
        return {
            **self._about,
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


def measure_test(
    architecture: Architecture, weights: Weights, dataset: AnyDataset, *, device: str = "cpu"
) -> list[Measured]:
    """Return what trained weights give on the test split, with 95 % intervals.

    The figures are those of the validation split, with ``test_`` before their names.

    Args:
        architecture: the network.
        weights: its trained state, by canonical node number.
        dataset: the one it was trained on; the test split is read, and by variants that learn from
            inputs the first ones of the training split.
        device: a torch device name.

    Raises:
        ArchitectureError: the weights are not those of this network.
    """
    start = time.perf_counter()
    module = build(architecture)
    load_weights(module, architecture, weights)
    score = score_split(packed(architecture, module, dataset).to(device), dataset, "test")
    detail = {
        "split": "test",
        "total": len(dataset.test),
        "data": dataset.name,
        "data_fingerprint": dataset.fingerprint,
        "device": device,
        "torch": torch.__version__,
        "seconds": time.perf_counter() - start,
    }
    return _measured([f"test_{name}" for name in metrics_of(dataset)], score, detail)


def _measured(names: Sequence[str], score: Score, detail: Mapping[str, Any]) -> list[Measured]:
    return [
        Measured(name, figure.value, figure.low, figure.high, {**detail, **score.counts})
        for name, figure in zip(names, score.figures, strict=True)
    ]
