"""Where values come from: the network's input, and the absent value of a cut edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces.ops.attributes import attr, integer, shape
from search_spaces.ops.base import Op, Shape, register


@register
@dataclass(frozen=True)
class Input(Op):
    """The network's input: numbers, or with a ``vocabulary`` token ids below it."""

    kind: ClassVar[str] = "input"
    plain: ClassVar[bool] = True
    arity: ClassVar[tuple[int, int]] = (0, 0)

    shape: Shape = attr(shape())
    vocabulary: int = attr(integer(0), "ids", default=0)

    def infer(self, inputs: tuple[Shape, ...]) -> Shape:
        return self.shape


@register
@dataclass(frozen=True)
class Zero(Op):
    """A value that is absent: nothing of the input reaches it.

    Normalisation removes it together with all that depends on it alone. It stays only where a
    concatenation needs its width, or as the output of a network that is cut off from its input.
    """

    kind: ClassVar[str] = "zero"
    arity: ClassVar[tuple[int, int]] = (0, 0)

    shape: Shape = attr(shape())

    def infer(self, inputs: tuple[Shape, ...]) -> Shape:
        return self.shape
