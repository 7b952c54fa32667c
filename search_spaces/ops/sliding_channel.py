"""Sliding-channel convolution (DSXplore): pointwise, each output reads a sliding channel window."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar, cast

from kernels.errors import NasError
from kernels.sliding_channel.implementations import OP
from kernels.sliding_channel.windows import Order, Rule, window_starts
from kernels.workload import Scalar
from search_spaces.errors import OpError
from search_spaces.ops.activation import activation
from search_spaces.ops.attributes import attr, choice, flag, integer, number, ratio
from search_spaces.ops.base import Op, Part, Reach, Shape, expression, image, register
from search_spaces.ops.conv import absorb_tail, tail_parts
from search_spaces.ops.norm import EPS, MOMENTUM

if TYPE_CHECKING:
    from search_spaces.ops.base import Mask


@register
@dataclass(frozen=True)
class SlidingChannel(Op):
    """1x1 convolution over windows of ``c / cg`` channels that overlap by the ratio ``co``.

    Source: Wang et al., DSXplore, IPDPS 2021. ``rule`` and ``order`` choose among the windows the
    authors' code uses; :func:`kernels.sliding_channel.windows.window_starts` defines them.
    """

    kind: ClassVar[str] = "sliding"
    plain: ClassVar[bool] = True

    out_channels: int = attr(integer())
    cg: int = attr(integer(), "cg", default=2)
    co: Fraction = attr(ratio(), "co", default=Fraction(1, 2))
    rule: str = attr(choice("floor", "shift"), default="floor")
    order: str = attr(choice("cyclic", "block"), default="cyclic")
    bias: bool = attr(flag("bias"), default=False)
    norm: str | None = attr(choice("bn", optional=True), default=None)
    eps: float = attr(number(), "eps", default=EPS)
    momentum: float = attr(number(0.0, 1.0), "mom", default=MOMENTUM)
    act: str | None = attr(activation(), default=None)

    def idle(self) -> dict[str, object]:
        idle: dict[str, object] = {"rule": "floor"} if self.order == "block" else {}
        return idle if self.norm else {**idle, "eps": EPS, "momentum": MOMENTUM}

    def infer(self, inputs: tuple[Shape, ...]) -> Shape:
        c, h, w = image(inputs, "sliding-channel convolution")
        if c % self.cg:
            raise OpError(f"cg {self.cg} does not divide {c} input channels")
        self._starts(c)
        return self.out_channels, h, w

    def _starts(self, channels: int) -> tuple[int, ...]:
        rule, order = cast("Rule", self.rule), cast("Order", self.order)
        try:
            return window_starts(channels, self.out_channels, self.cg, self.co, rule, order)
        except NasError as problem:
            raise OpError(str(problem)) from None

    def params(self, inputs: tuple[Shape, ...]) -> int:
        vectors = (1 if self.bias else 0) + (2 if self.norm else 0)
        return self.out_channels * (inputs[0][0] // self.cg + vectors)

    def macs(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        c, h, w = inputs[0]
        return self.out_channels * (c // self.cg) * h * w

    def reach(self, inputs: tuple[Shape, ...]) -> Reach:
        return Reach(channels=inputs[0][0] // self.cg, weighted=True)

    def masks(self, inputs: tuple[Shape, ...]) -> tuple[Mask, ...]:
        import numpy as np

        c = inputs[0][0]
        offsets = (np.arange(c)[None, :] - np.asarray(self._starts(c))[:, None]) % c
        return (offsets < c // self.cg,)

    def parts(self, inputs: tuple[Shape, ...]) -> tuple[Part, ...]:
        source = expression(
            "SlidingChannelConv2d",
            inputs[0][0],
            self.out_channels,
            self.cg,
            f'"{self.co}"' if Fraction(repr(float(self.co))) != self.co else float(self.co),
            rule=(f'"{self.rule}"', '"floor"'),
            order=(f'"{self.order}"', '"cyclic"'),
            bias=(self.bias, False),
        )
        conv = Part("conv", source, uses=("SlidingChannelConv2d",))
        return (conv, *tail_parts(self, self.out_channels))

    def work(self) -> tuple[str, dict[str, Scalar]]:
        attrs: dict[str, Scalar] = {"cg": self.cg, "co": float(self.co)}
        return OP, {**attrs, "order": self.order, "rule": self.rule}

    def absorb(self, following: Op) -> Op | None:
        return absorb_tail(self, following)
