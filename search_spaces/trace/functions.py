"""Translators of activations, dropout and pools: they take torch's arguments by its names."""

from __future__ import annotations

from typing import Any

from search_spaces.architecture.graph import Value
from search_spaces.ops import Activation, AdaptivePool, AvgPool, Dropout, Flatten, MaxPool
from search_spaces.trace.reader import Reader, Translator


def activation(act: str) -> Translator:
    """Return the translator of an activation's function.

    Args:
        act: name of the activation.
    """

    def translate(reader: Reader, x: Value, inplace: object = False) -> Value:
        return reader.make(Activation, x, act=act)

    return translate


def activation_layer(act: str) -> Translator:
    """Return the translator of an activation's layer.

    Args:
        act: name of the activation.
    """
    return lambda reader, module, x: reader.make(Activation, x, act=act)


def gelu(reader: Reader, x: Value, approximate: str = "none") -> Value:
    """Translate the GELU, exact or by a hyperbolic tangent."""
    return reader.make(Activation, x, act="gelu" if approximate == "none" else "gelu_tanh")


def dropout(
    reader: Reader, x: Value, p: float = 0.5, training: object = True, inplace: object = False
) -> Value:
    """Translate dropout; where it is off, its input stands for it."""
    if training is True and p:
        raise reader.error("drops in evaluation too; pass training=self.training")
    return x if training is False else reader.make(Dropout, x, p=p)


def max_pool(
    reader: Reader,
    x: Value,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: object = False,
    return_indices: object = False,
) -> Value:
    """Translate max pooling over windows."""
    if _pair(dilation) != (1, 1) or return_indices:
        raise reader.error("max pooling with dilation or return_indices is not supported")
    kernel = _pair(kernel_size)
    return reader.make(
        MaxPool,
        x,
        kernel=kernel,
        stride=_pair(stride or kernel),
        padding=_pair(padding),
        ceil=ceil_mode,
    )


def avg_pool(
    reader: Reader,
    x: Value,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: object = False,
    count_include_pad: object = True,
    divisor_override: object = None,
) -> Value:
    """Translate average pooling over windows."""
    if divisor_override is not None:
        raise reader.error("average pooling with divisor_override is not supported")
    kernel, edge = _pair(kernel_size), _pair(padding)
    counted = bool(count_include_pad) and edge != (0, 0)
    return reader.make(
        AvgPool,
        x,
        kernel=kernel,
        stride=_pair(stride or kernel),
        padding=edge,
        ceil=ceil_mode,
        count_padding=counted,
    )


def adaptive_pool(reader: Reader, x: Value, output_size: Any) -> Value:
    """Translate average pooling to a size; None keeps that of the input."""
    shape = reader.tensor(x).shape
    size = zip(_pair(output_size), shape[1:], strict=False)
    return reader.make(AdaptivePool, x, size=tuple(n if k is None else k for k, n in size))


def mean(reader: Reader, x: Value, dim: Any = None, keepdim: bool = False) -> Value:
    """Translate a mean over both axes of a feature map, which is a global pool."""
    axes = len(reader.tensor(x).shape) + 1
    dims = dim if isinstance(dim, tuple | list) else [dim]
    if axes != 4 or {item % axes if isinstance(item, int) else item for item in dims} != {2, 3}:
        raise reader.error(f"only means over both axes of a feature map, [2, 3]; got {dim}")
    pooled = reader.make(AdaptivePool, x)
    return pooled if keepdim else reader.make(Flatten, pooled)


def _pair(size: Any) -> tuple[Any, ...]:
    values = tuple(size) if isinstance(size, tuple | list) else (size,)
    return values * 2 if len(values) == 1 else values
