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
    With ``causal`` a token sees itself and those before it. With a ``window`` it sees tokens that
    are less than that far away (0: all). The projections are linear nodes of their own, so that
    each can carry a variant.
    """

    kind: ClassVar[str] = "attention"
    arity: ClassVar[tuple[int, int]] = (3, 3)
    placed: ClassVar[str] = "cache"

    heads: int = attr(integer(), "h")
    kv_heads: int = attr(integer(0), "kv", default=0)
    causal: bool = attr(flag("causal"), default=False)
    window: int = attr(integer(0), "w", default=0)

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
        if (self.causal or self.window) and query[0] != key[0]:
            raise OpError(
                f"causal and windowed attention need as many keys as queries, got {key[0]} and "
                f"{query[0]}"
            )
        return query

    def is_absent(self, absent: tuple[bool, ...]) -> bool:
        if not absent[2]:
            raise OpError("attention with an absent query or key is a mean; leave it out")
        return True

    def is_causal(self) -> bool:
        return self.causal

    def cached(self, inputs: tuple[Shape, ...]) -> int:
        if not self.causal:
            return 0
        tokens, width = inputs[1]
        return 2 * width * min(tokens, self.window or tokens)

    def macs(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return 2 * inputs[0][0] * inputs[1][0] * inputs[0][1]

    def reach(self, inputs: tuple[Shape, ...]) -> Reach:
        return Reach(everywhere=True)

    def masks(self, inputs: tuple[Shape, ...]) -> tuple[Mask, ...]:
        import numpy as np

        return tuple(np.ones((inputs[0][0], item[0]), np.bool_) for item in inputs)

    def parts(self, inputs: tuple[Shape, ...]) -> tuple[Part, ...]:
        uses = ("Cache", "CausalAttention") if self.causal else ("Attention",)
        grouped = (self.key_heads, self.heads)
        source = expression(uses[-1], self.heads, kv_heads=grouped, window=(self.window, 0))
        return (Part("attention", source, uses=uses),)
