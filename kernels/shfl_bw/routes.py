"""Which implementation a product with packed weights takes, and its gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import cast

import torch

from kernels.device import detect
from kernels.environment import forced_kernel
from kernels.select import load, select
from kernels.shfl_bw.activation import backward
from kernels.shfl_bw.dense import dense_of
from kernels.shfl_bw.implementations import (
    CONV_OP,
    OP,
    shfl_bw_conv_workload,
    shfl_bw_workload,
)
from kernels.shfl_bw.packed import places
from kernels.shfl_bw.pattern import as_matrix, like_weight
from kernels.shfl_bw.window import Window

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
Gradients = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Function = Callable[..., torch.Tensor]


def product(
    x: torch.Tensor,
    packed: Tensors,
    bias: torch.Tensor | None,
    *,
    out_features: int,
    activation: str,
    feature_major: bool,
) -> torch.Tensor:
    """Return ``act(W x + bias)`` of x (tokens, in) or (in, tokens), contiguous."""
    tokens, features = reversed(x.shape) if feature_major else x.shape
    function = _chosen(
        (tokens, features),
        out_features,
        packed[0].shape[1],
        len(packed[1]),
        x.dtype,
        x.device,
        feature_major,
        activation,
        forced_kernel(OP),
    )
    return function(
        x,
        *packed,
        bias,
        out_features=out_features,
        activation=activation,
        feature_major=feature_major,
    )


def convolution(
    x: torch.Tensor,
    packed: Tensors,
    bias: torch.Tensor | None,
    window: Window,
    *,
    out_features: int,
    activation: str,
    feature_major: bool,
) -> torch.Tensor:
    """Return the convolution of x (b, c, h, w), in its memory format, or of (c, h, w, b)."""
    shape = (x.shape[3], *x.shape[:3]) if feature_major else tuple(x.shape)
    function = _chosen_conv(
        shape,
        window,
        out_features,
        packed[0].shape[1],
        len(packed[1]),
        x.dtype,
        x.device,
        feature_major,
        activation,
        forced_kernel(CONV_OP),
    )
    y = function(
        x,
        *packed,
        bias,
        out_features=out_features,
        window=window,
        activation=activation,
        feature_major=feature_major,
    )
    return y if feature_major else y.contiguous(memory_format=memory_format(x))


def memory_format(images: torch.Tensor) -> torch.memory_format:
    """Return how images lie: channels-last where they are that and nothing else."""
    last = images.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last and not images.is_contiguous() else torch.contiguous_format


def product_gradients(
    dy: torch.Tensor,
    x: torch.Tensor,
    packed: Tensors,
    bias: torch.Tensor | None,
    *,
    activation: str,
    feature_major: bool,
) -> Gradients:
    """Return the gradients of input, values and bias, by the dense matrix."""
    tokens, upstream = (x.T, dy.T) if feature_major else (x, dy)
    out_features = upstream.shape[1]
    if activation != "none":
        before = product(
            x,
            packed,
            bias,
            out_features=out_features,
            activation="none",
            feature_major=feature_major,
        )
        upstream = backward(activation, upstream, before.T if feature_major else before)
    matrix = dense_of(packed, (out_features, tokens.shape[1]))
    dx, full = upstream @ matrix, upstream.T @ tokens
    dvalues = _values_of(full, packed)
    return (dx.T if feature_major else dx).contiguous(), dvalues, upstream.sum(0)


def convolution_gradients(
    dy: torch.Tensor,
    x: torch.Tensor,
    packed: Tensors,
    bias: torch.Tensor | None,
    window: Window,
    *,
    activation: str,
    feature_major: bool,
) -> Gradients:
    """Return the gradients of input, values and bias, by the dense filters."""
    images, upstream = (x.permute(3, 0, 1, 2), dy.permute(3, 0, 1, 2)) if feature_major else (x, dy)
    out_features, channels = upstream.shape[1], images.shape[1]
    if activation != "none":
        before = convolution(
            images.contiguous(),
            packed,
            bias,
            window,
            out_features=out_features,
            activation="none",
            feature_major=False,
        )
        upstream = backward(activation, upstream, before)
    matrix = dense_of(packed, (out_features, window.taps * channels))
    filters = like_weight(matrix, (out_features, channels, *window.kernel))
    dx, full, dbias = torch.ops.aten.convolution_backward(
        upstream.contiguous(),
        images,
        filters,
        [out_features],
        list(window.stride),
        list(window.padding),
        list(window.dilation),
        False,
        [0, 0],
        1,
        [True, True, True],
    )
    dx = dx.permute(1, 2, 3, 0) if feature_major else dx
    kept = torch.contiguous_format if feature_major else memory_format(x)
    return dx.contiguous(memory_format=kept), _values_of(as_matrix(full), packed), dbias


def _values_of(matrix: torch.Tensor, packed: Tensors) -> torch.Tensor:
    """Return a matrix's entries at the places of the packed values, 0 for padding."""
    values, columns, offsets, rows = packed
    place, column = places(columns, offsets, rows, values.shape[1])
    return matrix[place.clamp(min=0), column] * (place >= 0)


@lru_cache(maxsize=4096)
def _chosen(
    shape: tuple[int, int],
    out_features: int,
    v: int,
    vectors: int,
    dtype: torch.dtype,
    device: torch.device,
    feature_major: bool,
    activation: str,
    forced: str | None,
) -> Function:
    workload = shfl_bw_workload(
        shape,
        out_features,
        v=v,
        density=_density(vectors, out_features, v, shape[1]),
        dtype=str(dtype).removeprefix("torch."),
        feature_major=feature_major,
        activation=activation,
    )
    return cast("Function", load(select(workload, detect(str(device)), force=forced)))


@lru_cache(maxsize=4096)
def _chosen_conv(
    shape: tuple[int, int, int, int],
    window: Window,
    out_features: int,
    v: int,
    vectors: int,
    dtype: torch.dtype,
    device: torch.device,
    feature_major: bool,
    activation: str,
    forced: str | None,
) -> Function:
    workload = shfl_bw_conv_workload(
        shape,
        (shape[0], out_features, *window.output(*shape[2:])),
        v=v,
        density=_density(vectors, out_features, v, window.taps * shape[1]),
        kernel=window.kernel,
        dtype=str(dtype).removeprefix("torch."),
        feature_major=feature_major,
        activation=activation,
    )
    return cast("Function", load(select(workload, detect(str(device)), force=forced)))


def _density(vectors: int, out_features: int, v: int, columns: int) -> float:
    return vectors / (-(-out_features // v) * columns)
