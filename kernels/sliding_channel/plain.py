"""The module as an exported model carries it: source text that needs torch and nothing of ours.

A source generator writes ``PLAIN_IMPORTS``, then ``inspect.getsource`` of each object of
``PLAIN_SOURCE`` in that order. Arguments are taken as valid; ``module.py`` checks them.
"""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import nn

from kernels.sliding_channel.dense import sliding_channel_conv2d
from kernels.sliding_channel.windows import exact_starts


class SlidingChannelConv2d(nn.Module):
    """1x1 convolution whose output channels each read a window of in_channels / cg channels.

    Neighbouring windows overlap by the ratio co (0 <= co < 1) and wrap round.
    """

    starts: torch.Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        cg: int,
        co: float | str | Fraction,
        *,
        rule: str = "floor",
        order: str = "cyclic",
        bias: bool = False,
    ) -> None:
        super().__init__()
        starts = exact_starts(in_channels, out_channels, cg, co, rule, order)
        self.register_buffer("starts", torch.tensor(starts), persistent=False)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // cg))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew, uniform within one over the root of the window's width."""
        bound = 1 / math.sqrt(self.weight.shape[1])
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x (b, in_channels, h, w) to (b, out_channels, h, w)."""
        return sliding_channel_conv2d(x, self.weight, self.starts, self.bias)


PLAIN_SOURCE = (exact_starts, sliding_channel_conv2d, SlidingChannelConv2d)
"""What an exported file holds, each self-contained apart from those before it."""

PLAIN_IMPORTS = (
    "import math",
    "from fractions import Fraction",
    "import torch",
    "from torch import nn",
    "from torch.nn import functional as F",
)
"""What ``PLAIN_SOURCE`` needs in scope."""
