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
from evaluators.accuracy.data import AnyDataset
from evaluators.accuracy.evaluation import evaluate
from evaluators.accuracy.initialise import initialise, seeded
from evaluators.accuracy.loop import Loop
from evaluators.accuracy.recipe import Recipe
from evaluators.accuracy.score import Score
from evaluators.accuracy.tasks import make_task

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
        validation: the score after the pass, of the averaged weights if the recipe averages; where
            a recipe limits the images or sequences of an epoch, on as many of the validation split
            until the last.
    """

    number: int
    train_loss: float
    validation: Score


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a training gave and under which conditions.

    Args:
        status: ``ok``; ``stopped`` by ``on_epoch``; ``failed`` for ``reason``.
        reason: why it failed; None otherwise.
        history: the epochs that ended with finite figures.
        validation: score of the kept weights on the validation split; None when failed.
        wall_seconds: of the whole call, validation included.
        seed: the seed of shuffling, augmentation and dropout.
        device: where it ran.
        threads: torch's CPU threads: sums round differently with their number.
        resumed: epochs that an earlier call made.
    """

    status: TrainingStatus
    reason: str | None
    history: tuple[Epoch, ...]
    validation: Score | None
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
    dataset: AnyDataset,
    recipe: Recipe,
    *,
    seed: int,
    device: str | torch.device = "cpu",
    threads: int | None = None,
    on_epoch: Callable[[Epoch], bool | None] | None = None,
    checkpoint: Path | None = None,
    keep_checkpoint: bool = False,
    until: int | None = None,
) -> TrainingResult:
    """Fit ``module`` in place, from the weights it has, and validate it after every epoch.

    On the CPU the same module, data, recipe, seed and threads give bit-equal weights; call
    ``initialise`` first for fresh ones. No global RNG and no thread setting stays changed. The
    weights of the last epoch are kept, never those of the best: the validation split selects
    between candidates, not within one.

    Args:
        module: images ``(b, c, h, w)`` to logits ``(b, classes)``, or token ids ``(b, tokens)`` to
            logits ``(b, tokens, classes)``; moved to ``device``, its mode is restored.
        dataset: held on ``device`` as a whole.
        recipe: how to train.
        seed: of shuffling, augmentation and the module's own randomness (dropout).
        device: where to train.
        threads: torch's CPU threads during the call; unchanged by default. NOTE: 1 is best for
            small images: on 2 cores with one busy, 2 threads took 59 s where 1 took 0.4 s (OpenMP
            threads spin at each barrier; OMP_WAIT_POLICY=PASSIVE in the environment helps).
        on_epoch: called after each epoch; True ends the training there with status ``stopped``.
        checkpoint: a file that the state is saved to each epoch, or each second where epochs are
            shorter, and that is removed at the end. A killed training goes on from it; on the CPU
            the end is bit-equal. A file of another training, or a damaged one, is replaced.
        keep_checkpoint: leave the file for the caller to remove, as when the weights are safe.
        until: ends after this epoch, with status ``stopped`` and the state in the checkpoint, from
            which a later call goes on.

    Returns:
        The result. A loss or weight that is not finite, or a device out of memory, gives status
        ``failed`` with a reason, no exception.

    Raises:
        NasError: the module has no parameters, does not return logits of the data's classes, or
            the recipe is for other data.
    """
    target = torch.device(device)
    with _cpu_threads(threads), seeded(seed, target):
        run = _Run(module, dataset, recipe, seed, target, on_epoch)
        if checkpoint is not None:
            digest = run_digest(module, dataset, recipe, seed=seed, device=target)
            run.checkpoint = Checkpoint(checkpoint, digest)
        run.until = until or recipe.epochs
        return run.result(*run.to_the_end(keep_checkpoint))


class _Run:
    """One call of :func:`train`: epochs, their history, and the checkpoint."""

    def __init__(
        self,
        module: nn.Module,
        dataset: AnyDataset,
        recipe: Recipe,
        seed: int,
        device: torch.device,
        on_epoch: Callable[[Epoch], bool | None] | None,
    ) -> None:
        self.module, self.recipe = module, recipe
        self.task = make_task(dataset, recipe, device)
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

    def to_the_end(self, keep_checkpoint: bool) -> tuple[TrainingStatus, str | None]:
        """Train, and remove the checkpoint; it stays if an exception ends the training."""
        try:
            outcome = self._epochs()
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            outcome = TrainingStatus.FAILED, self._memory_reason(error)
        if self.recipe.channels_last:
            self.module.to(memory_format=torch.contiguous_format)
        if self.checkpoint is not None and not keep_checkpoint and not self._goes_on:
            self.checkpoint.remove()
        return outcome

    def result(self, status: TrainingStatus, reason: str | None) -> TrainingResult:
        """Say how it ended."""
        return TrainingResult(
            status=status,
            reason=reason,
            history=tuple(self.history),
            validation=None if status is TrainingStatus.FAILED else self.history[-1].validation,
            wall_seconds=self.seconds,
            seed=self.seed,
            device=str(self.device),
            threads=torch.get_num_threads(),
            resumed=self.resumed,
        )

    @property
    def _goes_on(self) -> bool:
        """Whether a later call is to go on from here."""
        return self.until < self.recipe.epochs

    def _epochs(self) -> tuple[TrainingStatus, str | None]:
        loop = Loop(self.module, self.task, self.recipe, self.seed, self.device)
        self._resume(loop)
        for number in range(len(self.history) + 1, self.until + 1):
            loss = loop.run_epoch()
            if not math.isfinite(loss):
                return TrainingStatus.FAILED, f"The loss is {loss} in epoch {number}."
            if not loop.state_is_finite():
                reason = f"A weight or statistic is not finite after epoch {number}."
                return TrainingStatus.FAILED, reason
            most = None if number == self.recipe.epochs else self._glance
            self.history.append(Epoch(number, loss, self.task.validate(loop.judged, most)))
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

    @property
    def _glance(self) -> int | None:
        """How much is looked at between epochs: as many samples as an epoch takes; None: all."""
        return None if self.on_epoch is not None else self.recipe.epoch_images

    def _save(self, loop: Loop, checkpoint: Checkpoint) -> None:
        rows = [(epoch.number, epoch.train_loss, *epoch.validation.row()) for epoch in self.history]
        checkpoint.save({"loop": loop.state(), "history": rows, "seconds": self.seconds})

    def _resume(self, loop: Loop) -> None:
        state = None if self.checkpoint is None else self.checkpoint.load()
        if state is None:
            return
        loop.load_state(state["loop"])
        self.history = [
            Epoch(number, loss, self.task.score(*row)) for number, loss, *row in state["history"]
        ]
        self._earlier_seconds, self.resumed = state["seconds"], len(self.history)

    def _memory_reason(self, error: BaseException) -> str:
        why = (str(error).splitlines() or [""])[0] or type(error).__name__
        return (
            f"Out of memory on {self.device} with batches of {self.recipe.batch_size} "
            f"{self.task.unit}: "
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
