"""Sliding-channel convolution as a module that picks the fastest implementation."""

from __future__ import annotations

from fractions import Fraction
from typing import cast

import torch

from kernels.environment import forced_kernel
from kernels.errors import NasError
from kernels.select import implementations, load
from kernels.sliding_channel import exported, plain
from kernels.sliding_channel.choice import (
    Product,
    Settings,
    chosen,
    element_type,
    layout_of,
    product_for,
    with_shift,
)
from kernels.sliding_channel.dense import sliding_channel_conv2d
from kernels.sliding_channel.implementations import OP
from kernels.sliding_channel.plan import whole_shift
from kernels.sliding_channel.windows import Order, Rule, window_starts


class SlidingChannelConv2d(plain.SlidingChannelConv2d):
    """1x1 convolution whose output channels each read a sliding window of the input channels.

    Input (b, in_channels, h, w), output (b, out_channels, h, w). Parameters: ``weight``
    (out_channels, in_channels / cg) and, if asked for, ``bias`` (out_channels,), both uniform
    within one over the root of the window's width. ``starts`` (out_channels,) is a buffer outside
    the state dict. Which implementation runs is chosen once per device and input shape; see
    ``kernels.select``. A NaN in one input channel may reach every output channel.

    Args:
        in_channels: input channels.
        out_channels: output channels.
        cg: number of channel groups; divides ``in_channels``.
        co: overlap of neighbouring windows, ``0 <= co < 1``.
        rule: rounding rule, see ``window_starts``.
        order: window order, see ``window_starts``.
        bias: whether to add a bias.

    Raises:
        NasError: arguments that give no windows.

    Example:
        >>> layer = SlidingChannelConv2d(16, 32, cg=2, co=0.5)
        >>> layer(torch.randn(8, 16, 4, 4)).shape
        torch.Size([8, 32, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        cg: int,
        co: float | str | Fraction,
        *,
        rule: Rule = "floor",
        order: Order = "cyclic",
        bias: bool = False,
    ) -> None:
        window_starts(in_channels, out_channels, cg, co, rule, order)  # refuses bad arguments
        super().__init__(in_channels, out_channels, cg, co, rule=rule, order=order, bias=bias)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.cg = cg
        self.co = co
        self.rule: Rule = rule
        self.order: Order = order
        # Text for the ratio: Dynamo makes symbols of floats, which are no constants to it.
        self._settings: Settings = (in_channels, out_channels, cg, str(co), rule, order)
        self._shift = whole_shift(in_channels, cg, co, rule, order)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``x`` (b, in_channels, h, w) to (b, out_channels, h, w).

        Raises:
            NasError: ``x`` has another rank or channel count, or the forced implementation
                cannot run.
        """
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise NasError(
                f"Expected an input of shape (b, {self.in_channels}, h, w), got {tuple(x.shape)}."
            )
        if _exporting():
            y: torch.Tensor = exported.sliding_channel_conv2d(
                x, self.weight, self.starts, self.bias, *self._settings[2:]
            )
            return y
        return self._product(x)(x, self.weight, self.starts, self.bias)

    def _product(self, x: torch.Tensor) -> Product:
        if x.device.type not in ("cpu", "cuda"):  # shapes only (meta), or a device of torch's own
            return sliding_channel_conv2d
        if torch.compiler.is_compiling():
            name = _traced_name(element_type(x), layout_of(x), x.device, *self._settings)
            return with_shift(name, _PRODUCTS[name], self._shift)
        return product_for(x, self._settings)

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        return (
            f"{self.in_channels}, {self.out_channels}, cg={self.cg}, co={self.co}, "
            f"rule={self.rule!r}, order={self.order!r}, bias={self.bias is not None}"
        )


# Tracing finds functions here because Dynamo cannot import; all are loaded with this module.
_PRODUCTS = {entry.name: cast("Product", load(entry)) for entry in implementations(OP)}


# The tracer runs this: in what it traces, torch 2.11 calls every compilation an export.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _exporting() -> bool:
    return torch.compiler.is_exporting()


# The tracer runs this and sees only the name.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _traced_name(
    dtype: torch.dtype, layout: str, device: torch.device, *settings: *Settings
) -> str:
    """Choose at the smallest shape: a traced graph may be run at any batch and image size."""
    shape = (1, settings[0], 1, 1)
    return chosen(settings, shape, dtype, layout, device, forced_kernel(OP))[0]
