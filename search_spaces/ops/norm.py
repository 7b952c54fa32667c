"""Normalisation layers, alone or inside a convolution node."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from search_spaces.errors import OpError
from search_spaces.ops.activation import Activation, activation, activation_part
from search_spaces.ops.attributes import attr, choice, number
from search_spaces.ops.base import Op, Part, Reach, Shape, expression, register

if TYPE_CHECKING:
    from search_spaces.ops.base import Mask

EPS = 1e-5
MOMENTUM = 0.1
_LAYERS = {"ln": "LayerNorm", "rms": "RMSNorm"}


def batch_norm_part(channels: int, eps: float, momentum: float) -> Part:
    """Give the layer of a batch normalisation over ``channels``."""
    source = expression("nn.BatchNorm2d", channels, eps=(eps, EPS), momentum=(momentum, MOMENTUM))
    return Part("norm", source)


@register
@dataclass(frozen=True)
class Norm(Op):
    """Batch normalisation of a feature map; layer or root-mean-square norm over the last axis."""

    kind: ClassVar[str] = "norm"

    norm: str = attr(choice("bn", "ln", "rms"))
    eps: float = attr(number(), "eps", default=EPS)
    momentum: float = attr(number(0.0, 1.0), "mom", default=MOMENTUM)
    act: str | None = attr(activation(), default=None)

    def idle(self) -> dict[str, object]:
        return {} if self.norm == "bn" else {"momentum": MOMENTUM}

    def infer(self, inputs: tuple[Shape, ...]) -> Shape:
        if self.norm == "bn" and len(inputs[0]) != 3:
            raise OpError(f"batch norm needs a feature map (c, h, w), got {inputs[0]}")
        if self.norm != "bn" and len(inputs[0]) > 2:
            raise OpError(
                f"{_LAYERS[self.norm]} needs (features,) or (tokens, features), got {inputs[0]}"
            )
        return inputs[0]

    def is_causal(self) -> bool:
        return self.norm != "bn"

    def reach(self, inputs: tuple[Shape, ...]) -> Reach:
        return Reach(channels=inputs[0][0] if len(inputs[0]) == 1 else 1)

    def masks(self, inputs: tuple[Shape, ...]) -> tuple[Mask, ...]:
        import numpy as np

        if len(inputs[0]) == 1:  # the features are what it normalises over
            return (np.ones((inputs[0][0], inputs[0][0]), np.bool_),)
        return super().masks(inputs)

    def params(self, inputs: tuple[Shape, ...]) -> int:
        vectors = 1 if self.norm == "rms" else 2
        return vectors * (inputs[0][0] if self.norm == "bn" else inputs[0][-1])

    def parts(self, inputs: tuple[Shape, ...]) -> tuple[Part, ...]:
        if self.norm == "bn":
            part = batch_norm_part(inputs[0][0], self.eps, self.momentum)
        else:
            # RMSNorm's own default is the type's smallest step, so its eps is always written.
            default = EPS if self.norm == "ln" else None
            layer = f"nn.{_LAYERS[self.norm]}"
            part = Part("norm", expression(layer, inputs[0][-1], eps=(self.eps, default)))
        return (part, activation_part(self.act, inplace=True)) if self.act else (part,)

    def absorb(self, following: Op) -> Op | None:
        if isinstance(following, Activation) and self.act is None:
            return replace(self, act=following.act)
        return None
