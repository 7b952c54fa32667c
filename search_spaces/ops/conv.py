"""Two-dimensional convolution with its normalisation and activation: one node, one kernel."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from search_spaces.errors import OpError
from search_spaces.ops.activation import Activation, activation, activation_part
from search_spaces.ops.attributes import attr, choice, flag, integer, number, pair
from search_spaces.ops.base import (
    Op,
    Part,
    Reach,
    Shape,
    expression,
    image,
    register,
    short,
    window_output,
)
from search_spaces.ops.norm import EPS, MOMENTUM, Norm, batch_norm_part

if TYPE_CHECKING:
    from search_spaces.ops.base import Mask

Pair = tuple[int, int]


def absorb_tail(op: Op, following: Op) -> Op | None:
    """Fold a normalisation or activation into an operator with ``norm`` and ``act`` attributes."""
    taken: dict[str, Any] = vars(op)
    if taken["act"] is not None:
        return None
    if isinstance(following, Activation):
        return replace(op, act=following.act)  # type: ignore[call-arg]
    if isinstance(following, Norm) and following.norm == "bn" and taken["norm"] is None:
        tail = {n: getattr(following, n) for n in ("norm", "eps", "momentum", "act")}
        return replace(op, **tail)
    return None


def tail_parts(op: Op, channels: int) -> tuple[Part, ...]:
    """Give the layers of the ``norm`` and ``act`` attributes of an operator."""
    attrs: dict[str, Any] = vars(op)
    parts = []
    if attrs["norm"]:
        parts.append(batch_norm_part(channels, attrs["eps"], attrs["momentum"]))
    if attrs["act"]:
        parts.append(activation_part(attrs["act"], inplace=True))
    return tuple(parts)


@register
@dataclass(frozen=True)
class Conv(Op):
    """Convolution, optional batch norm, optional activation; (c, h, w) -> (out, h', w').

    Standard, grouped, depthwise (groups = channels) and pointwise (kernel 1) are attribute values.
    ``padding`` defaults to the one that keeps the size at stride 1 and odd kernels.
    """

    kind: ClassVar[str] = "conv"
    plain: ClassVar[bool] = True

    out_channels: int = attr(integer())
    kernel: Pair = attr(pair(), "k", default=(1, 1))
    stride: Pair = attr(pair(), "s", default=(1, 1))
    dilation: Pair = attr(pair(), "d", default=(1, 1))
    padding: Pair = attr(pair(0), "p", default=None)
    groups: int = attr(integer(), "g", default=1)
    bias: bool = attr(flag("bias"), default=False)
    norm: str | None = attr(choice("bn", optional=True), default=None)
    eps: float = attr(number(), "eps", default=EPS)
    momentum: float = attr(number(0.0, 1.0), "mom", default=MOMENTUM)
    act: str | None = attr(activation(), default=None)

    def _same_padding(self) -> Pair:
        (kh, kw), (dh, dw) = self.kernel, self.dilation
        return dh * (kh - 1) // 2, dw * (kw - 1) // 2

    def idle(self) -> dict[str, object]:
        (kh, kw), (dh, dw) = self.kernel, self.dilation
        idle: dict[str, object] = {"dilation": (1 if kh == 1 else dh, 1 if kw == 1 else dw)}
        return idle if self.norm else {**idle, "eps": EPS, "momentum": MOMENTUM}

    def default(self, field: dataclasses.Field[Any]) -> object:
        return self._same_padding() if field.name == "padding" else field.default

    def infer(self, inputs: tuple[Shape, ...]) -> Shape:
        c, h, w = image(inputs, "conv")
        for what, size in (("input", c), ("output", self.out_channels)):
            if size % self.groups:
                raise OpError(f"groups {self.groups} does not divide {size} {what} channels")
        height, width = window_output(
            (h, w),
            kernel=self.kernel,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )
        return self.out_channels, height, width

    def _weights(self, inputs: tuple[Shape, ...]) -> int:
        kh, kw = self.kernel
        return self.out_channels * (inputs[0][0] // self.groups) * kh * kw

    def params(self, inputs: tuple[Shape, ...]) -> int:
        vectors = (1 if self.bias else 0) + (2 if self.norm else 0)
        return self._weights(inputs) + vectors * self.out_channels

    def macs(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return self._weights(inputs) * output[1] * output[2]

    def reach(self, inputs: tuple[Shape, ...]) -> Reach:
        (kh, kw), (dh, dw) = self.kernel, self.dilation
        span = (dh * (kh - 1), dw * (kw - 1))
        channels = inputs[0][0] // self.groups
        return Reach(span, self.stride, channels, taps=kh * kw, weighted=True)

    def masks(self, inputs: tuple[Shape, ...]) -> tuple[Mask, ...]:
        import numpy as np

        block = np.ones((self.out_channels // self.groups, inputs[0][0] // self.groups), np.bool_)
        return (np.kron(np.eye(self.groups, dtype=np.bool_), block),)

    def parts(self, inputs: tuple[Shape, ...]) -> tuple[Part, ...]:
        source = expression(
            "nn.Conv2d",
            inputs[0][0],
            self.out_channels,
            short(self.kernel),
            stride=(short(self.stride), 1),
            padding=(short(self.padding), 0),
            dilation=(short(self.dilation), 1),
            groups=(self.groups, 1),
            bias=(self.bias, True),
        )
        return (Part("conv", source), *tail_parts(self, self.out_channels))

    def absorb(self, following: Op) -> Op | None:
        return absorb_tail(self, following)
