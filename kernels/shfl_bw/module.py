"""Layers with packed weights: what a pruned network runs with."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from kernels.errors import NasError
from kernels.shfl_bw.activation import check_activation
from kernels.shfl_bw.op import shfl_bw_convolution, shfl_bw_product
from kernels.shfl_bw.packed import FORMAT_VERSION, Packed, check, pack
from kernels.shfl_bw.pattern import Pattern, group_count
from kernels.shfl_bw.prune import vectors_kept
from kernels.shfl_bw.window import Pair, Window


class _PackedLayer(nn.Module):
    """A packed weight as parameter and buffers, and what all layers do with it.

    ``values`` is a parameter and can be fine-tuned; where weights are is fixed. How many vectors
    there are follows from the sizes, V and the density, so a state dict fits every layer of the
    same arguments. It carries the version of the format.
    """

    columns: torch.Tensor
    offsets: torch.Tensor
    rows: torch.Tensor
    format_version: torch.Tensor

    def __init__(self, packed: Packed, bias: torch.Tensor | None, activation: str) -> None:
        super().__init__()
        check_activation(activation)
        self.activation = activation
        self.shape = packed.shape
        self.v = packed.v
        self.values = nn.Parameter(packed.values.detach().clone())
        for name in ("columns", "offsets", "rows"):
            self.register_buffer(name, getattr(packed, name).clone())
        self.register_buffer("format_version", torch.tensor(FORMAT_VERSION))
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self.register_load_state_dict_post_hook(_check_loaded)  # type: ignore[no-untyped-call]

    @property
    def packed(self) -> Packed:
        """The weight; shares memory with the layer."""
        return Packed(self.values, self.columns, self.offsets, self.rows, self.shape)

    def _tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.values, self.columns, self.offsets, self.rows

    def _described(self) -> str:
        tail = "" if self.activation == "none" else f", activation={self.activation!r}"
        density = round(self.packed.density, 4)
        return f"v={self.v}, density={density}, bias={self.bias is not None}{tail}"


def _check_loaded(layer: nn.Module, _: Any) -> None:
    """Refuse a state of another version or without meaning: kernels trust it."""
    assert isinstance(layer, _PackedLayer)
    version = int(layer.format_version)
    if version != FORMAT_VERSION:
        raise NasError(
            f"This state is packed in version {version}; this release reads {FORMAT_VERSION}."
        )
    check(layer.packed)


class ShflBWLinear(_PackedLayer):
    """Fully connected layer with a packed Shfl-BW weight; (..., in) -> (..., out).

    Made with random weights at random places, as many in every group (up to one); ``from_dense``
    packs trained ones.

    Args:
        in_features: input features.
        out_features: output features.
        v: rows of a vector.
        density: share of the vectors that is kept.
        bias: whether to add a bias.
        activation: applied last, among :data:`kernels.shfl_bw.activation.ACTIVATIONS`.
        feature_major: whether input and output are (in, tokens) and (out, tokens).

    Raises:
        NasError: sizes, V, density or activation that cannot be.

    Example:
        >>> ShflBWLinear(64, 128, v=32, density=0.25)(torch.randn(2, 5, 64)).shape
        torch.Size([2, 5, 128])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        v: int,
        density: float,
        bias: bool = True,
        activation: str = "none",
        feature_major: bool = False,
    ) -> None:
        packed = synthetic(out_features, in_features, v, density)
        super().__init__(packed, _random_bias(packed) if bias else None, activation)
        self.feature_major = feature_major

    @classmethod
    def from_dense(
        cls,
        weight: torch.Tensor,
        pattern: Pattern,
        bias: torch.Tensor | None = None,
        *,
        activation: str = "none",
        feature_major: bool = False,
    ) -> ShflBWLinear:
        """Return the layer of a weight (out, in), of which a pattern is kept."""
        return cls.from_packed(
            pack(weight, pattern), bias, activation=activation, feature_major=feature_major
        )

    @classmethod
    def from_packed(
        cls,
        packed: Packed,
        bias: torch.Tensor | None = None,
        *,
        activation: str = "none",
        feature_major: bool = False,
    ) -> ShflBWLinear:
        """Return the layer of a packed weight."""
        layer = cls.__new__(cls)
        _PackedLayer.__init__(layer, packed, bias, activation)
        layer.feature_major = feature_major
        return layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x (..., in) to (..., out), or (in, tokens) to (out, tokens) where feature-major.

        Raises:
            NasError: ``x`` has another number of features.
        """
        out_features, features = self.shape
        axis = 0 if self.feature_major else -1
        if x.dim() < 1 or x.shape[axis] != features or (self.feature_major and x.dim() != 2):
            wanted = f"({features}, tokens)" if self.feature_major else f"(..., {features})"
            raise NasError(f"Expected an input of shape {wanted}, got {tuple(x.shape)}.")
        y = shfl_bw_product(
            x if self.feature_major else x.reshape(-1, features),
            self._tensors(),
            self.bias,
            out_features=out_features,
            activation=self.activation,
            feature_major=self.feature_major,
        )
        return y if self.feature_major else y.view(*x.shape[:-1], out_features)

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        return f"{self.shape[1]}, {self.shape[0]}, {self._described()}"


class ShflBWConv2d(_PackedLayer):
    """Convolution with packed Shfl-BW filters; (b, c, h, w) -> (b, out, oh, ow).

    Filters are pruned as a matrix (out, kh * kw * c). The output has the input's memory format.

    Args:
        in_channels: input channels.
        out_channels: output channels.
        kernel_size: of the filters; like all sizes one number or (height, width).
        stride: step.
        padding: zeros around.
        dilation: distance of taps.
        v: rows of a vector.
        density: share of the vectors that is kept.
        bias: whether to add a bias.
        activation: applied last.
        feature_major: whether input and output are (c, h, w, b) and (out, oh, ow, b).

    Raises:
        NasError: sizes, V, density or activation that cannot be.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        *,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        dilation: int | Pair = 1,
        v: int,
        density: float,
        bias: bool = True,
        activation: str = "none",
        feature_major: bool = False,
    ) -> None:
        window = Window(*map(_pair, (kernel_size, stride, padding, dilation)))
        packed = synthetic(out_channels, window.taps * in_channels, v, density)
        super().__init__(packed, _random_bias(packed) if bias else None, activation)
        self.window, self.feature_major = window, feature_major

    @classmethod
    def from_dense(
        cls,
        weight: torch.Tensor,
        pattern: Pattern,
        bias: torch.Tensor | None = None,
        *,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        dilation: int | Pair = 1,
        activation: str = "none",
        feature_major: bool = False,
    ) -> ShflBWConv2d:
        """Return the layer of filters (out, in, kh, kw), of which a pattern is kept."""
        height, width = weight.shape[2:]
        layer = cls.__new__(cls)
        _PackedLayer.__init__(layer, pack(weight, pattern), bias, activation)
        layer.window = Window((height, width), *map(_pair, (stride, padding, dilation)))
        layer.feature_major = feature_major
        return layer

    @property
    def in_channels(self) -> int:
        """Input channels."""
        return self.shape[1] // self.window.taps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x (b, c, h, w) to (b, out, oh, ow), or (c, h, w, b) where feature-major.

        Raises:
            NasError: ``x`` has another rank or number of channels.
        """
        axis = 0 if self.feature_major else 1
        if x.dim() != 4 or x.shape[axis] != self.in_channels:
            names = ("{c}", "h", "w", "b") if self.feature_major else ("b", "{c}", "h", "w")
            wanted = ", ".join(names).format(c=self.in_channels)
            raise NasError(f"Expected an input of shape ({wanted}), got {tuple(x.shape)}.")
        return shfl_bw_convolution(
            x,
            self._tensors(),
            self.bias,
            window=self.window,
            out_features=self.shape[0],
            activation=self.activation,
            feature_major=self.feature_major,
        )

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        window = self.window
        sizes = f"stride={window.stride}, padding={window.padding}, dilation={window.dilation}"
        head = f"{self.in_channels}, {self.shape[0]}, {window.kernel}, {sizes}"
        return f"{head}, {self._described()}"


def synthetic(rows: int, columns: int, v: int, density: float) -> Packed:
    """Return random weights at random places with a density, evenly dealt to the groups.

    Raises:
        NasError: sizes, V or density that cannot be.
    """
    if columns < 1 or not 0.0 <= density <= 1.0:
        raise NasError(f"Expected columns and a density of 0 to 1, got {columns} and {density}.")
    groups = group_count(rows, v)
    vectors = vectors_kept(rows, columns, v, density)
    counts = torch.tensor([vectors // groups + (g < vectors % groups) for g in range(groups)])
    kept = torch.rand(groups, columns).argsort(1).argsort(1) < counts[:, None]
    order = torch.randperm(rows)
    padding = torch.full((groups * v - rows,), -1)
    return Packed(
        nn.init.uniform_(torch.empty(vectors, v), -1, 1) / math.sqrt(max(1, density * columns)),
        kept.nonzero()[:, 1].to(torch.int32),
        torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(torch.int32),
        torch.cat([order, padding]).to(torch.int32),
        (rows, columns),
    )


def _random_bias(packed: Packed) -> torch.Tensor:
    bound = 1 / math.sqrt(max(1.0, packed.density * packed.shape[1]))
    return torch.empty(packed.shape[0]).uniform_(-bound, bound)


def _pair(size: int | Pair) -> Pair:
    return (size, size) if isinstance(size, int) else size
