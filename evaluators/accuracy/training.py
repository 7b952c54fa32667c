"""Training a candidate by a recipe: fast on small data, reproducible, failures recorded."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import torch
from torch import nn

from evaluators.accuracy.checkpoint import Checkpoint, run_digest
from evaluators.accuracy.data import Dataset, Split
from evaluators.accuracy.evaluation import evaluate
from evaluators.accuracy.initialise import initialise, seeded
from evaluators.accuracy.loop import Loop
from evaluators.accuracy.recipe import Recipe
from evaluators.accuracy.score import Accuracy

__all__ = ["Epoch", "TrainingResult", "TrainingStatus", "evaluate", "initialise", "train"]

# Memory of the CPU that ran out is a bare RuntimeError with one of these texts.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


class TrainingStatus(StrEnum):
    """How a training ended."""

    OK = "ok"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the training split.

    Args:
        number: from 1.
        train_loss: mean over the steps, with label smoothing and augmentation.
        validation: accuracy after the pass, of the averaged weights if the recipe averages; where
            a recipe limits the images of an epoch, on as many validation images until the last.
    """

    number: int
    train_loss: float
    validation: Accuracy


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a training gave and under which conditions.

    Args:
        status: ``ok``; ``stopped`` by ``on_epoch``; ``failed`` for ``reason``.
        reason: why it failed; None otherwise.
        history: the epochs that ended with finite figures.
        validation: accuracy of the kept weights on the validation split; None when failed.
        wall_seconds: of the whole call, validation included.
        seed: the seed of shuffling, augmentation and dropout.
        device: where it ran.
        threads: torch's CPU threads: sums round differently with their number.
        resumed: epochs that an earlier call made.
    """

    status: TrainingStatus
    reason: str | None
    history: tuple[Epoch, ...]
    validation: Accuracy | None
    wall_seconds: float
    seed: int
    device: str
    threads: int
    resumed: int = 0

    @property
    def epochs(self) -> int:
        """The number of epochs that ended with finite figures."""
        return len(self.history)


def train(
    module: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    device: str | torch.device = "cpu",
    threads: int | None = None,
    on_epoch: Callable[[Epoch], bool | None] | None = None,
    checkpoint: Path | None = None,
    until: int | None = None,
) -> TrainingResult:
    """Fit ``module`` in place, from the weights it has, and validate it after every epoch.

    On the CPU the same module, data, recipe, seed and threads give bit-equal weights; call
    ``initialise`` first for fresh ones. No global RNG and no thread setting stays changed. The
    weights of the last epoch are kept, never those of the best: the validation split selects
    between candidates, not within one.

    Args:
        module: images ``(b, c, h, w)`` to logits ``(b, classes)``; moved to ``device``, its mode
            is restored.
        dataset: held on ``device`` as a whole.
        recipe: how to train.
        seed: of shuffling, augmentation and the module's own randomness (dropout).
        device: where to train.
        threads: torch's CPU threads during the call; unchanged by default. NOTE: 1 is best for
            small images: on 2 cores with one busy, 2 threads took 59 s where 1 took 0.4 s (OpenMP
            threads spin at each barrier; OMP_WAIT_POLICY=PASSIVE in the environment helps).
        on_epoch: called after each epoch; True ends the training there with status ``stopped``.
        checkpoint: a file that the state is saved to after an epoch, at most every 20 s, and
            that is removed at the end. A training that was killed goes on from it; on the CPU the
            end is bit-equal. A file of another training, or a damaged one, is replaced.
        until: ends after this epoch, with status ``stopped`` and the state in the checkpoint, from
            which a later call goes on.

    Returns:
        The result. A loss or weight that is not finite, or a device out of memory, gives status
        ``failed`` with a reason, no exception.

    Raises:
        NasError: the module has no parameters, or does not return logits of the data's classes.
    """
    target = torch.device(device)
    with _cpu_threads(threads), seeded(seed, target):
        run = _Run(module, dataset, recipe, seed, target, on_epoch)
        if checkpoint is not None:
            digest = run_digest(module, dataset, recipe, seed=seed, device=target)
            run.checkpoint = Checkpoint(checkpoint, digest)
        run.until = until or recipe.epochs
        status, reason = run.to_the_end()
        return TrainingResult(
            status=status,
            reason=reason,
            history=tuple(run.history),
            validation=None if status is TrainingStatus.FAILED else run.history[-1].validation,
            wall_seconds=run.seconds,
            seed=seed,
            device=str(target),
            threads=torch.get_num_threads(),
            resumed=run.resumed,
        )


class _Run:
    """One call of :func:`train`: epochs, their history, and the checkpoint."""

    def __init__(
        self,
        module: nn.Module,
        dataset: Dataset,
        recipe: Recipe,
        seed: int,
        device: torch.device,
        on_epoch: Callable[[Epoch], bool | None] | None,
    ) -> None:
        self.module, self.dataset, self.recipe = module, dataset, recipe
        self.seed, self.device, self.on_epoch = seed, device, on_epoch
        self.checkpoint: Checkpoint | None = None
        self.history: list[Epoch] = []
        self.until, self.resumed = recipe.epochs, 0
        self._start = time.perf_counter()
        self._earlier_seconds = 0.0

    @property
    def seconds(self) -> float:
        """Wall time until now, with that of the runs before that were killed."""
        return self._earlier_seconds + time.perf_counter() - self._start

    def to_the_end(self) -> tuple[TrainingStatus, str | None]:
        """Train, and remove the checkpoint; it stays only if an exception ends the training."""
        try:
            outcome = self._epochs()
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            outcome = TrainingStatus.FAILED, self._memory_reason(error)
        if self.recipe.channels_last:
            self.module.to(memory_format=torch.contiguous_format)
        if self.checkpoint is not None and not self._goes_on:
            self.checkpoint.remove()
        return outcome

    @property
    def _goes_on(self) -> bool:
        """Whether a later call is to go on from here."""
        return self.until < self.recipe.epochs

    def _epochs(self) -> tuple[TrainingStatus, str | None]:
        loop = Loop(self.module, self.dataset, self.recipe, self.seed, self.device)
        self._resume(loop)
        validation = self.dataset.validation.to(self.device)
        for number in range(len(self.history) + 1, self.until + 1):
            loss = loop.run_epoch()
            if not math.isfinite(loss):
                return TrainingStatus.FAILED, f"The loss is {loss} in epoch {number}."
            if not loop.state_is_finite():
                reason = f"A weight or statistic is not finite after epoch {number}."
                return TrainingStatus.FAILED, reason
            seen = validation if number == self.recipe.epochs else self._glance(validation)
            self.history.append(Epoch(number, loss, evaluate(loop.judged, seen)))
            if self.on_epoch is not None and self.on_epoch(self.history[-1]):
                loop.keep_average()
                return TrainingStatus.STOPPED, None
            # After the listener: an epoch it has not judged is trained again.
            if self.checkpoint is not None and self._is_kept(number, self.checkpoint):
                self._save(loop, self.checkpoint)
        if self._goes_on:
            return TrainingStatus.STOPPED, None
        loop.keep_average()
        return TrainingStatus.OK, None

    def _is_kept(self, number: int, checkpoint: Checkpoint) -> bool:
        """Tell whether the state after an epoch is saved: where it stops, and now and then."""
        return number < self.recipe.epochs and (number == self.until or checkpoint.due)

    def _glance(self, validation: Split) -> Split:
        """Return what is looked at between epochs: as many images as an epoch takes."""
        count = self.recipe.epoch_images or len(validation)
        if self.on_epoch is not None or count >= len(validation):
            return validation
        return Split(validation.images[:count], validation.labels[:count], validation.levels)

    def _save(self, loop: Loop, checkpoint: Checkpoint) -> None:
        rows = [
            (epoch.number, epoch.train_loss, epoch.validation.correct, epoch.validation.total)
            for epoch in self.history
        ]
        checkpoint.save({"loop": loop.state(), "history": rows, "seconds": self.seconds})

    def _resume(self, loop: Loop) -> None:
        state = None if self.checkpoint is None else self.checkpoint.load()
        if state is None:
            return
        loop.load_state(state["loop"])
        self.history = [
            Epoch(number, loss, Accuracy(correct, total))
            for number, loss, correct, total in state["history"]
        ]
        self._earlier_seconds, self.resumed = state["seconds"], len(self.history)

    def _memory_reason(self, error: BaseException) -> str:
        why = (str(error).splitlines() or [""])[0] or type(error).__name__
        return (
            f"Out of memory on {self.device} with batches of {self.recipe.batch_size} images: "
            f"{why}; a smaller batch_size or a smaller network needs less."
        )


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(text in str(error) for text in _NO_MEMORY)


@contextmanager
def _cpu_threads(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(before if threads is None else threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
