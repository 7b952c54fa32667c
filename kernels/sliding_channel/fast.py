"""Sliding-channel convolution by the CUDA kernels: custom operator, fake and autograd rules.

The operator also runs where no kernel does (another type, device or shape), as the dense product:
a graph that was traced on one machine stays valid on the next. Outputs are channels-last.
"""

from __future__ import annotations

from typing import Any

import torch

from kernels.sliding_channel.grouped import read_shift
from kernels.sliding_channel.plan import Structure
from kernels.sliding_channel.routes import gradients, prepare, product


def sliding_channel_conv2d_cuda(
    x: torch.Tensor,
    weight: torch.Tensor,
    starts: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    shift: int | None = None,
) -> torch.Tensor:
    """Sliding-channel convolution of x (b, c_in, h, w): y is (b, c_out, h, w), channels-last.

    Args:
        x: input; made channels-last if it is not.
        weight: (c_out, gw), of the type of ``x``. Under autocast both are cast.
        starts: first input channel of each window, (c_out,): multiples of one shift.
        bias: (c_out,).
        shift: the shift; None reads it from ``starts``, which waits for the GPU.

    Raises:
        NasError: ``starts`` are no multiples of one shift.
    """
    shift = read_shift(starts, x.shape[1]) if shift is None else shift
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    if torch.compiler.is_compiling():
        y: torch.Tensor = sliding_channel(x, weight, bias, shift)
        return y
    return _Eager.apply(x, weight, bias, shift)  # type: ignore[no-any-return]


@torch.library.custom_op("paretonas::sliding_channel", mutates_args=())
def sliding_channel(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, shift: int
) -> torch.Tensor:
    """Return the product as an operator that tracing sees whole; see the function above."""
    s = _structure(x, weight, shift)
    return product(x, prepare(weight, s, x, training=False)[0], bias, s)


@sliding_channel.register_fake
def _(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, shift: int) -> torch.Tensor:
    return _like(x, weight.shape[0])


@torch.library.custom_op("paretonas::sliding_channel_backward", mutates_args=())
def sliding_channel_backward(
    dy: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, shift: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients of input and weights."""
    s = _structure(x, weight, shift)
    _, prepared = prepare(weight, s, x, training=True)
    assert prepared is not None
    dx, dw = gradients(dy, x, prepared, s)
    assert dx is not None
    assert dw is not None
    return dx, dw


@sliding_channel_backward.register_fake
def _(
    dy: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, shift: int
) -> tuple[torch.Tensor, torch.Tensor]:
    return _like(x, x.shape[1]), torch.empty_like(weight, memory_format=torch.contiguous_format)


def _save(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, weight, bias, ctx.shift = inputs
    ctx.save_for_backward(x, weight)
    ctx.biased = bias is not None


def _traced_backward(ctx: Any, dy: torch.Tensor) -> tuple[Any, ...]:
    x, weight = ctx.saved_tensors
    dx, dw = sliding_channel_backward(dy, x, weight, ctx.shift)
    return dx, dw, dy.sum((0, 2, 3)) if ctx.biased else None, None


sliding_channel.register_autograd(_traced_backward, setup_context=_save)


class _Eager(torch.autograd.Function):
    """The same without the dispatcher, which costs tens of microseconds a call."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, shift: int
    ) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.structure = s = _structure(x, weight, shift)
        prepared, ctx.prepared = prepare(weight, s, x, training=any(ctx.needs_input_grad[:2]))
        return product(x, prepared, bias, s)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        wants = ctx.needs_input_grad
        dx, dw = gradients(dy, x, ctx.prepared, ctx.structure, (wants[0], wants[1]))
        return dx, dw, dy.sum((0, 2, 3)) if wants[2] else None, None


def _structure(x: torch.Tensor, weight: torch.Tensor, shift: int) -> Structure:
    return Structure(x.shape[1], weight.shape[0], weight.shape[1], shift)


def _like(x: torch.Tensor, channels: int) -> torch.Tensor:
    shape = (x.shape[0], channels, x.shape[2], x.shape[3])
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
