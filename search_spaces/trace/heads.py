"""What stands between a projection and attention: heads that are cut, turned, scored and joined.

None of these is a node of an architecture. Each step of a traced network turns one into another,
until attention, or a sequence, is what comes out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from search_spaces.architecture.graph import Value
from search_spaces.ops import Attention, Rotary
from search_spaces.trace.masks import mask_attributes
from search_spaces.trace.partial import Partial
from search_spaces.trace.reader import Reader

_TABLE_TOLERANCE = 2e-3
"""Of cosines and sines: angles of late places are coarse in float32."""


@dataclass(frozen=True, eq=False)
class Heads(Partial):
    """A sequence whose features are cut into heads.

    Attributes:
        value: (tokens, heads * size), before the cut.
        count: heads.
        order: of the axes: batch, tokens, heads, size.
        scale: what all of it is multiplied by.
        repeat: how often each head is there.
    """

    value: Value
    count: int
    order: str = "bthd"
    scale: float = 1.0
    repeat: int = 1

    @property
    def size(self) -> int:
        """Features of a head."""
        return self.value.shape[1] // self.count

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes but the batch's, in their order; a batch elsewhere than first has 0."""
        sizes = {"b": 0, "t": self.value.shape[0], "h": self.count * self.repeat, "d": self.size}
        return tuple(sizes[axis] for axis in self.order)[1:]

    def on_transpose(self, reader: Reader, first: int, second: int) -> Partial:
        """Change the places of two axes."""
        axes = list(self.order)
        axes[first], axes[second] = axes[second], axes[first]
        return replace(self, order="".join(axes))

    def on_permute(self, reader: Reader, *dims: Any) -> Partial:
        """Change the places of axes."""
        chosen = dims[0] if isinstance(dims[0], tuple | list) else dims
        return replace(self, order="".join(self.order[dim] for dim in chosen))

    def on_reshape(self, reader: Reader, *size: Any) -> object:
        """Join the heads to a sequence, or change nothing."""
        found = reader.sizes(self.shape, *size)
        if found == self.shape:
            return self
        if self.order == "bthd" and self.plain and found == self.value.shape:
            return self.value
        raise reader.error(f"heads {self.order} cannot be read as {found}")

    def on_flatten(self, reader: Reader, start_dim: int = 0, end_dim: int = -1) -> object:
        """Join the heads to a sequence."""
        return self.on_reshape(reader, -1, *self.value.shape)

    @property
    def plain(self) -> bool:
        """Whether nothing but a cut has happened."""
        return self.scale == 1.0 and self.repeat == 1

    def on_mul(self, reader: Reader, other: Any) -> Partial:
        """Scale by a number, or take as a half of a rotation by a table of cosines."""
        if isinstance(other, Tensor) and other.numel() > 1:
            return Part(self, turned=False, table=other)
        return replace(self, scale=self.scale * float(other))

    def on_div(self, reader: Reader, other: Any) -> Partial:
        """Scale by the inverse of a number."""
        return replace(self, scale=self.scale / float(other))

    def on_getitem(self, reader: Reader, index: Any) -> object:
        """Take the first or the second half of the features, or add an axis to repeat heads."""
        if isinstance(index, tuple) and index[:1] == (Ellipsis,) and isinstance(index[-1], slice):
            half = self.size // 2
            for number, wanted in enumerate((slice(None, half), slice(half, None))):
                if index == (Ellipsis, wanted) and 2 * half == self.size:
                    return Half(self, number)
        if self.order == "bhtd" and index == (*[slice(None)] * 2, None, *[slice(None)] * 2):
            return Repeated(self)
        raise reader.error(f"heads cannot be indexed by {index}")

    def on_chunk(self, reader: Reader, chunks: int, dim: int = 0) -> object:
        """Take both halves of the features."""
        if chunks != 2 or dim not in (-1, 3) or self.size % 2:
            raise reader.error("heads can be cut into two halves of their features alone")
        return Half(self, 0), Half(self, 1)

    def on_repeat_interleave(self, reader: Reader, repeats: int, dim: int = 0) -> Partial:
        """Repeat each head, for groups of queries that share it."""
        if self.order[dim] != "h":
            raise reader.error("only heads can be repeated")
        return replace(self, repeat=self.repeat * repeats)

    def on_matmul(self, reader: Reader, other: Any) -> Partial:
        """Score queries against keys."""
        if isinstance(other, Heads) and (self.order, other.order) == ("bhtd", "bhdt"):
            return Scores(self, replace(other, order="bhtd"))
        raise reader.error("heads can be multiplied with transposed heads alone")

    def on_scaled_dot_product_attention(
        self,
        reader: Reader,
        key: Any,
        value: Any,
        attn_mask: Any = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Partial:
        """Attend; ``self`` are the queries."""
        if not (isinstance(key, Heads) and isinstance(value, Heads)):
            raise reader.error("attention needs queries, keys and values that are cut into heads")
        scores = Scores(self, key, scale=self.size**-0.5 if scale is None else scale)
        scores = replace(scores, masks=() if attn_mask is None else (attn_mask,))
        return scores.attend(reader, value, causal=is_causal)


@dataclass(frozen=True, eq=False)
class Repeated(Partial):
    """Heads with an axis behind them along which they are repeated."""

    heads: Heads
    repeat: int = 1

    def on_expand(self, reader: Reader, *size: Any) -> Partial:
        """Say how often."""
        sizes = size[0] if isinstance(size[0], tuple | list) else size
        return replace(self, repeat=int(sizes[2]))

    def on_reshape(self, reader: Reader, *size: Any) -> Partial:
        """Make one axis of heads and repeats."""
        return replace(self.heads, repeat=self.heads.repeat * self.repeat)


@dataclass(frozen=True, eq=False)
class Half(Partial):
    """The first (0) or second (1) half of the features of each head."""

    heads: Heads
    number: int
    negative: bool = False

    def on_neg(self, reader: Reader) -> Partial:
        """Change the sign."""
        return replace(self, negative=not self.negative)

    def on_cat(self, reader: Reader, tensors: Any, dim: int = 0) -> Partial:
        """Join minus the second half and the first: the features turned by a right angle."""
        first, second = tensors if len(tensors) == 2 else (None, None)
        if (
            isinstance(first, Half)
            and isinstance(second, Half)
            and first.heads is second.heads
            and (first.number, first.negative, second.number, second.negative)
            == (1, True, 0, False)
            and dim in (-1, 3)
        ):
            return Turned(first.heads)
        raise reader.error("halves of heads are understood in rotary positions alone")


@dataclass(frozen=True, eq=False)
class Turned(Partial):
    """Heads whose features are turned by a right angle."""

    heads: Heads

    def on_mul(self, reader: Reader, other: Any) -> Partial:
        """Take as a half of a rotation, by a table of sines."""
        if not isinstance(other, Tensor):
            raise reader.error("turned heads are understood in rotary positions alone")
        return Part(self.heads, turned=True, table=other)


@dataclass(frozen=True, eq=False)
class Part(Partial):
    """Heads, turned or not, times a table by place and feature."""

    heads: Heads
    turned: bool
    table: Tensor

    def on_add(self, reader: Reader, other: Any, alpha: int = 1) -> Partial:
        """Add both parts of a rotation."""
        parts = {item.turned: item for item in (self, other) if isinstance(item, Part)}
        if len(parts) != 2 or alpha != 1 or parts[False].heads is not parts[True].heads:
            raise reader.error("tables by place are understood in rotary positions alone")
        heads = parts[False].heads
        theta = _theta(reader, heads, parts[False].table, parts[True].table)
        turned = reader.make(Rotary, heads.value, heads=heads.count, theta=theta)
        return replace(heads, value=turned)


def _theta(reader: Reader, heads: Heads, cosines: Tensor, sines: Tensor) -> float:
    """Return the base of the wavelengths that tables were made with."""
    tokens, half = heads.value.shape[0], heads.size // 2
    cos, sin = (_rows(reader, heads, table) for table in (cosines, sines))
    theta = 1e4
    if tokens > 1 and half > 1:
        speed = float(torch.atan2(sin[1, 1], cos[1, 1]))
        theta = float(f"{speed**-half if speed > 0 else 0.0:.4g}")
    if theta >= 1.0:
        speeds = theta ** (-torch.arange(half, dtype=torch.float64) / half)
        angles = torch.outer(torch.arange(tokens, dtype=torch.float64), speeds)
        expected = torch.cat([angles, angles], 1)
        worst = max((cos - expected.cos()).abs().max(), (sin - expected.sin()).abs().max())
        if float(worst) <= _TABLE_TOLERANCE:
            return theta
    raise reader.error("these rotary positions are not the plain ones; scaled ones are not known")


def _rows(reader: Reader, heads: Heads, table: Tensor) -> Tensor:
    """Return a table as (tokens, size) in float64; all samples and heads must have the same."""
    tokens, size = heads.value.shape[0], heads.size
    axes = {"bhtd": (-2, -1), "bthd": (-3, -1)}.get(heads.order)
    if axes is None or table.ndim < 2 or table.numel() % (tokens * size):
        raise reader.error("a table of rotary positions has another shape than the heads")
    flat = table.detach().double()
    while flat.ndim < 4:
        flat = flat[None]
    moved = flat.movedim(axes, (-2, -1)).reshape(-1, tokens, size)
    if not torch.equal(moved, moved[:1].expand_as(moved)):
        raise reader.error("rotary positions that differ between samples or heads are not known")
    return moved[0]


@dataclass(frozen=True, eq=False)
class Scores(Partial):
    """Products of queries and keys.

    Attributes:
        query: (b, heads, tokens, size).
        key: the same of the keys.
        scale: what the products are multiplied by.
        masks: tensors that were added, or bool ones that let through.
        shares: whether a softmax over the keys was taken.
    """

    query: Heads
    key: Heads
    scale: float = 1.0
    masks: tuple[Tensor, ...] = ()
    shares: bool = False

    def on_mul(self, reader: Reader, other: Any) -> Partial:
        """Scale."""
        return replace(self, scale=self.scale * float(other))

    def on_div(self, reader: Reader, other: Any) -> Partial:
        """Scale."""
        return replace(self, scale=self.scale / float(other))

    def on_add(self, reader: Reader, other: Any, alpha: int = 1) -> Partial:
        """Add a mask."""
        if self.shares or not isinstance(other, Tensor) or alpha != 1:
            raise reader.error("only masks can be added to the scores of attention")
        return replace(self, masks=(*self.masks, other))

    def on_masked_fill(self, reader: Reader, mask: Any, value: Any) -> Partial:
        """Mask what is True."""
        if self.shares or not isinstance(mask, Tensor) or float(value) > -1e4:
            raise reader.error("scores of attention can be masked by minus infinity alone")
        return replace(self, masks=(*self.masks, ~mask.bool()))

    def on_softmax(self, reader: Reader, dim: Any = None, dtype: Any = None, **_: Any) -> Partial:
        """Make shares of the scores."""
        if self.shares or dim not in (-1, 3):
            raise reader.error("attention shares are taken over the keys, dim=-1")
        return replace(self, shares=True)

    def on_dropout(self, reader: Reader, *_: Any, **__: Any) -> Partial:
        """Drop nothing: attention shares are dropped while training alone."""
        return self

    def on_matmul(self, reader: Reader, other: Any) -> Partial:
        """Attend."""
        if not self.shares or not isinstance(other, Heads):
            raise reader.error("scores of attention need a softmax, then heads of values")
        return self.attend(reader, other)

    def attend(self, reader: Reader, value: Heads, *, causal: bool = False) -> Heads:
        """Return attention over values, as heads (b, heads, tokens, size)."""
        q, k = self.query, self.key
        if {q.order, k.order, value.order} != {"bhtd"} or q.repeat != 1 or value.scale != 1.0:
            raise reader.error("attention needs (b, heads, tokens, size), got another order")
        scale = self.scale * q.scale * k.scale
        if not math.isclose(scale, q.size**-0.5, rel_tol=1e-4):
            raise reader.error(f"attention has the scale {scale:.4g}, not 1/sqrt({q.size})")
        if k.size != q.size or value.size != q.size or k.count != value.count:
            raise reader.error("attention needs heads of one size, and as many keys as values")
        attributes: dict[str, Any] = mask_attributes(
            reader, self.masks, q.value.shape[0], k.value.shape[0]
        )
        if causal:
            attributes = {**attributes, "causal": True}
        made = reader.make(
            Attention,
            q.value,
            k.value,
            value.value,
            heads=q.count,
            kv_heads=0 if k.count == q.count else k.count,
            **attributes,
        )
        return Heads(made, q.count, "bhtd")
