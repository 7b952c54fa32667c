"""Low-bit layers as operators: chosen implementations, and custom operators for tracing.

They are for inference: no gradient flows through them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import cast

import torch

from kernels.arbitrary_precision.implementations import (
    CONV,
    LINEAR,
    conv_workload,
    linear_workload,
)
from kernels.arbitrary_precision.operands import Geometry, Weights
from kernels.arbitrary_precision.packed import LowBit
from kernels.arbitrary_precision.precision import Precision
from kernels.device import detect
from kernels.environment import forced_kernel
from kernels.select import load, select

Linear = Callable[[torch.Tensor | LowBit, Weights], torch.Tensor]
Conv = Callable[[torch.Tensor | LowBit, Weights, Geometry], torch.Tensor]


def linear(x: torch.Tensor | LowBit, weights: Weights) -> torch.Tensor:
    """Return a linear layer's output, of the type of a real input, float32 of a low-bit one."""
    if torch.compiler.is_compiling() and isinstance(x, torch.Tensor):
        found: torch.Tensor = low_bit_linear(x, weights.tensors, weights.numbers)
        return found
    return _linear(x, weights)


def conv2d(x: torch.Tensor | LowBit, weights: Weights, geometry: Geometry) -> torch.Tensor:
    """Return a convolution's output, of the type of a real input, float32 of a low-bit one."""
    if torch.compiler.is_compiling() and isinstance(x, torch.Tensor):
        found: torch.Tensor = low_bit_conv2d(x, weights.tensors, weights.numbers, geometry.places)
        return found
    return _conv2d(x, weights, geometry)


@torch.library.custom_op("paretonas::low_bit_linear", mutates_args=())
def low_bit_linear(
    x: torch.Tensor, tensors: list[torch.Tensor], numbers: list[int]
) -> torch.Tensor:
    """Return the output of a linear layer as an operator that tracing sees whole.

    Args:
        x: (..., k).
        tensors: of the weights; see ``Weights``.
        numbers: likewise.
    """
    return _linear(x, Weights.of(tensors, numbers))


@low_bit_linear.register_fake
def _(x: torch.Tensor, tensors: list[torch.Tensor], numbers: list[int]) -> torch.Tensor:
    return x.new_empty((*x.shape[:-1], tensors[0].shape[0]))


@torch.library.custom_op("paretonas::low_bit_conv2d", mutates_args=())
def low_bit_conv2d(
    x: torch.Tensor, tensors: list[torch.Tensor], numbers: list[int], places: list[int]
) -> torch.Tensor:
    """Return the output of a convolution as an operator that tracing sees whole.

    Args:
        x: (b, c, h, w).
        tensors: of the weights; see ``Weights``.
        numbers: likewise.
        places: of the geometry; see ``Geometry``.
    """
    return _conv2d(x, Weights.of(tensors, numbers), Geometry.of(places)).contiguous()


@low_bit_conv2d.register_fake
def _(
    x: torch.Tensor, tensors: list[torch.Tensor], numbers: list[int], places: list[int]
) -> torch.Tensor:
    size = Geometry.of(places).output_size((x.shape[2], x.shape[3]))
    return x.new_empty((x.shape[0], tensors[0].shape[0], *size))


@torch.no_grad()
def _linear(x: torch.Tensor | LowBit, weights: Weights) -> torch.Tensor:
    dtype = _dtype_name(x)
    chosen = _chosen_linear(
        tuple(x.shape), weights.outputs, weights.precision, dtype, _device(x), forced_kernel(LINEAR)
    )
    return _typed(chosen(x, weights), x)


@torch.no_grad()
def _conv2d(x: torch.Tensor | LowBit, weights: Weights, g: Geometry) -> torch.Tensor:
    size = g.output_size((x.shape[2], x.shape[3]))
    chosen = _chosen_conv(
        tuple(x.shape),
        (x.shape[0], weights.outputs, *size),
        g.kernel,
        weights.precision,
        _dtype_name(x),
        _device(x),
        forced_kernel(CONV),
    )
    return _typed(chosen(x, weights, g), x)


@lru_cache(maxsize=4096)
def _chosen_linear(
    shape: tuple[int, ...],
    outputs: int,
    precision: Precision,
    dtype: str,
    device: torch.device,
    forced: str | None,
) -> Linear:
    workload = linear_workload(shape, outputs, precision, dtype=dtype)
    return cast("Linear", load(select(workload, detect(str(device)), force=forced)))


@lru_cache(maxsize=4096)
def _chosen_conv(
    shape: tuple[int, ...],
    output: tuple[int, ...],
    kernel: tuple[int, int],
    precision: Precision,
    dtype: str,
    device: torch.device,
    forced: str | None,
) -> Conv:
    workload = conv_workload(shape, output, kernel, precision, dtype=dtype)
    return cast("Conv", load(select(workload, detect(str(device)), force=forced)))


def _dtype_name(x: torch.Tensor | LowBit) -> str:
    return "codes" if isinstance(x, LowBit) else str(x.dtype).removeprefix("torch.")


def _device(x: torch.Tensor | LowBit) -> torch.device:
    return x.planes.device if isinstance(x, LowBit) else x.device


def _typed(found: torch.Tensor, x: torch.Tensor | LowBit) -> torch.Tensor:
    return found.to(x.dtype) if isinstance(x, torch.Tensor) else found
