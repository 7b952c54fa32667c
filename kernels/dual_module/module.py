"""Dual layers as networks are written with them: by sizes, exact until they are calibrated."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from kernels.dual_module.fit import quantise
from kernels.dual_module.linear import DualModuleFFN, DualModuleLinear
from kernels.dual_module.projection import unpack_signs
from kernels.dual_module.regions import Activation


class DualLinear(DualModuleLinear):
    """A fully connected layer and its activation with a little module.

    Args:
        inputs: d.
        outputs: n.
        activation: what follows.
        bias: whether there is one.
        settings: of the little module; see :class:`DualModuleLinear`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        activation: Activation,
        *,
        bias: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(nn.Linear(inputs, outputs, bias=bias), activation, **settings)


class DualFeedForward(DualModuleFFN):
    """Two fully connected layers with ReLU between them and one little module.

    Args:
        inputs: d.
        hidden: n.
        outputs: m.
        bias: whether the first and the second layer have one.
        settings: of the little module; see :class:`DualModuleFFN`.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        outputs: int,
        *,
        bias: tuple[bool, bool] = (True, True),
        **settings: Any,
    ) -> None:
        first, second = (
            nn.Linear(a, b, bias=has)
            for a, b, has in zip((inputs, hidden), (hidden, outputs), bias, strict=True)
        )
        super().__init__(first, second, **settings)


@torch.no_grad()
def fit_blindly(layer: DualModuleLinear) -> None:
    """Fit a little module without data, to inputs that are independent and equally large.

    Real inputs are correlated: ``calibrate.fit``, which reads them, errs less.
    """
    signs = unpack_signs(layer.little.signs[0], layer.weight.shape[1]).double()
    scale = (3 / len(signs)) ** 0.5
    apart = signs @ signs.T + 1e-6 * torch.eye(len(signs), dtype=torch.float64)
    weights = torch.linalg.solve(apart, signs @ layer.weight.double().T).T / scale
    estimator = layer.little.estimator
    codes, scales = quantise(weights.float(), estimator.bits, per_row=True)
    estimator.codes.copy_(codes)
    estimator.scale.copy_(scales.squeeze(1))
    estimator.bias.copy_(torch.zeros(()) if layer.bias is None else layer.bias)
