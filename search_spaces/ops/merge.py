"""Operators that join branches: sum, product, concatenation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from search_spaces.errors import OpError
from search_spaces.ops.base import Op, Shape, register

if TYPE_CHECKING:
    from search_spaces.ops.base import Mask


@register
@dataclass(frozen=True)
class Add(Op):
    """Sum of any number of equal shapes, such as a residual connection."""

    kind: ClassVar[str] = "add"
    commutative: ClassVar[bool] = True
    arity: ClassVar[tuple[int, int]] = (1, 1 << 16)

    def infer(self, inputs: tuple[Shape, ...]) -> Shape:
        if any(item != inputs[0] for item in inputs):
            raise OpError(f"cannot add {' and '.join(map(str, inputs))}")
        return inputs[0]

    def is_absent(self, absent: tuple[bool, ...]) -> bool:
        return all(absent)

    def is_causal(self) -> bool:
        return True

    def call(self, layer: str, args: tuple[str, ...]) -> str:
        return " + ".join(args)

    def is_identity(self, inputs: tuple[Shape, ...]) -> bool:
        return len(inputs) == 1


@register
@dataclass(frozen=True)
class Multiply(Op):
    """Product of two maps; one may be (c, 1, 1), as in squeeze-and-excitation."""

    kind: ClassVar[str] = "mul"
    commutative: ClassVar[bool] = True
    arity: ClassVar[tuple[int, int]] = (2, 2)

    def infer(self, inputs: tuple[Shape, ...]) -> Shape:
        first, second = inputs
        big = max(inputs, key=lambda item: item[1:])
        scale = (big[0],) + (1,) * (len(big) - 1)
        if first == second or {first, second} == {big, scale}:
            return big
        raise OpError(f"cannot multiply {first} by {second}")

    def is_causal(self) -> bool:
        return True

    def call(self, layer: str, args: tuple[str, ...]) -> str:
        return " * ".join(args)


@register
@dataclass(frozen=True)
class Concat(Op):
    """Concatenation along the first axis (channels)."""

    kind: ClassVar[str] = "concat"
    arity: ClassVar[tuple[int, int]] = (1, 1 << 16)

    def infer(self, inputs: tuple[Shape, ...]) -> Shape:
        if any(len(item) == 2 or item[1:] != inputs[0][1:] for item in inputs):
            raise OpError(f"cannot concatenate {' and '.join(map(str, inputs))} along channels")
        return (sum(item[0] for item in inputs), *inputs[0][1:])

    def is_absent(self, absent: tuple[bool, ...]) -> bool:
        return all(absent)

    def masks(self, inputs: tuple[Shape, ...]) -> tuple[Mask, ...]:
        import numpy as np

        whole = np.eye(sum(item[0] for item in inputs), dtype=np.bool_)
        edges = np.cumsum([item[0] for item in inputs])[:-1]
        return tuple(np.split(whole, edges, axis=1))

    def call(self, layer: str, args: tuple[str, ...]) -> str:
        return f"torch.cat([{', '.join(args)}], dim=1)"

    def is_identity(self, inputs: tuple[Shape, ...]) -> bool:
        return len(inputs) == 1
