"""Low-bit layers as torch alone computes them: inputs are rounded, products are of whole numbers.

Exported models carry the text of the classes they use, so nothing here imports from this project.
"""

from __future__ import annotations

import torch
from torch import nn

PLAIN_IMPORTS = ("import torch", "from torch import nn")
"""What these classes need in scope."""


class RoundedInput(nn.Module):
    """Rounds to multiples of a step, from lowest to highest of them, and returns how many they are.

    NaN becomes the lowest one.
    """

    step: torch.Tensor
    lowest: torch.Tensor
    highest: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("step", torch.ones(()))
        self.register_buffer("lowest", torch.zeros(()))
        self.register_buffer("highest", torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x (...) to whole numbers of the same shape."""
        steps = torch.where(x == x, x * (1 / self.step), self.lowest)
        return torch.minimum(torch.maximum(steps.round(), self.lowest), self.highest)


class WholeConv2d(nn.Conv2d):
    """A convolution of whole numbers by whole numbers; ``wide`` where float32 cannot count them."""

    def __init__(
        self,
        channels: int,
        outputs: int,
        kernel: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        wide: bool = False,
    ) -> None:
        super().__init__(channels, outputs, kernel, stride, padding, dilation, bias=False)
        self.dtype = torch.float64 if wide else torch.float32

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x (b, c, h, w) to (b, m, h', w'); what a transform rounds is rounded back."""
        weight = self.weight.to(self.dtype)
        return torch.round(self._conv_forward(x.to(self.dtype), weight, None))


class WholeLinear(nn.Linear):
    """A product of whole numbers by whole numbers; ``wide`` where float32 cannot count them."""

    def __init__(self, features: int, outputs: int, wide: bool = False) -> None:
        super().__init__(features, outputs, bias=False)
        self.dtype = torch.float64 if wide else torch.float32

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x (..., k) to (..., m)."""
        return torch.matmul(x.to(self.dtype), self.weight.to(self.dtype).t())


class Worth(nn.Module):
    """What whole numbers are worth: a factor and a bias for each output."""

    factor: torch.Tensor
    bias: torch.Tensor

    def __init__(self, outputs: int, axis: int) -> None:
        super().__init__()
        shape = [outputs] + [1] * (-1 - axis)
        self.register_buffer("factor", torch.ones(shape))
        self.register_buffer("bias", torch.zeros(shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x, whose outputs are along the axis, to real numbers."""
        return (x * self.factor + self.bias).to(self.factor.dtype)
