"""Low-bit layers as operators: chosen implementations, and custom operators for tracing.

Weights are packed and get no gradient. One passes to the input straight through the rounding,
where the input is in range, so that what lies before such a layer can be tuned.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import torch
from torch.nn.grad import conv2d_input

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
    if isinstance(x, torch.Tensor) and _is_traced(x):
        found: torch.Tensor = low_bit_linear(x, weights.tensors, weights.numbers)
        return found
    return _linear(x, weights)


def conv2d(x: torch.Tensor | LowBit, weights: Weights, geometry: Geometry) -> torch.Tensor:
    """Return a convolution's output, of the type of a real input, float32 of a low-bit one."""
    if isinstance(x, torch.Tensor) and _is_traced(x):
        found: torch.Tensor = low_bit_conv2d(x, weights.tensors, weights.numbers, geometry.places)
        return found
    return _conv2d(x, weights, geometry)


def _is_traced(x: torch.Tensor) -> bool:
    return torch.compiler.is_compiling() or (x.requires_grad and torch.is_grad_enabled())


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


def _save(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, tensors, *ctx.numbers = inputs
    ctx.save_for_backward(x, *tensors)


def _dense(ctx: Any) -> tuple[torch.Tensor, Weights, torch.Tensor]:
    """Return a layer's input, its weights, and these as real numbers (m, c, taps)."""
    x, *tensors = ctx.saved_tensors
    weights = Weights.of(tensors, ctx.numbers[0])
    scale = (weights.factor / weights.step)[:, None, None]
    return x, weights, (weights.matrix(torch.float32) * scale).to(x.dtype)


def _in_range(dx: torch.Tensor, x: torch.Tensor, weights: Weights) -> torch.Tensor:
    ratio = x / weights.step
    return dx * ((ratio >= weights.inputs.lowest) & (ratio <= weights.inputs.highest))


def _nothing(ctx: Any) -> list[Any]:
    """Return what stands for no gradient of the weights and of each list of numbers."""
    return [[None] * (len(ctx.saved_tensors) - 1), *[None] * len(ctx.numbers)]


def _linear_backward(ctx: Any, dy: torch.Tensor) -> tuple[Any, ...]:
    x, weights, dense = _dense(ctx)
    return _in_range(dy @ dense.squeeze(2), x, weights), *_nothing(ctx)


def _conv2d_backward(ctx: Any, dy: torch.Tensor) -> tuple[Any, ...]:
    x, weights, dense = _dense(ctx)
    g = Geometry.of(ctx.numbers[1])
    dense = dense.view(weights.outputs, -1, *g.kernel)
    places = g.stride, g.padding, g.dilation
    dx = conv2d_input(list(x.shape), dense, dy, *places)  # type: ignore[no-untyped-call]
    return _in_range(dx, x, weights), *_nothing(ctx)


low_bit_linear.register_autograd(_linear_backward, setup_context=_save)
low_bit_conv2d.register_autograd(_conv2d_backward, setup_context=_save)


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
