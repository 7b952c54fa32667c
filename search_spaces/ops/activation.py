"""Pointwise non-linearities, alone or as the last step of a convolution or linear node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces.ops.attributes import Codec, attr, choice
from search_spaces.ops.base import Op, Part, Shape, register

_MODULES = {
    "relu": ("nn.ReLU", True),
    "relu6": ("nn.ReLU6", True),
    "hardswish": ("nn.Hardswish", True),
    "hardsigmoid": ("nn.Hardsigmoid", True),
    "silu": ("nn.SiLU", True),
    "sigmoid": ("nn.Sigmoid", False),
    "tanh": ("nn.Tanh", False),
    "gelu": ("nn.GELU", False),
    "gelu_tanh": ("nn.GELU", False),
}
ACTIVATIONS = tuple(_MODULES)
"""Names of the activations, as attributes and text tokens."""


def activation(*, optional: bool = True) -> Codec:
    """Give the codec of an activation's name."""
    return choice(*ACTIVATIONS, optional=optional)


def activation_part(name: str, *, inplace: bool) -> Part:
    """Give the layer of an activation; in place only where nobody else holds its input."""
    source, can = _MODULES[name]
    option = 'approximate="tanh"' if name == "gelu_tanh" else ""
    return Part("act", f"{source}({'inplace=True' if inplace and can else option})")


@register
@dataclass(frozen=True)
class Activation(Op):
    """A non-linearity on its own, such as the ReLU after a residual sum."""

    kind: ClassVar[str] = "act"

    act: str = attr(activation(optional=False))

    def is_causal(self) -> bool:
        return True

    def parts(self, inputs: tuple[Shape, ...]) -> tuple[Part, ...]:
        return (activation_part(self.act, inplace=False),)
