"""Translators of what transformers do to tokens: they take torch's arguments by its names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.architecture.graph import Value
from search_spaces.ops import (
    Attention,
    ClassToken,
    Embedding,
    Linear,
    Norm,
    Positions,
    Rotary,
    TokenPool,
    Tokens,
    Unembedding,
)
from search_spaces.trace import functions, tensors
from search_spaces.trace.heads import Heads
from search_spaces.trace.masks import mask_attributes
from search_spaces.trace.partial import Partial
from search_spaces.trace.reader import Reader, Translator

_ACTIVATIONS = {
    "NewGELUActivation": "gelu_tanh",
    "FastGELUActivation": "gelu_tanh",
    "GELUTanh": "gelu_tanh",
    "PytorchGELUTanh": "gelu_tanh",
    "GELUActivation": "gelu",
    "SiLUActivation": "silu",
}
"""Names of Hugging Face's classes; which formula an activation has is checked by its outputs."""


def by_name(module: nn.Module) -> Translator | None:
    """Return the translator of a layer that many libraries define for themselves."""
    name = type(module).__name__
    if name in _ACTIVATIONS:
        return functions.activation_layer(_ACTIVATIONS[name])
    if name.endswith("RMSNorm") and isinstance(getattr(module, "weight", None), Tensor):
        return rms_norm
    if name == "Conv1D" and isinstance(getattr(module, "nf", None), int):
        return conv_1d
    return None


# Layers.


def embedding(reader: Reader, module: nn.Embedding, ids: Value) -> Value:
    """Translate a lookup of vectors by token ids."""
    if module.max_norm is not None:
        raise reader.error("an embedding with max_norm is not supported")
    return lookup(reader, ids, module.weight)


def lookup(reader: Reader, ids: Value, weight: Tensor, *_: Any, **__: Any) -> Value:
    """Translate ``F.embedding``."""
    vocabulary, features = weight.shape
    if vocabulary != getattr(reader.tensor(ids).op, "vocabulary", 0):
        raise reader.error(f"looks up {vocabulary} vectors; the input has other token ids")
    held = {"embedding.weight": weight}
    return reader.make(Embedding, ids, tensors=held, vocabulary=vocabulary, features=features)


def linear(reader: Reader, x: Value, weight: Tensor, bias: Tensor | None = None) -> Value:
    """Translate ``F.linear``; with an embedding's vectors it gives logits."""
    out, features = weight.shape
    reader.tensor(x, features=features)
    owner = reader.owner(weight)
    if owner is not None and isinstance(owner.op, Embedding) and bias is None:
        return reader.make(Unembedding, x, tensors={"embedding.weight": weight}, vocabulary=out)
    held = {"linear.weight": weight, **({} if bias is None else {"linear.bias": bias})}
    return reader.make(Linear, x, tensors=held, out_features=out, no_bias=bias is None)


def linear_layer(reader: Reader, module: nn.Linear, x: Value) -> Value:
    """Translate a linear layer, which acts on the last axis."""
    return linear(reader, x, module.weight, module.bias)


def conv_1d(reader: Reader, module: Any, x: Value) -> Value:
    """Translate Hugging Face's Conv1D: a linear layer whose weight lies the other way."""
    return linear(reader, x, module.weight.detach().t().contiguous(), module.bias)


def rms_norm(reader: Reader, module: Any, x: Value) -> Value:
    """Translate a root-mean-square norm over the last axis."""
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    eps = torch.finfo(module.weight.dtype).eps if eps is None else float(eps)
    reader.tensor(x, features=module.weight.shape[0])
    return reader.make(Norm, x, tensors={"norm.weight": module.weight}, norm="rms", eps=eps)


def multihead_attention(
    reader: Reader,
    module: nn.MultiheadAttention,
    query: Value,
    key: Value,
    value: Value,
    key_padding_mask: object = None,
    need_weights: object = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: object = True,
    is_causal: object = False,
) -> tuple[Value, None]:
    """Translate torch's attention with its projections; its weights are not returned."""
    special = (module.bias_k, module.bias_v, key_padding_mask)
    if not module.batch_first or module.add_zero_attn or any(x is not None for x in special):
        raise reader.error("attention needs batch_first=True and no added keys or padding masks")
    if module.in_proj_weight is None:
        raise reader.error("attention needs queries, keys and values of one width")
    weights = module.in_proj_weight.detach().chunk(3)
    biases = [None] * 3 if module.in_proj_bias is None else module.in_proj_bias.detach().chunk(3)
    q, k, v = (
        reader.named(role, linear, reader.tensor(x), weight.clone(), bias)
        for role, x, weight, bias in zip(
            ("query", "key", "value"), (query, key, value), weights, biases, strict=True
        )
    )
    hidden = attn_mask is not None and attn_mask.dtype == torch.bool  # True where nothing is seen
    masks = () if attn_mask is None else (~attn_mask if hidden else attn_mask,)
    attributes = mask_attributes(reader, masks, q.shape[0], k.shape[0])
    heads = module.num_heads
    made = reader.named("heads", reader.make, Attention, q, k, v, heads=heads, **attributes)
    out = module.out_proj
    return reader.named("out", linear, made, out.weight, out.bias), None


def positions(reader: Reader, module: Any, x: Value, start: object = 0) -> Value:
    """Translate this project's learned positions."""
    return reader.make(Positions, x, tensors={"positions.weight": module.weight})


def rotary(reader: Reader, module: Any, x: Value, start: object = 0) -> Value:
    """Translate this project's rotary positions."""
    return reader.make(Rotary, x, heads=module.heads, theta=module.theta)


def class_token(reader: Reader, module: Any, x: Value) -> Value:
    """Translate this project's class token."""
    return reader.make(ClassToken, x, tensors={"token.weight": module.weight})


# Shapes.


@dataclass(frozen=True, eq=False)
class Pixels(Partial):
    """A feature map (c, h, w) whose pixels are one axis: (b, c, pixels)."""

    map: Value

    def on_transpose(self, reader: Reader, first: int, second: int) -> Value:
        """Make tokens of the pixels."""
        if {first % 3, second % 3} != {1, 2}:
            raise reader.error("pixels become tokens by transpose(1, 2)")
        return reader.make(Tokens, self.map)

    def on_permute(self, reader: Reader, *dims: Any) -> Value:
        """Make tokens of the pixels."""
        if tuple(dims[0] if isinstance(dims[0], tuple | list) else dims) != (0, 2, 1):
            raise reader.error("pixels become tokens by permute(0, 2, 1)")
        return reader.make(Tokens, self.map)


@dataclass(frozen=True, eq=False)
class Fused(Partial):
    """Queries, keys and values of one projection, cut apart: (b, tokens, 3, heads, size).

    Attributes:
        projection: (tokens, 3 * heads * size).
        heads: how many of each.
        moved: whether the axis of the three is the first, and tokens and heads changed places.
    """

    projection: Value
    heads: int
    moved: bool = False

    def on_permute(self, reader: Reader, *dims: Any) -> Partial:
        """Bring the axis of the three to the front."""
        if tuple(dims[0] if isinstance(dims[0], tuple | list) else dims) != (2, 0, 3, 1, 4):
            raise reader.error("queries, keys and values are parted by permute(2, 0, 3, 1, 4)")
        return Fused(self.projection, self.heads, moved=True)

    def on_unbind(self, reader: Reader, dim: int = 0) -> object:
        """Give the three."""
        if (dim, self.moved) not in ((0, True), (2, False)):
            raise reader.error("queries, keys and values are parted along their own axis")
        width = self.projection.shape[1] // 3
        order = "bhtd" if self.moved else "bthd"
        parts: Any = split(reader, self.projection, width, -1)
        return tuple(Heads(part, self.heads, order) for part in parts)

    def on_getitem(self, reader: Reader, index: Any) -> object:
        """Give one of the three."""
        parts: Any = self.on_unbind(reader, 0)
        return parts[index]


def view(reader: Reader, x: Value, *size: Any) -> object:
    """Translate a view: of a map as pixels, of a sequence as heads, or of all as a vector."""
    own = reader.tensor(x).shape
    found = reader.sizes(own, *size)
    if found is not None and len(own) == 3 and found == (own[0], own[1] * own[2]):
        return Pixels(x)
    if found is not None and len(own) == 2 and len(found) == 3 and found[0] == own[0]:
        return Heads(x, found[1])
    if found is not None and len(own) == 2 and len(found) == 4 and found[:2] == (own[0], 3):
        return Fused(x, found[2])
    return tensors.view(reader, x, *size)


def unflatten(reader: Reader, x: Value, dim: int, sizes: Any) -> object:
    """Translate a cut of the last axis into heads."""
    own = reader.tensor(x).shape
    if len(own) != 2 or dim % 3 != 2 or len(sizes) != 2:
        raise reader.error("only the features of tokens can be cut, into heads")
    count = sizes[0] if sizes[0] != -1 else own[1] // sizes[1]
    return Heads(x, count)


def flatten(reader: Reader, x: Value, start_dim: int = 0, end_dim: int = -1) -> object:
    """Translate a flattening of all axes but the batch, or of a map into pixels."""
    if len(reader.tensor(x).shape) == 3 and (start_dim % 4, end_dim % 4) == (2, 3):
        return Pixels(x)
    return tensors.flatten(reader, x, start_dim, end_dim)


def split(reader: Reader, x: Value, split_size_or_sections: Any, dim: int = 0) -> object:
    """Translate a cut of a projection's features: each part is a projection of its own."""
    own = reader.tensor(x).shape
    sections = split_size_or_sections
    if isinstance(sections, int):
        sections = [sections] * (own[-1] // sections)
    cut = len(own) == 2 and dim % 3 == 2 and sum(sections) == own[-1]
    if not cut or not isinstance(x.op, Linear) or x.op.act or not x.weights:
        raise reader.error("only the features of a linear layer's tokens can be cut into parts")
    weight, bias = x.weights["linear.weight"], x.weights.get("linear.bias")
    parts, start = [], 0
    for number, width in enumerate(sections):
        rows = slice(start, start + width)
        part = (weight[rows].clone(), None if bias is None else bias[rows].clone())
        parts.append(reader.named(_part(number, len(sections)), linear, x.inputs[0], *part))
        start += width
    return tuple(parts)


def _part(number: int, count: int) -> str:
    return ("query", "key", "value")[number] if count == 3 else f"part{number}"


def chunk(reader: Reader, x: Value, chunks: int, dim: int = 0) -> object:
    """Translate a cut of a projection's features into equal parts."""
    return split(reader, x, reader.tensor(x).shape[-1] // chunks, dim)


def permute(reader: Reader, x: Value, *dims: Any) -> Value:
    """Translate a permutation that changes nothing."""
    order = dims[0] if isinstance(dims[0], tuple | list) else dims
    if tuple(order) != tuple(range(len(reader.tensor(x).shape) + 1)):
        raise reader.error("axes can be moved between pixels and tokens, or of heads, alone")
    return x


# Constants that become parameters.


def add(reader: Reader, first: Any, other: Any, *, alpha: object = 1) -> object:
    """Translate a sum; one with a constant is an embedding of places."""
    value, constant = (first, other) if isinstance(first, Value) else (other, first)
    if not isinstance(constant, Tensor) or not isinstance(value, Value):
        return tensors.add(reader, first, other, alpha=alpha)
    rows = _rows(reader, constant, value.shape)
    source = value
    if isinstance(value.op, Positions) and value.weights:  # BERT adds token types, then places
        source, rows = value.inputs[0], rows + value.weights["positions.weight"]
    return reader.make(Positions, source, tensors={"positions.weight": rows})


def cat(reader: Reader, tensors_: Any, dim: int = 0) -> Value:
    """Translate a concatenation; a constant before tokens is a class token."""
    first, *rest = tensors_
    if isinstance(first, Tensor) and len(rest) == 1 and dim in (1, -2):
        x = reader.tensor(rest[0])
        token = _rows(reader, first, (1, x.shape[-1]))
        return reader.make(ClassToken, x, tensors={"token.weight": token[0]})
    return tensors.cat(reader, tensors_, dim)


def _rows(reader: Reader, constant: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a constant as (tokens, features); all samples must have the same."""
    whole = constant.detach()
    try:
        whole = whole.broadcast_to(*whole.shape[:-2], *shape).reshape(-1, *shape)
    except RuntimeError:
        whole = whole.new_empty(0)
    if len(shape) != 2 or not len(whole) or not torch.equal(whole, whole[:1].expand_as(whole)):
        raise reader.error(f"a constant {tuple(constant.shape)} does not fit tokens {shape}")
    return whole[0].clone()


# Picking tokens.


def item(reader: Reader, x: Any, index: Any) -> object:
    """Translate an index: of a shape, of a tuple, or of a sequence's tokens."""
    if not isinstance(x, Value):
        return tensors.item(reader, x, index)
    picked = list(index) if isinstance(index, tuple) else [index]
    while picked and picked[-1] == slice(None):
        picked.pop()
    if all(part in (slice(None), slice(0, None)) for part in picked):
        return x
    pools = {0: "first", -1: "last", x.shape[0] - 1: "last"}
    if len(picked) == 2 and picked[0] == slice(None) and len(x.shape) == 2 and picked[1] in pools:
        return reader.make(TokenPool, x, pool=pools[picked[1]])
    raise reader.error("of a tensor, only the first or the last token can be picked, x[:, 0]")


def mean(reader: Reader, x: Value, dim: Any = None, keepdim: bool = False) -> Value:
    """Translate a mean over tokens, or over both axes of a map."""
    if len(reader.tensor(x).shape) == 2 and dim in (1, -2, (1,), [1]) and not keepdim:
        return reader.make(TokenPool, x, pool="mean")
    return functions.mean(reader, x, dim, keepdim)


def same(reader: Reader, x: Value, *_: Any, **__: Any) -> Value:
    """Return the tensor, for what changes neither values nor shape."""
    return reader.tensor(x)
