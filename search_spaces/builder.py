"""The hand that writes networks: used by search spaces, and by anyone who describes one in code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

from search_spaces import scope
from search_spaces.architecture import Architecture
from search_spaces.architecture.graph import Value, assign_variant, share_parameters
from search_spaces.architecture.node import Variant
from search_spaces.errors import ArchitectureError
from search_spaces.ops import (
    Activation,
    AdaptivePool,
    Add,
    AvgPool,
    ChannelShuffle,
    Concat,
    Conv,
    Dropout,
    Flatten,
    Input,
    Linear,
    MaxPool,
    Multiply,
    Norm,
    Op,
    Shape,
    SlidingChannel,
    Zero,
)
from search_spaces.ops.norm import EPS, MOMENTUM
from search_spaces.token_layers import TokenLayers

Size = int | tuple[int, int]
"""A size per axis, or one for both."""


def _place(name: str) -> str:
    outer = scope.current()
    return f"{outer}/{name}" if outer else name


class NetworkBuilder(TokenLayers):
    """Adds operators one by one; shapes are inferred, and checked, as they are added.

    Every method takes the values it reads and returns a new one with a ``shape`` (without the
    batch axis). ``name`` stands behind the current scope in errors and module names. What
    transformers need is in :mod:`search_spaces.token_layers`.

    Args:
        input_shape: of one sample, without the batch axis.
        vocabulary: for token ids, how many there are; 0 for numbers.

    Attributes:
        input: the network's input.

    Example:
        >>> net = NetworkBuilder((1, 8, 8))
        >>> x = net.conv(net.input, 16, kernel=3)
        >>> x = net.add(x, net.conv(x, 16, kernel=3))
        >>> net.freeze(net.classifier(x, 10)).text
        'input 1x8x8; conv 16 k3 bn relu; conv 16 k3 bn relu; add @1,2; gap; flatten; linear 10'
    """

    def __init__(self, input_shape: Shape, vocabulary: int = 0) -> None:
        self.input = Value(Input.of(tuple(input_shape), vocabulary), (), "input")

    def apply(self, op: Op, *inputs: Value, name: str = "") -> Value:
        """Add any operator.

        Raises:
            ArchitectureError: it does not accept the inputs; the message begins with the place.
        """
        return Value(op, inputs, _place(name or op.kind))

    def freeze(self, output: Value) -> Architecture:
        """Return the finished network."""
        return Architecture.freeze(output)

    def variant(self, values: Sequence[Value], variant: Variant | str) -> None:
        """Have a set of nodes executed by a variant, such as ``"shfl_bw(V=64,density=0.25)"``.

        Raises:
            ArchitectureError: one of them has a variant already.
        """
        assign_variant(values, Variant.parse(variant) if isinstance(variant, str) else variant)

    def share(self, value: Value, partner: Value) -> None:
        """Make two equal operators use the same parameters.

        Raises:
            ArchitectureError: they differ, or have no parameters.
        """
        share_parameters(value, partner)

    # Layers with weights.

    def conv(
        self,
        x: Value,
        channels: int,
        *,
        kernel: Size = 1,
        stride: Size = 1,
        groups: int = 1,
        padding: Size | None = None,
        dilation: Size = 1,
        norm: str | None = "bn",
        act: str | None = "relu",
        bias: bool = False,
        eps: float = EPS,
        momentum: float = MOMENTUM,
        name: str = "conv",
    ) -> Value:
        """Add convolution, batch norm and activation as one node; the size is kept at stride 1."""
        op = Conv.of(
            channels, kernel, stride, dilation, padding, groups, bias, norm, eps, momentum, act
        )
        return Value(op, (x,), _place(name))

    def depthwise(
        self,
        x: Value,
        *,
        kernel: Size = 3,
        stride: Size = 1,
        norm: str | None = "bn",
        act: str | None = "relu",
        name: str = "depthwise",
    ) -> Value:
        """Add a convolution in which every channel is its own group."""
        c = x.facts.shape[0]
        return self.conv(
            x, c, kernel=kernel, stride=stride, groups=c, norm=norm, act=act, name=name
        )

    def sliding_channel(
        self,
        x: Value,
        channels: int,
        *,
        cg: int = 2,
        co: float | str | Fraction = 0.5,
        rule: str = "floor",
        order: str = "cyclic",
        norm: str | None = "bn",
        act: str | None = "relu",
        bias: bool = False,
        name: str = "sliding",
    ) -> Value:
        """Add a sliding-channel convolution (DSXplore): 1x1, windows of ``c / cg`` channels."""
        op = SlidingChannel.of(channels, cg, co, rule, order, bias, norm, EPS, MOMENTUM, act)
        return self.apply(op, x, name=name)

    def linear(
        self, x: Value, features: int, *, act: str | None = None, bias: bool = True, name: str = ""
    ) -> Value:
        """Add a linear map of the last axis, and its activation."""
        return self.apply(Linear.of(out_features=features, no_bias=not bias, act=act), x, name=name)

    def norm(
        self,
        x: Value,
        norm: str = "bn",
        *,
        eps: float = EPS,
        momentum: float = MOMENTUM,
        name: str = "",
    ) -> Value:
        """Add a normalisation layer: ``bn`` over channels, ``ln`` or ``rms`` over the last axis."""
        return self.apply(Norm.of(norm=norm, eps=eps, momentum=momentum), x, name=name)

    # Layers without.

    def activation(self, x: Value, act: str = "relu", *, name: str = "") -> Value:
        """Add a non-linearity."""
        return self.apply(Activation.of(act=act), x, name=name or act)

    def max_pool(
        self, x: Value, *, kernel: Size, stride: Size, padding: Size = 0, name: str = ""
    ) -> Value:
        """Add a maximum over windows."""
        return self.apply(MaxPool.of(kernel=kernel, stride=stride, padding=padding), x, name=name)

    def avg_pool(
        self, x: Value, *, kernel: Size, stride: Size, padding: Size = 0, name: str = ""
    ) -> Value:
        """Add a mean over windows; padding is not counted."""
        return self.apply(AvgPool.of(kernel=kernel, stride=stride, padding=padding), x, name=name)

    def global_pool(self, x: Value, *, size: Size = 1, name: str = "pool") -> Value:
        """Add the mean over the whole map, or over ``size`` bins of it."""
        return self.apply(AdaptivePool.of(size=size), x, name=name)

    def flatten(self, x: Value, *, name: str = "") -> Value:
        """Make a vector of a feature map."""
        return self.apply(Flatten.of(), x, name=name)

    def shuffle(self, x: Value, groups: int, *, name: str = "") -> Value:
        """Interleave the channels of groups."""
        return self.apply(ChannelShuffle.of(groups=groups), x, name=name)

    def dropout(self, x: Value, p: float, *, path: bool = False, name: str = "") -> Value:
        """Zero values while training; with ``path`` whole samples (stochastic depth)."""
        return self.apply(Dropout.of(p=p, path=path), x, name=name)

    def zero(self, shape: Shape, *, name: str = "") -> Value:
        """Return the absent value of a shape: a cut edge."""
        return self.apply(Zero.of(shape=tuple(shape)), name=name)

    # Joins.

    def add(self, *values: Value, name: str = "") -> Value:
        """Add the sum of values of one shape."""
        return self.apply(Add.of(), *values, name=name)

    def multiply(self, first: Value, second: Value, *, name: str = "") -> Value:
        """Add the product; one of the two may be (c, 1, 1)."""
        return self.apply(Multiply.of(), first, second, name=name)

    def concat(self, values: Iterable[Value], *, name: str = "") -> Value:
        """Add the concatenation along channels."""
        return self.apply(Concat.of(), *values, name=name)

    # Groups of nodes that every convolutional space needs.

    def conv_block(
        self,
        x: Value,
        width: int,
        *,
        kind: str = "standard",
        kernel: int = 3,
        stride: int = 1,
        cg: int = 2,
        co: float | str | Fraction = 0.5,
        act: str | None = "relu",
    ) -> Value:
        """Add a spatial convolution of one of three kinds.

        Args:
            x: a feature map.
            width: output channels.
            kind: ``standard`` (k x k), ``separable`` (depthwise k x k, pointwise) or ``sliding``
                (depthwise k x k, sliding-channel).
            kernel: k.
            stride: of the k x k convolution.
            cg: channel groups of a sliding-channel convolution.
            co: overlap of its windows.
            act: activation of the last node; inside the block it is always ReLU.
        """
        if kind == "standard":
            return self.conv(x, width, kernel=kernel, stride=stride, act=act)
        if kind == "separable":
            x = self.depthwise(x, kernel=kernel, stride=stride)
            return self.conv(x, width, act=act, name="pointwise")
        if kind == "sliding":
            x = self.depthwise(x, kernel=kernel, stride=stride)
            return self.sliding_channel(x, width, cg=cg, co=co, act=act)
        raise ArchitectureError(
            f"{scope.current() or 'block'}: kind must be standard, separable or sliding, "
            f"got {kind!r}"
        )

    def squeeze_excite(self, x: Value, squeezed: int, *, gate: str = "sigmoid") -> Value:
        """Scale channels by a gate computed from their means (Hu et al., CVPR 2018)."""
        s = self.global_pool(x, name="squeeze")
        s = self.conv(s, squeezed, norm=None, bias=True, name="reduce")
        s = self.conv(s, x.shape[0], norm=None, bias=True, act=gate, name="expand")
        return self.multiply(x, s, name="scale")

    def classifier(self, x: Value, classes: int) -> Value:
        """Add global average pooling and a linear layer; the result is (classes,)."""
        pooled = self.flatten(self.global_pool(x))
        return self.linear(pooled, classes, name="classifier")
