"""Layers of torch that multiply in extended precision, and putting them into a model."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from kernels.errors import NasError
from kernels.extended_precision.functional import implementation_of, linear, pointwise_conv2d
from kernels.extended_precision.launch import run_split
from kernels.extended_precision.routes import SWIZZLED, multiply_split
from kernels.extended_precision.split import SplitMatrix


class Linear(nn.Linear):
    """``nn.Linear`` by the extended-precision product; state dicts are the same.

    Without gradients the split of the weight is kept until the weight changes.

    Example:
        >>> Linear(8, 4)(torch.randn(2, 3, 8)).shape
        torch.Size([2, 3, 4])
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x (.., in_features) to (.., out_features)."""
        if torch.compiler.is_compiling() or _wants_gradients(x, self.weight, self.bias):
            return linear(x, self.weight, self.bias)
        name = implementation_of(x, self.weight)
        if name not in SWIZZLED or x.dim() < 2 or x.numel() == 0 or self.weight.numel() == 0:
            return linear(x, self.weight, self.bias)
        rows = run_split(x.flatten(0, -2)[None], swizzled=SWIZZLED[name])
        added = None if self.bias is None else self.bias[None, None]
        y = multiply_split(rows, self._split(SWIZZLED[name]), added, 1.0, 1.0)
        return y.view(*x.shape[:-1], self.out_features)

    def _split(self, swizzled: bool) -> SplitMatrix:
        weight = self.weight.detach()
        if weight.is_inference():  # such tensors do not count their changes
            return run_split(weight[None], swizzled=swizzled)
        now = (weight._version, weight.data_ptr(), weight.device, swizzled)
        kept: tuple[object, SplitMatrix] | None = self.__dict__.get("_kept")
        if kept is None or kept[0] != now:
            kept = now, run_split(weight[None], swizzled=swizzled)
            self.__dict__["_kept"] = kept
        return kept[1]

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled and copied: all but the split of the weight."""
        return {name: value for name, value in self.__dict__.items() if name != "_kept"}


class PointwiseConv2d(nn.Conv2d):
    """``nn.Conv2d`` of kernel size 1 by the extended-precision product.

    Raises:
        NasError: a convolution with a larger kernel, padding, groups or dilation.

    Example:
        >>> PointwiseConv2d(8, 4, 1)(torch.randn(2, 8, 5, 5)).shape
        torch.Size([2, 4, 5, 5])
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not is_pointwise(self):
            raise NasError(f"Expected a plain 1x1 convolution, got {self}.")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x (b, in_channels, h, w) to (b, out_channels, h / stride, w / stride)."""
        stride = (self.stride[0], self.stride[1])
        return pointwise_conv2d(x, self.weight, self.bias, stride)


def is_pointwise(layer: nn.Conv2d) -> bool:
    """Tell whether a convolution is a matrix product: 1x1, one group, no padding."""
    plain = layer.kernel_size == (1, 1) and layer.groups == 1
    return plain and layer.padding in ((0, 0), "valid")


def to_extended_precision(model: nn.Module) -> nn.Module:
    """Return a copy of a model whose linear layers and 1x1 convolutions are those of this file.

    Names, weights and hooks stay. Subclasses of torch's layers stay as they are.

    Raises:
        NasError: there is no such layer.

    Example:
        >>> to_extended_precision(nn.Sequential(nn.Linear(8, 4), nn.ReLU()))
        Sequential(
          (0): Linear(in_features=8, out_features=4, bias=True)
          (1): ReLU()
        )
    """
    changed = copy.deepcopy(model)
    count = 0
    for layer in changed.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = Linear
        elif type(layer) is nn.Conv2d and is_pointwise(layer):
            layer.__class__ = PointwiseConv2d
        else:
            continue
        count += 1
    if not count:
        raise NasError(
            "Nothing to replace: expected linear layers or 1x1 convolutions in "
            f"{type(model).__name__}."
        )
    return changed


def _wants_gradients(*tensors: torch.Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
