"""Translators of sums, products, joins and shapes: they take torch's arguments by its names."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from search_spaces.architecture.graph import Value
from search_spaces.ops import Add, Concat, Flatten, Multiply, Zero
from search_spaces.trace.reader import BATCH_SIZE, Reader, Translator
from search_spaces.trace.record import name_of


def flatten(reader: Reader, x: Value, start_dim: int = 0, end_dim: int = -1) -> Value:
    """Translate a flattening of all axes but the batch."""
    axes = len(reader.tensor(x).shape) + 1
    if (start_dim % axes, end_dim % axes) != (1, axes - 1):
        raise reader.error(f"only axes 1 to {axes - 1} as one; got {start_dim} to {end_dim}")
    return reader.make(Flatten, x)


def view(reader: Reader, x: Value, *size: Any) -> Value:
    """Translate a view that flattens, ``x.view(x.size(0), -1)``, or changes nothing."""
    own = reader.tensor(x).shape
    shape = reader.sizes(own, *size)
    if shape in (own, (math.prod(own),)):
        return x if shape == own else reader.make(Flatten, x)
    raise reader.error("only views that flatten all axes but the batch, as view(x.size(0), -1)")


def add(reader: Reader, first: Any, other: Any, *, alpha: object = 1) -> object:
    """Translate a sum of tensors; one of sizes is computed."""
    if isinstance(first, int) and isinstance(other, int):
        return first + other
    if alpha != 1:
        raise reader.error("a sum with alpha is not supported")
    for number, value in ((first, other), (other, first)):
        if isinstance(number, int) and number == 0:  # how ``sum`` begins
            return reader.tensor(value)
    inner = reader.node.args[0]
    in_place = reader.node.target is operator.iadd or name_of(reader.node.target).endswith("_")
    # ``a + b + c`` is one sum, as it is written; a sum that is a variable stands for itself.
    joins = inner in reader.sums and inner is reader.node.prev and first is not other
    terms = first.inputs if joins and len(reader.node.prev.users) == 1 else (first,)
    if not in_place:
        reader.sums.add(reader.node)
    return reader.make(Add, *terms, other)


def multiply(reader: Reader, first: Any, other: Any) -> object:
    """Translate a product of tensors; one of sizes is computed."""
    if isinstance(first, int) and isinstance(other, int):
        return first * other
    return reader.make(Multiply, first, other)


def arithmetic(function: Callable[[Any, Any], Any]) -> Translator:
    """Return a translator that computes with sizes, and refuses tensors."""

    def translate(reader: Reader, first: Any, other: Any) -> object:
        if isinstance(first, int) and isinstance(other, int):
            return function(first, other)
        raise reader.error("is understood for sizes only, not for tensors")

    return translate


def cat(reader: Reader, tensors: Any, dim: int = 0) -> Value:
    """Translate a concatenation along channels."""
    axes = len(reader.tensor(tensors[0]).shape) + 1
    if dim % axes != 1:
        raise reader.error(f"only cat along channels, dim=1; got {dim}")
    return reader.make(Concat, *tensors)


def zeros(reader: Reader, like: Value, *size: Any) -> Value:
    """Translate ``x.new_zeros``, of the batch's size."""
    batch, *shape = size[0] if isinstance(size[0], tuple | list) else size
    if batch is not BATCH_SIZE:
        raise reader.error("only zeros of the batch's size, x.new_zeros((x.shape[0], ...))")
    return reader.make(Zero, shape=tuple(shape))


def size(reader: Reader, x: Value, dim: int | None = None) -> object:
    """Return the size of a tensor's axes, or of one of them."""
    shape = (BATCH_SIZE, *reader.tensor(x).shape)
    return shape if dim is None else shape[dim]


def ndim(reader: Reader, x: Value) -> int:
    """Return the number of a tensor's axes, with that of the batch."""
    return len(reader.tensor(x).shape) + 1


def attribute(reader: Reader, x: Value, name: str) -> object:
    """Return the shape or the number of axes of a tensor."""
    if name not in ("shape", "ndim"):
        raise reader.error(f"the attribute {name!r} of a tensor is not supported; shape, ndim are")
    return size(reader, x) if name == "shape" else ndim(reader, x)


def item(reader: Reader, x: Any, index: Any) -> object:
    """Return a part of a shape."""
    if not isinstance(x, tuple) or not isinstance(index, int | slice):
        raise reader.error("indexing is understood for shapes only, not for tensors")
    return x[index]


def same(reader: Reader, x: Value) -> Value:
    """Return the tensor, for what changes nothing."""
    return reader.tensor(x)


def clone(reader: Reader, x: Value) -> Value:
    """Return the tensor for a copy; not :func:`same`, as a copy has memory of its own."""
    return reader.tensor(x)
