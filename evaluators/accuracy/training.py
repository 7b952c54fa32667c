"""Training a candidate by a recipe: fast on small data, reproducible, failures recorded."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from evaluators.accuracy.augment import augment
from evaluators.accuracy.data import Dataset
from evaluators.accuracy.evaluation import check_logits, evaluate, in_mode
from evaluators.accuracy.initialise import initialise, seeded
from evaluators.accuracy.recipe import Recipe
from evaluators.accuracy.score import Accuracy
from kernels.errors import NasError

__all__ = ["Epoch", "TrainingResult", "TrainingStatus", "evaluate", "initialise", "train"]

_ADAM_BETA2 = 0.999
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


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
        validation: accuracy after the pass, of the averaged weights if the recipe averages.
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
    """

    status: TrainingStatus
    reason: str | None
    history: tuple[Epoch, ...]
    validation: Accuracy | None
    wall_seconds: float
    seed: int
    device: str
    threads: int

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

    Returns:
        The result. A loss or weight that is not finite, or a device out of memory, gives status
        ``failed`` with a reason, no exception.

    Raises:
        NasError: the module has no parameters, or does not return logits of the data's classes.
    """
    start = time.perf_counter()
    target = torch.device(device)
    with _cpu_threads(threads), seeded(seed, target):
        status, reason, history = _run(module, dataset, recipe, seed, target, on_epoch)
        return TrainingResult(
            status=status,
            reason=reason,
            history=tuple(history),
            validation=None if status is TrainingStatus.FAILED else history[-1].validation,
            wall_seconds=time.perf_counter() - start,
            seed=seed,
            device=str(target),
            threads=torch.get_num_threads(),
        )


def _run(
    module: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    seed: int,
    device: torch.device,
    on_epoch: Callable[[Epoch], bool | None] | None,
) -> tuple[TrainingStatus, str | None, list[Epoch]]:
    history: list[Epoch] = []
    try:
        loop = _Loop(module, dataset, recipe, seed, device)
        validation = dataset.validation.to(device)
        for number in range(1, recipe.epochs + 1):
            loss = loop.run_epoch()
            if not math.isfinite(loss):
                return TrainingStatus.FAILED, f"The loss is {loss} in epoch {number}.", history
            if not loop.state_is_finite():
                reason = f"A weight or statistic is not finite after epoch {number}."
                return TrainingStatus.FAILED, reason, history
            history.append(Epoch(number, loss, evaluate(loop.judged, validation)))
            if on_epoch is not None and on_epoch(history[-1]):
                loop.keep_average()
                return TrainingStatus.STOPPED, None, history
        loop.keep_average()
    except torch.OutOfMemoryError as error:
        return TrainingStatus.FAILED, f"Out of memory: {error}", history
    return TrainingStatus.OK, None, history


class _Loop:
    """The state that steps share."""

    def __init__(
        self, module: nn.Module, dataset: Dataset, recipe: Recipe, seed: int, device: torch.device
    ) -> None:
        self.module = module.to(device)
        self.recipe = recipe
        self.classes = dataset.classes
        self.data = dataset.train.to(device)
        self.black = torch.tensor(dataset.black, device=device).view(-1, 1, 1)
        self.generator = torch.Generator().manual_seed(seed)
        self.optimiser = _optimiser(module, recipe)
        self.average = _average(module, recipe)
        self.batch_size = min(recipe.batch_size, len(self.data))
        self.steps_an_epoch = len(self.data) // self.batch_size
        self.step = 0

    @property
    def judged(self) -> nn.Module:
        """What is validated: the averaged module if there is one."""
        return self.module if self.average is None else self.average.module

    def run_epoch(self) -> float:
        """Take every step of one epoch and return the mean loss."""
        order = torch.randperm(len(self.data), generator=self.generator).to(self.black.device)
        total = torch.zeros((), device=self.black.device)
        with in_mode(self.module, training=True):
            for step in range(self.steps_an_epoch):
                start = step * self.batch_size
                total += self._take_step(order[start : start + self.batch_size])
        return float(total) / self.steps_an_epoch

    def _take_step(self, index: torch.Tensor) -> torch.Tensor:
        recipe, images = self.recipe, self.data.images[index]
        images = augment(images, recipe.augmentation, black=self.black, generator=self.generator)
        progress = self.step / (self.steps_an_epoch * recipe.epochs)
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.learning_rate_at(progress)
        logits = self.module(images)
        if self.step == 0:
            self._check_classes(logits, images)
        loss = nn.functional.cross_entropy(
            logits, self.data.labels[index], label_smoothing=recipe.label_smoothing
        )
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        if recipe.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.module.parameters(), recipe.gradient_clip)
        self.optimiser.step()
        if self.average is not None:
            self.average.update_parameters(self.module)
        self.step += 1
        return loss.detach()

    def _check_classes(self, logits: torch.Tensor, images: torch.Tensor) -> None:
        check_logits(logits, images)
        if logits.shape[1] != self.classes:
            raise NasError(f"Expected logits of {self.classes} classes, got {logits.shape[1]}.")

    def state_is_finite(self) -> bool:
        """Tell whether the last step left every parameter finite and no buffer NaN."""
        # An infinite buffer can be meant: an attention mask.
        return all(bool(p.isfinite().all()) for p in self.module.parameters()) and not any(
            bool(b.isnan().any()) for b in self.module.buffers()
        )

    def keep_average(self) -> None:
        """Give the module the averaged weights, if the recipe averages."""
        if self.average is not None:
            self.module.load_state_dict(self.average.module.state_dict())


def _optimiser(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    decayed, plain = _parameter_groups(module)
    if not decayed and not plain:
        raise NasError("The module has no parameters to train.")
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    # Fused: one call for all of a group's tensors; small tensors are all overhead otherwise.
    if recipe.optimiser == "adamw":
        betas = (recipe.momentum, _ADAM_BETA2)
        return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=betas, fused=True)
    return torch.optim.SGD(
        groups,
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        fused=True,
    )


def _parameter_groups(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return parameters with weight decay, and norms and biases without; shared ones once."""
    decayed: dict[int, nn.Parameter] = {}
    plain: dict[int, nn.Parameter] = {}
    for child in module.modules():
        for parameter in child.parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in decayed.keys() | plain.keys():
                continue
            exempt = parameter.ndim <= 1 or isinstance(child, _NORMS)
            (plain if exempt else decayed)[id(parameter)] = parameter
    return list(decayed.values()), list(plain.values())


def _average(module: nn.Module, recipe: Recipe) -> AveragedModel | None:
    if recipe.ema_decay is None:
        return None
    update = get_ema_multi_avg_fn(recipe.ema_decay)  # type: ignore[no-untyped-call]
    return AveragedModel(module, multi_avg_fn=update, use_buffers=True)


@contextmanager
def _cpu_threads(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(before if threads is None else threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
