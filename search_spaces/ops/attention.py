"""Scaled dot-product attention over projected queries, keys and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from search_spaces.errors import OpError
from search_spaces.ops.attributes import attr, flag, integer
from search_spaces.ops.base import Op, Part, Reach, Shape, expression, register

if TYPE_CHECKING:
    from search_spaces.ops.base import Mask


@register
@dataclass(frozen=True)
class Attention(Op):
    """Multi-head attention of (tokens, d), (keys, d'), (keys, d') -> (tokens, d).

    Queries have ``heads`` heads, keys and values ``kv_heads``: grouped-query attention where fewer.
    The projections are linear nodes of their own, so that each can carry a variant.
    """

    kind: ClassVar[str] = "attention"
    arity: ClassVar[tuple[int, int]] = (3, 3)

    heads: int = attr(integer(), "h")
    kv_heads: int = attr(integer(0), "kv", default=0)
    causal: bool = attr(flag("causal"), default=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kv_heads and self.heads % self.kv_heads:
            raise OpError(f"kv_heads {self.kv_heads} does not divide {self.heads} heads")

    def idle(self) -> dict[str, object]:
        return {"kv_heads": 0} if self.kv_heads == self.heads else {}

    @property
    def key_heads(self) -> int:
        """Heads of keys and values; an attribute of 0 stands for as many as queries have."""
        return self.kv_heads or self.heads

    def infer(self, inputs: tuple[Shape, ...]) -> Shape:
        query, key, value = inputs
        if not len(query) == len(key) == len(value) == 2:
            raise OpError(f"attention needs (tokens, features), got {query}, {key}, {value}")
        if query[1] % self.heads:
            raise OpError(f"heads {self.heads} does not divide {query[1]} features")
        width = query[1] // self.heads * self.key_heads
        if key != value or key[1] != width:
            raise OpError(f"keys and values must be (tokens, {width}), got {key} and {value}")
        return query

    def is_absent(self, absent: tuple[bool, ...]) -> bool:
        if not absent[2]:
            raise OpError("attention with an absent query or key is a mean; leave it out")
        return True

    def macs(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return 2 * inputs[0][0] * inputs[1][0] * inputs[0][1]

    def reach(self, inputs: tuple[Shape, ...]) -> Reach:
        return Reach(everywhere=True)

    def masks(self, inputs: tuple[Shape, ...]) -> tuple[Mask, ...]:
        import numpy as np

        return tuple(np.ones((inputs[0][0], item[0]), np.bool_) for item in inputs)

    def parts(self, inputs: tuple[Shape, ...]) -> tuple[Part, ...]:
        source = expression(
            "Attention",
            self.heads,
            kv_heads=(self.key_heads, self.heads),
            causal=(self.causal, False),
        )
        return (Part("attention", source, uses=("Attention",)),)
