"""Sliding-channel convolution as an ordinary 1x1 convolution with a structured matrix."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def sliding_channel_conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    starts: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sliding-channel convolution of x (b, c_in, h, w): y is (b, c_out, h, w).

    Output channel o reads the channels starts[o], starts[o] + 1, .. (modulo c_in) with the
    weights weight[o], (c_out, gw). The rows are spread over a (c_out, c_in) matrix, so a NaN or
    infinity in any channel reaches every output channel.
    """
    offsets = torch.arange(weight.shape[1], device=starts.device)
    channels = (starts[:, None] + offsets) % x.shape[1]
    matrix = weight.new_zeros(weight.shape[0], x.shape[1]).scatter(1, channels, weight)
    return F.conv2d(x, matrix[:, :, None, None], bias)
