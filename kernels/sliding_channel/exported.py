"""The operator that a graph of ``torch.export`` holds: its implementation is chosen where it runs.

A graph that is traced at a batch of 2 may run at any batch, on another machine, on another device.
The choice of tracing time would be wrong there: on a CPU it was the dense matrix, built anew in
every pass, and networks came out a third slower than the modules they were traced from.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch

from kernels.sliding_channel import dense
from kernels.sliding_channel.choice import Settings, product_for


@torch.library.custom_op("paretonas::sliding_channel_conv2d", mutates_args=())
def sliding_channel_conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    starts: torch.Tensor,
    bias: torch.Tensor | None,
    cg: int,
    co: str,
    rule: str,
    order: str,
) -> torch.Tensor:
    """Map x (b, c_in, h, w) to (b, c_out, h, w), laid out in memory as ``x`` is.

    Args:
        x: input.
        weight: (c_out, c_in / cg).
        starts: first input channel of each window, (c_out,).
        bias: (c_out,).
        cg: number of channel groups.
        co: overlap ratio, as text.
        rule: rounding rule of the windows.
        order: order of the windows.
    """
    settings = cast("Settings", (x.shape[1], weight.shape[0], cg, co, rule, order))
    y = product_for(x, settings)(x, weight, starts, bias)
    return y.contiguous(memory_format=_format(x))


@sliding_channel_conv2d.register_fake
def _(
    x: torch.Tensor,
    weight: torch.Tensor,
    starts: torch.Tensor,
    bias: torch.Tensor | None,
    cg: int,
    co: str,
    rule: str,
    order: str,
) -> torch.Tensor:
    shape = (x.shape[0], weight.shape[0], *x.shape[2:])
    return x.new_empty(shape).contiguous(memory_format=_format(x))


def _save(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, weight, starts, bias, *_ = inputs
    ctx.save_for_backward(x, weight, starts)
    ctx.biased = bias is not None


def _backward(ctx: Any, dy: torch.Tensor) -> tuple[Any, ...]:
    """Return the gradients by the dense matrix: such graphs are for inference above all."""
    x, weight, starts = ctx.saved_tensors
    product = partial(dense.sliding_channel_conv2d, starts=starts)
    gradients: Any = torch.func.vjp(product, x, weight)[1]
    dx, dw = gradients(dy)
    dbias = dy.sum((0, 2, 3)) if ctx.biased else None
    return dx, dw, None, dbias, None, None, None, None


sliding_channel_conv2d.register_autograd(_backward, setup_context=_save)


def _format(x: torch.Tensor) -> torch.memory_format:
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format
