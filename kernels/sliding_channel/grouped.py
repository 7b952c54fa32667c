"""Sliding-channel convolution as one batched matrix product per window, for any device and type.

Outputs that share a window are rows of one small matrix, and its product with the window's
channels is written straight to every period-th output channel. No multiplication is wasted on
channels outside the window; a NaN there reaches no output.
"""

from __future__ import annotations

from typing import Any

import torch

from kernels.errors import NasError


def sliding_channel_conv2d_grouped(
    x: torch.Tensor,
    weight: torch.Tensor,
    starts: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    shift: int | None = None,
) -> torch.Tensor:
    """Sliding-channel convolution of x (b, c_in, h, w): y is (b, c_out, h, w), contiguous.

    Args:
        x: input; made contiguous if it is not.
        weight: (c_out, gw).
        starts: first input channel of each window, (c_out,): multiples of one shift.
        bias: (c_out,).
        shift: the shift; None reads it from ``starts``, which waits for a GPU.

    Raises:
        NasError: ``starts`` are no multiples of one shift.
    """
    shift = read_shift(starts, x.shape[1]) if shift is None else shift
    y: torch.Tensor = _Grouped.apply(x, weight, shift)
    return y if bias is None else y + bias[:, None, None]


def read_shift(starts: torch.Tensor, c_in: int) -> int:
    """Return the shift of which the starts are multiples, modulo ``c_in``.

    Raises:
        NasError: there is none.
    """
    values = starts.tolist()
    shift = values[1] if len(values) > 1 else 0
    if values != [o * shift % c_in for o in range(len(values))]:
        raise NasError(
            "The windows do not move by a whole number of channels. Use the implementation "
            "'dense', or a co for which (1 - co) * c_in / cg is whole."
        )
    return shift or c_in


class _Grouped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, shift: int) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.shift = shift
        batch, _, height, width = x.shape
        y = x.new_empty(batch, weight.shape[0], height, width)
        flat, out = x.flatten(2), y.flatten(2)
        for rows, spans in _windows(x.shape[1], weight, shift):
            share = out[:, rows]
            for number, (channels, columns) in enumerate(spans):
                matrix = weight[rows, columns].expand(batch, -1, -1)
                if number == 0:
                    torch.bmm(matrix, flat[:, channels], out=share)
                else:
                    torch.baddbmm(share, matrix, flat[:, channels], out=share)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, dy: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, _ = ctx.needs_input_grad
        batch = x.shape[0]
        flat = x.flatten(2)
        gradient = dy.flatten(2)
        dx = torch.zeros_like(flat) if wants_x else None
        dw = torch.empty_like(weight) if wants_weight else None
        for rows, spans in _windows(x.shape[1], weight, ctx.shift):
            share = gradient[:, rows]
            for channels, columns in spans:
                if dx is not None:
                    matrix = weight[rows, columns].T.expand(batch, -1, -1)
                    torch.baddbmm(dx[:, channels], matrix, share, out=dx[:, channels])
                if dw is not None:
                    dw[rows, columns] = torch.bmm(share, flat[:, channels].mT).sum(0)
        return None if dx is None else dx.view(x.shape), dw, None


def _windows(
    c_in: int, weight: torch.Tensor, shift: int
) -> list[tuple[slice, list[tuple[slice, slice]]]]:
    """Return, for each window, its outputs and its one or two (channels, weight columns)."""
    c_out, width = weight.shape
    starts: dict[int, int] = {}
    for output in range(c_out):
        start = output * shift % c_in
        if start in starts:
            break
        starts[start] = output
    found = []
    for start, output in starts.items():
        before = min(width, c_in - start)
        spans = [(slice(start, start + before), slice(0, before))]
        if before < width:
            spans.append((slice(0, width - before), slice(before, width)))
        found.append((slice(output, None, len(starts)), spans))
    return found
