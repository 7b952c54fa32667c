"""Pooling over windows and over the whole map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces.errors import OpError
from search_spaces.ops.attributes import attr, flag, pair
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

Pair = tuple[int, int]


@dataclass(frozen=True)
class _WindowPool(Op):
    """What max and average pooling share."""

    kernel: Pair = attr(pair(), "k")
    stride: Pair = attr(pair(), "s", default=(1, 1))
    padding: Pair = attr(pair(0), "p", default=(0, 0))
    ceil: bool = attr(flag("ceil"), default=False)

    def infer(self, inputs: tuple[Shape, ...]) -> Shape:
        c, h, w = image(inputs, "pooling")
        if any(2 * p > k for p, k in zip(self.padding, self.kernel, strict=True)):
            raise OpError(f"padding {short(self.padding)} is over half the window {self.kernel}")
        size = window_output(
            (h, w),
            kernel=self.kernel,
            stride=self.stride,
            padding=self.padding,
            ceil=self.ceil,
        )
        return (c, *size)

    def reach(self, inputs: tuple[Shape, ...]) -> Reach:
        kh, kw = self.kernel
        return Reach((kh - 1, kw - 1), self.stride, taps=kh * kw)

    def is_identity(self, inputs: tuple[Shape, ...]) -> bool:
        return self.kernel == self.stride == (1, 1)

    def _source(self, function: str, **options: tuple[object, object]) -> Part:
        source = expression(
            function,
            short(self.kernel),
            stride=(short(self.stride), short(self.kernel)),
            padding=(short(self.padding), 0),
            ceil_mode=(self.ceil, False),
            **options,
        )
        return Part("pool", source)


@register
@dataclass(frozen=True)
class MaxPool(_WindowPool):
    """Maximum over a window."""

    kind: ClassVar[str] = "maxpool"

    def parts(self, inputs: tuple[Shape, ...]) -> tuple[Part, ...]:
        return (self._source("nn.MaxPool2d"),)


@register
@dataclass(frozen=True)
class AvgPool(_WindowPool):
    """Mean over a window; padding is not counted unless ``count_padding``."""

    kind: ClassVar[str] = "avgpool"

    count_padding: bool = attr(flag("padded"), default=False)

    def idle(self) -> dict[str, object]:
        return {} if self.padding != (0, 0) else {"count_padding": False}

    def parts(self, inputs: tuple[Shape, ...]) -> tuple[Part, ...]:
        counted = self.count_padding or self.padding == (0, 0)
        return (self._source("nn.AvgPool2d", count_include_pad=(counted, True)),)


@register
@dataclass(frozen=True)
class AdaptivePool(Op):
    """Mean over the bins that divide a map into ``size``; size 1 is global average pooling."""

    kind: ClassVar[str] = "gap"

    size: Pair = attr(pair(), default=(1, 1))

    def infer(self, inputs: tuple[Shape, ...]) -> Shape:
        return (image(inputs, "adaptive pooling")[0], *self.size)

    def reach(self, inputs: tuple[Shape, ...]) -> Reach:
        _, h, w = inputs[0]
        (kh, sh), (kw, sw) = self._window(h, self.size[0]), self._window(w, self.size[1])
        return Reach((kh - 1, kw - 1), (sh, sw), taps=kh * kw, everywhere=self.size == (1, 1))

    @staticmethod
    def _window(n: int, bins: int) -> Pair:
        """Return the widest bin and the (rounded down) step of adaptive pooling along an axis."""
        widest = max(-(-(i + 1) * n // bins) - i * n // bins for i in range(bins))
        return widest, max(1, n // bins)

    def is_identity(self, inputs: tuple[Shape, ...]) -> bool:
        return inputs[0][1:] == self.size

    def parts(self, inputs: tuple[Shape, ...]) -> tuple[Part, ...]:
        return (Part("pool", expression("nn.AdaptiveAvgPool2d", short(self.size))),)
