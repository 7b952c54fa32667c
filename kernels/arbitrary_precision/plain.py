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

    def __init__(self, *sizes: object, wide: bool = False, **settings: object) -> None:
        super().__init__(*sizes, bias=False, **settings)
        self.wide = wide

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x (b, c, h, w) to (b, m, h', w'); a transform that rounds is rounded back."""
        if self.wide:
            return self._conv_forward(x.double(), self.weight.double(), None).round()
        return self._conv_forward(x, self.weight, None).round()


class WholeLinear(nn.Linear):
    """A product of whole numbers by whole numbers; ``wide`` where float32 cannot count them."""

    def __init__(self, features: int, outputs: int, wide: bool = False) -> None:
        super().__init__(features, outputs, bias=False)
        self.wide = wide

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x (..., k) to (..., m)."""
        if self.wide:
            return nn.functional.linear(x.double(), self.weight.double())
        return nn.functional.linear(x, self.weight)


class Worth(nn.Module):
    """What whole numbers are worth: a factor and a bias for each output."""

    def __init__(self, outputs: int, axis: int) -> None:
        super().__init__()
        shape = [outputs] + [1] * (-1 - axis)
        self.register_buffer("factor", torch.ones(shape))
        self.register_buffer("bias", torch.zeros(shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x, whose outputs are along the axis, to real numbers."""
        return (x * self.factor + self.bias).float()
