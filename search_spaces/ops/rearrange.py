"""Operators that move or drop values and compute nothing: flatten, shuffle, dropout."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from search_spaces.errors import OpError
from search_spaces.ops.attributes import attr, flag, integer, number
from search_spaces.ops.base import Op, Part, Reach, Shape, expression, image, register

if TYPE_CHECKING:
    from search_spaces.ops.base import Mask


@register
@dataclass(frozen=True)
class Flatten(Op):
    """All axes into one, channel first; (c, h, w) -> (c * h * w,)."""

    kind: ClassVar[str] = "flatten"

    def infer(self, inputs: tuple[Shape, ...]) -> Shape:
        return (math.prod(inputs[0]),)

    def reach(self, inputs: tuple[Shape, ...]) -> Reach:
        return Reach(everywhere=len(inputs[0]) == 3)

    def masks(self, inputs: tuple[Shape, ...]) -> tuple[Mask, ...]:
        import numpy as np

        return (np.repeat(np.eye(inputs[0][0], dtype=np.bool_), math.prod(inputs[0][1:]), axis=0),)

    def call(self, layer: str, args: tuple[str, ...]) -> str:
        return f"torch.flatten({args[0]}, 1)"

    def is_identity(self, inputs: tuple[Shape, ...]) -> bool:
        return len(inputs[0]) == 1


@register
@dataclass(frozen=True)
class ChannelShuffle(Op):
    """Interleaves the channels of ``groups`` groups (ShuffleNet)."""

    kind: ClassVar[str] = "shuffle"

    groups: int = attr(integer(), "g")

    def infer(self, inputs: tuple[Shape, ...]) -> Shape:
        c, _, _ = image(inputs, "channel shuffle")
        if c % self.groups:
            raise OpError(f"groups {self.groups} does not divide {c} channels")
        return inputs[0]

    def masks(self, inputs: tuple[Shape, ...]) -> tuple[Mask, ...]:
        import numpy as np

        c = inputs[0][0]
        source = np.arange(c).reshape(self.groups, -1).T.reshape(-1)
        return (np.eye(c, dtype=np.bool_)[source],)

    def parts(self, inputs: tuple[Shape, ...]) -> tuple[Part, ...]:
        return (Part("shuffle", f"nn.ChannelShuffle({self.groups})"),)

    def is_identity(self, inputs: tuple[Shape, ...]) -> bool:
        return self.groups in (1, inputs[0][0])


@register
@dataclass(frozen=True)
class Dropout(Op):
    """Zeroes values, or with ``path`` whole samples (stochastic depth), while training."""

    kind: ClassVar[str] = "dropout"

    p: float = attr(number(0.0, 1.0), "p", default=0.5)
    path: bool = attr(flag("path"), default=False)

    def is_causal(self) -> bool:
        return True

    def parts(self, inputs: tuple[Shape, ...]) -> tuple[Part, ...]:
        if self.path:
            return (Part("drop", f"StochasticDepth({self.p})", uses=("StochasticDepth",)),)
        return (Part("drop", expression("nn.Dropout", self.p)),)

    def is_identity(self, inputs: tuple[Shape, ...]) -> bool:
        return self.p == 0.0
