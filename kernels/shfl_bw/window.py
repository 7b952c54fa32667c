"""The window of a convolution, and the matrix that its packed form multiplies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Window:
    """What a two-dimensional convolution looks at, each as (height, width).

    Attributes:
        kernel: size.
        stride: step.
        padding: zeros around.
        dilation: distance of taps.
    """

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    @property
    def taps(self) -> int:
        """Number of taps."""
        return self.kernel[0] * self.kernel[1]

    @property
    def pointwise(self) -> bool:
        """Whether it maps every pixel by itself."""
        return (self.taps, self.stride, self.padding) == (1, (1, 1), (0, 0))

    def output(self, height: int, width: int) -> Pair:
        """Return height and width of the output for those of the input."""
        sizes = (
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(
                (height, width),
                self.kernel,
                self.stride,
                self.padding,
                self.dilation,
                strict=True,
            )
        )
        down, across = sizes
        return down, across

    def unfold(self, x: torch.Tensor) -> torch.Tensor:
        """Return images (b, c, h, w) as columns (c * taps, b * oh * ow), taps fastest."""
        batch = x.shape[0]
        if self.pointwise:
            cut = x.flatten(2)
        else:
            cut = F.unfold(x, self.kernel, self.dilation, self.padding, self.stride)
        return cut[0] if batch == 1 else cut.transpose(0, 1).flatten(1)

    def unfolded_rows(self, columns: torch.Tensor, channels: int) -> torch.Tensor:
        """Return where packed columns (channel fastest) stand in :meth:`unfold`'s rows."""
        if self.taps == 1:
            return columns
        return columns % channels * self.taps + torch.div(columns, channels, rounding_mode="floor")
