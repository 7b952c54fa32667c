"""Fully connected layer with its activation, on vectors or on every token of a sequence."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from search_spaces.errors import OpError
from search_spaces.ops.activation import Activation, activation, activation_part
from search_spaces.ops.attributes import attr, flag, integer
from search_spaces.ops.base import Op, Part, Reach, Shape, expression, register

if TYPE_CHECKING:
    from search_spaces.ops.base import Mask


@register
@dataclass(frozen=True)
class Linear(Op):
    """Linear map of the last axis, optional activation; (..., features) -> (..., out)."""

    kind: ClassVar[str] = "linear"
    plain: ClassVar[bool] = True

    out_features: int = attr(integer())
    no_bias: bool = attr(flag("nobias"), default=False)
    act: str | None = attr(activation(), default=None)

    def infer(self, inputs: tuple[Shape, ...]) -> Shape:
        if len(inputs[0]) > 2:
            raise OpError(f"linear needs (features,) or (tokens, features), got {inputs[0]}")
        return (*inputs[0][:-1], self.out_features)

    def is_causal(self) -> bool:
        return True

    def params(self, inputs: tuple[Shape, ...]) -> int:
        return self.out_features * (inputs[0][-1] + (0 if self.no_bias else 1))

    def macs(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return inputs[0][-1] * math.prod(output)

    def reach(self, inputs: tuple[Shape, ...]) -> Reach:
        return Reach(channels=inputs[0][-1], weighted=True)

    def masks(self, inputs: tuple[Shape, ...]) -> tuple[Mask, ...]:
        import numpy as np

        if len(inputs[0]) == 2:  # tokens are the first axis, and stay apart
            return super().masks(inputs)
        return (np.ones((self.out_features, inputs[0][-1]), np.bool_),)

    def parts(self, inputs: tuple[Shape, ...]) -> tuple[Part, ...]:
        source = expression(
            "nn.Linear", inputs[0][-1], self.out_features, bias=(not self.no_bias, True)
        )
        part = Part("linear", source)
        return (part, activation_part(self.act, inplace=True)) if self.act else (part,)

    def absorb(self, following: Op) -> Op | None:
        if isinstance(following, Activation) and self.act is None:
            return replace(self, act=following.act)
        return None
