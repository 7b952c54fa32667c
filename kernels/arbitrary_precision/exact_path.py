"""The path that runs everywhere: whole numbers through the library's floating-point products."""

from __future__ import annotations

import torch

from kernels.arbitrary_precision import exact
from kernels.arbitrary_precision.operands import Geometry, Weights, input_integers, real
from kernels.arbitrary_precision.packed import LowBit


def linear(x: torch.Tensor | LowBit, weights: Weights) -> torch.Tensor:
    """Return the layer's output (..., m), float32."""
    dtype = exact.working_dtype(weights.precision.weights, weights.inputs, weights.features)
    product = exact.linear(input_integers(x, weights, dtype), weights.matrix(dtype).squeeze(2))
    return real(product, weights, -1).float()


def conv2d(x: torch.Tensor | LowBit, weights: Weights, geometry: Geometry) -> torch.Tensor:
    """Return the layer's output (b, m, h, w), float32; the real zero is 0, so padding is too."""
    k = weights.features * geometry.taps
    dtype = exact.working_dtype(weights.precision.weights, weights.inputs, k)
    product = exact.conv2d(
        input_integers(x, weights, dtype),
        weights.matrix(dtype).view(weights.outputs, -1, *geometry.kernel),
        stride=geometry.stride,
        padding=geometry.padding,
        dilation=geometry.dilation,
    )
    return real(product, weights, 1).float()
