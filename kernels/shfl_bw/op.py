"""Products with packed weights as operators: schema, fake and autograd rules.

Which implementation runs is chosen where the operator runs, so a traced graph stays valid on
another machine. Outputs are contiguous; those of images have the memory format of the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from kernels.shfl_bw.routes import (
    Tensors,
    convolution,
    convolution_gradients,
    memory_format,
    product,
    product_gradients,
)
from kernels.shfl_bw.window import Window


def shfl_bw_product(
    x: torch.Tensor,
    packed: Tensors,
    bias: torch.Tensor | None = None,
    *,
    out_features: int,
    activation: str = "none",
    feature_major: bool = False,
) -> torch.Tensor:
    """Return ``act(W x + bias)`` for packed W, with gradients of input, values and bias.

    Args:
        x: (tokens, in), or (in, tokens) where feature-major. Under autocast all is cast.
        packed: values, columns, offsets and rows; see :class:`kernels.shfl_bw.packed.Packed`.
        bias: (out_features,).
        out_features: rows of W.
        activation: among :data:`kernels.shfl_bw.activation.ACTIVATIONS`.
        feature_major: how input and output lie.
    """
    x, packed, bias = _cast(x, packed, bias)
    arguments = (x.contiguous(), *packed, bias, out_features, activation, feature_major)
    if torch.compiler.is_compiling():
        y: torch.Tensor = shfl_bw(*arguments)
        return y
    return _EagerProduct.apply(*arguments)  # type: ignore[no-any-return]


def shfl_bw_convolution(
    x: torch.Tensor,
    packed: Tensors,
    bias: torch.Tensor | None = None,
    *,
    window: Window,
    out_features: int,
    activation: str = "none",
    feature_major: bool = False,
) -> torch.Tensor:
    """Return the convolution of x (b, c, h, w), or (c, h, w, b) where feature-major; as above."""
    x, packed, bias = _cast(x, packed, bias)
    x = x.contiguous(memory_format=torch.contiguous_format if feature_major else memory_format(x))
    sizes = (window.kernel, window.stride, window.padding, window.dilation)
    arguments = (x, *packed, bias, out_features, *sizes, activation, feature_major)
    if torch.compiler.is_compiling():
        y: torch.Tensor = shfl_bw_conv(*arguments)
        return y
    return _EagerConvolution.apply(*arguments)  # type: ignore[no-any-return]


def _cast(
    x: torch.Tensor, packed: Tensors, bias: torch.Tensor | None
) -> tuple[torch.Tensor, Tensors, torch.Tensor | None]:
    kind = x.device.type
    if not torch.is_autocast_enabled(kind):
        return x, packed, bias
    dtype = torch.get_autocast_dtype(kind)
    values, *numbers = packed
    cast = None if bias is None else bias.to(dtype)
    return x.to(dtype), (values.to(dtype), *numbers), cast  # type: ignore[return-value]


def _product(
    x: torch.Tensor,
    values: torch.Tensor,
    columns: torch.Tensor,
    offsets: torch.Tensor,
    rows: torch.Tensor,
    bias: torch.Tensor | None,
    out_features: int,
    activation: str,
    feature_major: bool,
) -> torch.Tensor:
    """Return the product as an operator that tracing sees whole."""
    return product(
        x,
        (values, columns, offsets, rows),
        bias,
        out_features=out_features,
        activation=activation,
        feature_major=feature_major,
    )


shfl_bw = torch.library.custom_op("paretonas::shfl_bw", mutates_args=())(_product)


@shfl_bw.register_fake
def _(
    x: torch.Tensor,
    values: torch.Tensor,
    columns: torch.Tensor,
    offsets: torch.Tensor,
    rows: torch.Tensor,
    bias: torch.Tensor | None,
    out_features: int,
    activation: str,
    feature_major: bool,
) -> torch.Tensor:
    shape = (out_features, x.shape[1]) if feature_major else (x.shape[0], out_features)
    return x.new_empty(shape)


def _product_backward(
    dy: torch.Tensor,
    x: torch.Tensor,
    values: torch.Tensor,
    columns: torch.Tensor,
    offsets: torch.Tensor,
    rows: torch.Tensor,
    bias: torch.Tensor | None,
    activation: str,
    feature_major: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of input, values and bias."""
    return product_gradients(
        dy,
        x,
        (values, columns, offsets, rows),
        bias,
        activation=activation,
        feature_major=feature_major,
    )


shfl_bw_backward = torch.library.custom_op("paretonas::shfl_bw_backward", mutates_args=())(
    _product_backward
)


@shfl_bw_backward.register_fake
def _(
    dy: torch.Tensor,
    x: torch.Tensor,
    values: torch.Tensor,
    columns: torch.Tensor,
    offsets: torch.Tensor,
    rows: torch.Tensor,
    bias: torch.Tensor | None,
    activation: str,
    feature_major: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    out_features = dy.shape[0 if feature_major else 1]
    return torch.empty_like(x), torch.empty_like(values), dy.new_empty(out_features)


def _convolution(
    x: torch.Tensor,
    values: torch.Tensor,
    columns: torch.Tensor,
    offsets: torch.Tensor,
    rows: torch.Tensor,
    bias: torch.Tensor | None,
    out_features: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    activation: str,
    feature_major: bool,
) -> torch.Tensor:
    """Return the convolution as an operator that tracing sees whole."""
    return convolution(
        x,
        (values, columns, offsets, rows),
        bias,
        _window(kernel, stride, padding, dilation),
        out_features=out_features,
        activation=activation,
        feature_major=feature_major,
    )


shfl_bw_conv = torch.library.custom_op("paretonas::shfl_bw_conv", mutates_args=())(_convolution)


@shfl_bw_conv.register_fake
def _(
    x: torch.Tensor,
    values: torch.Tensor,
    columns: torch.Tensor,
    offsets: torch.Tensor,
    rows: torch.Tensor,
    bias: torch.Tensor | None,
    out_features: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    activation: str,
    feature_major: bool,
) -> torch.Tensor:
    window = _window(kernel, stride, padding, dilation)
    height, width = x.shape[1:3] if feature_major else x.shape[2:]
    down, across = window.output(height, width)
    if feature_major:
        return x.new_empty(out_features, down, across, x.shape[3])
    return torch.empty(
        (x.shape[0], out_features, down, across),
        dtype=x.dtype,
        device=x.device,
        memory_format=memory_format(x),
    )


def _convolution_backward(
    dy: torch.Tensor,
    x: torch.Tensor,
    values: torch.Tensor,
    columns: torch.Tensor,
    offsets: torch.Tensor,
    rows: torch.Tensor,
    bias: torch.Tensor | None,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    activation: str,
    feature_major: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of input, values and bias."""
    return convolution_gradients(
        dy,
        x,
        (values, columns, offsets, rows),
        bias,
        _window(kernel, stride, padding, dilation),
        activation=activation,
        feature_major=feature_major,
    )


shfl_bw_conv_backward = torch.library.custom_op(
    "paretonas::shfl_bw_conv_backward", mutates_args=()
)(_convolution_backward)


@shfl_bw_conv_backward.register_fake
def _(
    dy: torch.Tensor,
    x: torch.Tensor,
    values: torch.Tensor,
    columns: torch.Tensor,
    offsets: torch.Tensor,
    rows: torch.Tensor,
    bias: torch.Tensor | None,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    activation: str,
    feature_major: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    out_features = dy.shape[0 if feature_major else 1]
    return torch.empty_like(x), torch.empty_like(values), dy.new_empty(out_features)


def _window(
    kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Window:
    pairs = [(sizes[0], sizes[1]) for sizes in (kernel, stride, padding, dilation)]
    return Window(*pairs)


# Inputs are (x, values, columns, offsets, rows, bias, out_features, *settings).
_TENSORS = 6


def _save(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.save_for_backward(*inputs[:_TENSORS])
    ctx.settings = inputs[_TENSORS + 1 :]


def _gradients(ctx: Any, found: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor | None, ...]:
    dx, dvalues, dbias = found
    biased = ctx.saved_tensors[_TENSORS - 1] is not None
    none = (None,) * (1 + len(ctx.settings))
    return dx, dvalues, None, None, None, dbias if biased else None, *none


def _traced_backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    return _gradients(ctx, shfl_bw_backward(dy.contiguous(), *ctx.saved_tensors, *ctx.settings))


def _traced_conv_backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    found = shfl_bw_conv_backward(dy.contiguous(), *ctx.saved_tensors, *ctx.settings)
    return _gradients(ctx, found)


shfl_bw.register_autograd(_traced_backward, setup_context=_save)
shfl_bw_conv.register_autograd(_traced_conv_backward, setup_context=_save)


class _EagerProduct(torch.autograd.Function):
    """The same without the dispatcher, which costs tens of microseconds a call."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> torch.Tensor:
        _save(ctx, inputs, inputs[0])
        return _product(*inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        found = _product_backward(dy.contiguous(), *ctx.saved_tensors, *ctx.settings)
        return _gradients(ctx, found)


class _EagerConvolution(torch.autograd.Function):
    """As above."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> torch.Tensor:
        _save(ctx, inputs, inputs[0])
        return _convolution(*inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        found = _convolution_backward(dy.contiguous(), *ctx.saved_tensors, *ctx.settings)
        return _gradients(ctx, found)
