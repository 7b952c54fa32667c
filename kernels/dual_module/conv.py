"""Convolutions with ReLU and a little module: which pixels of which channels are zero anyway."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from kernels.dual_module.base import DualModule
from kernels.dual_module.fit import LeastSquares
from kernels.dual_module.little import DEFAULT_BITS, Estimator, Projection
from kernels.dual_module.switch import Switch
from kernels.errors import NasError


class DualModuleConv2d(DualModule):
    """A convolution and its ReLU; outputs whose estimate is low keep it.

    Only channels are projected: signs map the c channels of a pixel to k, and a window of projected
    pixels is the little module's input. It saves operations; no GPU path is faster for it than the
    dense convolution, because which outputs are left differs from pixel to pixel.

    Args:
        conv: the big layer, of one group, batch norm folded.
        bits: of a little weight.
        seed: of the signs.
        projected: k, a quarter of the channels if None.
    """

    def __init__(
        self,
        conv: nn.Conv2d,
        *,
        bits: int = DEFAULT_BITS,
        seed: int = 0,
        projected: int | None = None,
    ) -> None:
        super().__init__()
        if conv.groups != 1 or isinstance(conv.padding, str) or conv.padding_mode != "zeros":
            raise NasError("Only convolutions of one group that pad with zeros have a dual form.")
        self.conv = conv
        taps = conv.kernel_size[0] * conv.kernel_size[1]
        k = max(1, conv.in_channels // 4) if projected is None else projected
        self.projection = Projection(conv.in_channels, k, seed)
        self.estimator = Estimator((k * taps,), conv.out_channels, bits)
        self.switch = Switch("relu")
        self.to(conv.weight.device)

    def forward(self, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """Map x (b, c, h, w) to ReLU of the convolution (b, m, h', w').

        Args:
            x: the layer's input.
            added: to the convolution before ReLU, as a residual block does; None adds nothing.
        """
        estimate = self.estimate(x, added)
        mixed = torch.where(self.switch(estimate), self.big(x, added), estimate.to(x.dtype))
        return torch.relu(mixed)

    def big(self, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """Return the convolution before ReLU, all of it computed."""
        y: torch.Tensor = self.conv(x)
        return y if added is None else y + added

    def estimate(self, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """Return the little module's estimate (b, m, h', w'), float32."""
        rows: torch.Tensor = self.estimator(self._windows(x))
        y = rows.transpose(1, 2).reshape(len(x), -1, *self._size(x))
        return y if added is None else y + added

    def estimators(self) -> list[Estimator]:
        """See :class:`DualModule`."""
        return [self.estimator]

    @torch.no_grad()
    def observe(self, equations: Sequence[LeastSquares], *given: Any) -> None:
        """Add images (b, c, h, w); see :class:`DualModule`."""
        x = given[0]
        wanted = self.big(x).flatten(2).transpose(1, 2)
        equations[0].add(self._windows(x).flatten(0, 1), wanted.flatten(0, 1))

    def _windows(self, x: torch.Tensor) -> torch.Tensor:
        """Return windows of projected pixels (b, pixels, k * taps)."""
        u = self.projection(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        conv = self.conv
        padding = (int(conv.padding[0]), int(conv.padding[1]))
        return F.unfold(u, conv.kernel_size, conv.dilation, padding, conv.stride).transpose(1, 2)

    def _size(self, x: torch.Tensor) -> tuple[int, int]:
        sizes = []
        for i in (0, 1):
            c = self.conv
            reach = c.dilation[i] * (c.kernel_size[i] - 1) + 1
            sizes.append((x.shape[2 + i] + 2 * int(c.padding[i]) - reach) // c.stride[i] + 1)
        return sizes[0], sizes[1]


def fold_batch_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Return a convolution that computes both, in evaluation mode.

    The bias is scaled too; the paper's formula leaves that out.
    """
    assert norm.running_var is not None
    assert norm.running_mean is not None
    factor = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        factor = factor * norm.weight
    bias = conv.bias if conv.bias is not None else torch.zeros_like(norm.running_mean)
    shift = norm.bias if norm.bias is not None else torch.zeros_like(norm.running_mean)
    folded = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
    ).to(conv.weight)
    with torch.no_grad():
        folded.weight.copy_(conv.weight * factor[:, None, None, None])
        assert folded.bias is not None
        folded.bias.copy_((bias - norm.running_mean) * factor + shift)
    return folded
