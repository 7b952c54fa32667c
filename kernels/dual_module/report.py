"""What dual layers did: how much kept the estimate, at what error, and what that saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from kernels.dual_module.calibrate import Estimating, Run, estimating_layers, watch
from kernels.dual_module.linear import DualModuleLinear
from kernels.dual_module.sizes import Cost


@dataclass(frozen=True, slots=True)
class LayerReport:
    """What a linear layer or convolution did with some inputs.

    Attributes:
        name: of the layer.
        ratio: share of rows that kept the estimate.
        error: norm of the activations' change over the norm of the exact ones.
        false_skips: share of the kept rows that are positive in truth (ReLU); 0 for others.
        memory_ratio: bytes read over the dense layer's, the projection left out.
        full_memory_ratio: the same with the projection.
        operation_ratios: by counting rule, see ``Cost.operation_ratio``.
    """

    name: str
    ratio: float
    error: float
    false_skips: float
    memory_ratio: float
    full_memory_ratio: float
    operation_ratios: Mapping[str, float]


@torch.no_grad()
def report(model: nn.Module, run: Run) -> list[LayerReport]:
    """Return what the linear layers and convolutions of a model do with some inputs.

    Args:
        model: with fitted little modules and thresholds.
        run: puts the data through the model.
    """
    layers = estimating_layers(model)
    sums = {name: _Sums() for name in layers}
    watch(layers, lambda name, given: sums[name].add(layers[name], *given), run)
    return [sums[name].report(name, layers[name]) for name in layers]


def _projection(layer: Estimating) -> dict[str, int]:
    """Return what the projection of a convolution is, for its cost."""
    if isinstance(layer, DualModuleLinear):
        return {}
    down, across = layer.conv.stride
    signs = layer.projection.inputs * layer.projection.outputs
    return {"signs": signs, "turns": int(down) * int(across)}


class _Sums:
    """What is added up over the calls of one layer."""

    def __init__(self) -> None:
        self.rows = self.kept = self.false = 0
        self.error = self.size = 0.0

    def add(self, layer: Estimating, *given: Any) -> None:
        switch, estimate, exact = layer.switch, layer.estimate(*given), layer.big(*given)
        mask = switch(estimate)
        mixed = switch.apply_activation(torch.where(mask, exact, estimate.to(exact.dtype)))
        wanted = switch.apply_activation(exact)
        self.rows += mask.numel()
        self.kept += int((~mask).sum())
        self.false += int((~mask & (exact > 0)).sum()) if switch.activation == "relu" else 0
        self.error += float((mixed - wanted).double().square().sum())
        self.size += float(wanted.double().square().sum())

    def report(self, name: str, layer: Estimating) -> LayerReport:
        ratio = self.kept / max(self.rows, 1)
        weight = layer.weight if isinstance(layer, DualModuleLinear) else layer.conv.weight
        (estimator,) = layer.estimators()
        cost = Cost(
            len(weight),
            weight[0].numel(),
            estimator.codes.shape[1],
            estimator.bits,
            ratio,
            weight.element_size(),
            **_projection(layer),
        )
        return LayerReport(
            name,
            ratio,
            (self.error / self.size) ** 0.5 if self.size else 0.0,
            self.false / self.kept if self.kept else 0.0,
            cost.memory_ratio,
            cost.full_memory_ratio,
            {rule: cost.operation_ratio(rule) for rule in ("free", "weighted", "full")},
        )
