"""What the epilogue of a product applies: names, functions, and their derivatives."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from kernels.errors import UnknownNameError

FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "silu": F.silu,
    "hardswish": F.hardswish,
    "gelu": F.gelu,
}
"""By name; the kernels know them by their number here."""

_aten = torch.ops.aten
# Inside an operator autograd does not run.
_BACKWARD: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "none": lambda dy, x: dy,
    "relu": lambda dy, x: _aten.threshold_backward(dy, x, 0),
    "relu6": lambda dy, x: _aten.hardtanh_backward(dy, x, 0, 6),
    "silu": _aten.silu_backward,
    "hardswish": _aten.hardswish_backward,
    "gelu": _aten.gelu_backward,
}

ACTIVATIONS = tuple(FUNCTIONS)


def check_activation(name: str) -> None:
    """Refuse an unknown name.

    Raises:
        UnknownNameError: lists the known ones.
    """
    if name not in FUNCTIONS:
        raise UnknownNameError("activation", name, ACTIVATIONS)


def backward(name: str, dy: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Return the gradient before an activation, from that behind it and the values before it."""
    return _BACKWARD[name](dy, before)
