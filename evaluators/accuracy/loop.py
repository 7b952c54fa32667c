"""The steps of a training and all the state they share, which a checkpoint can hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from evaluators.accuracy.evaluation import in_mode
from evaluators.accuracy.graphed import GraphedGradients
from evaluators.accuracy.recipe import Recipe
from evaluators.accuracy.tasks import Task
from kernels.errors import NasError

_LOOK = 64
"""Steps after which a loss that is no number ends an epoch early."""
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


class Loop:
    """The state that steps share."""

    def __init__(
        self, module: nn.Module, task: Task, recipe: Recipe, seed: int, device: torch.device
    ) -> None:
        self.module = module.to(device)
        if recipe.channels_last:
            module.to(memory_format=torch.channels_last)
        self.task, self.device, self.recipe = task, device, recipe
        self.generator = torch.Generator().manual_seed(seed)
        self.optimiser = make_optimiser(module, recipe)
        self.average = _average(module, recipe)
        samples = min(recipe.epoch_images or task.samples, task.samples)
        self.batch_size = min(recipe.batch_size, samples)
        self.steps_an_epoch = samples // self.batch_size
        self.step = 0
        self._forward: Callable[..., torch.Tensor] = (
            torch.compile(module) if recipe.compile else module
        )
        graphed = device.type == "cuda" and not recipe.compile
        self._gradients = GraphedGradients(self._fill, device) if graphed else self._fill

    @property
    def judged(self) -> nn.Module:
        """What is validated: the averaged module if there is one."""
        return self.module if self.average is None else self.average.module

    def run_epoch(self) -> float:
        """Take every step of one epoch and return the mean loss; of what is no number, at once."""
        order = torch.randperm(self.task.samples, generator=self.generator)
        total = torch.zeros((), device=self.device)
        with in_mode(self.module, training=True):
            for step in range(self.steps_an_epoch):
                start = step * self.batch_size
                total += self._take_step(order[start : start + self.batch_size])
                if step % _LOOK == _LOOK - 1 and not math.isfinite(total):
                    return float(total)
        return float(total) / self.steps_an_epoch

    def _take_step(self, index: torch.Tensor) -> torch.Tensor:
        recipe = self.recipe
        inputs, targets = self.task.batch(index, self.generator)
        progress = self.step / (self.steps_an_epoch * recipe.epochs)
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.learning_rate_at(progress)
        loss = self._gradients(inputs, targets)
        self.optimiser.step()
        if self.average is not None:
            self.average.update_parameters(self.module)
        self.step += 1
        return loss

    def _fill(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Fill the gradients of a batch, clipped, and return its loss."""
        recipe = self.recipe
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=recipe.mixed_precision == "bf16"
        ):
            outputs = self._forward(inputs)
        if self.step == 0:
            self.task.check(outputs, inputs)
        loss = self.task.loss(outputs, targets)
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        if recipe.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.module.parameters(), recipe.gradient_clip)
        return loss.detach()

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

    def state(self) -> dict[str, Any]:
        """Return all that the next epoch depends on: plain values and tensors, not copied."""
        on_gpu = self.device.type == "cuda"
        return {
            "step": self.step,
            "module": self.module.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "generator": self.generator.get_state(),
            "cpu": torch.get_rng_state(),
            "gpu": torch.cuda.get_rng_state(self.device) if on_gpu else None,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` gave in a loop made of the same arguments."""
        self.step = state["step"]
        self.module.load_state_dict(state["module"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["cpu"])
        if state["gpu"] is not None:
            torch.cuda.set_rng_state(state["gpu"], self.device)


def make_optimiser(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimiser; weight decay is for filters and matrices only.

    Raises:
        NasError: the module has no parameters.
    """
    decayed, plain = parameter_groups(module)
    if not decayed and not plain:
        raise NasError("The module has no parameters to train.")
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    # Fused: one call for all of a group's tensors; small tensors are all overhead otherwise.
    if recipe.optimiser == "adamw":
        betas = (recipe.momentum, recipe.beta2)
        return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=betas, fused=True)
    return torch.optim.SGD(
        groups,
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        fused=True,
    )


def parameter_groups(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
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
