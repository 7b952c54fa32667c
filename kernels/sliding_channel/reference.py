"""The definition of sliding-channel convolution in plain PyTorch."""

from __future__ import annotations

import torch


def sliding_channel_conv2d_reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    starts: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return ``y[b, o] = bias[o] + sum_j weight[o, j] * x[b, (starts[o] + j) % c_in]``.

    Nothing outside an output channel's window is read: a NaN there does not reach it. Slow, and
    it holds ``gw`` copies of the output.

    Args:
        x: input, (b, c_in, h, w).
        weight: one row per output channel, (c_out, gw), ``gw <= c_in``.
        starts: first input channel of each window, (c_out,), int64.
        bias: added to each output channel, (c_out,).

    Returns:
        (b, c_out, h, w).
    """
    offsets = torch.arange(weight.shape[1], device=starts.device)
    channels = (starts[:, None] + offsets) % x.shape[1]
    y = torch.einsum("bojhw,oj->bohw", x[:, channels], weight)
    return y if bias is None else y + bias[:, None, None]
