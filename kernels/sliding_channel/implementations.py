"""The implementations of sliding-channel convolution; imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from kernels.device import Device
from kernels.select import Implementation
from kernels.sliding_channel.windows import Order, Rule
from kernels.workload import Workload

OP = "sliding_channel"
"""Name of the operator; its functions take ``(x, weight, starts, bias=None)``."""


def sliding_channel_workload(
    shape: Sequence[int],
    out_channels: int,
    *,
    cg: int,
    co: float | str | Fraction,
    rule: Rule = "floor",
    order: Order = "cyclic",
    dtype: str = "float32",
    layout: str = "contiguous",
) -> Workload:
    """Return the workload of one sliding-channel convolution.

    Args:
        shape: input shape (b, c_in, h, w).
        out_channels: output channels.
        cg: number of channel groups.
        co: overlap ratio.
        rule: rounding rule of the windows.
        order: order of the windows.
        dtype: element type, a torch name without the prefix.
        layout: ``"contiguous"`` or ``"channels_last"``.
    """
    batch, _, height, width = shape
    attrs = (("cg", cg), ("co", float(Fraction(str(co)))), ("order", order), ("rule", rule))
    output = (batch, out_channels, height, width)
    return Workload(OP, (tuple(shape),), output, attrs, dtype, layout)


def _refuses(workload: Workload, device: Device) -> str | None:
    """Plain PyTorch runs everywhere, but only the bare product in a floating-point type."""
    if workload.variant != "dense":
        return f"only the dense variant, not {workload.variant}"
    if workload.fused:
        return f"fuses nothing, asked for {', '.join(workload.fused)}"
    if "float" not in workload.dtype:
        return f"only floating-point types, not {workload.dtype}"
    return None


IMPLEMENTATIONS = (
    Implementation(
        op=OP,
        name="dense",
        entry="kernels.sliding_channel.dense:sliding_channel_conv2d",
        refuses=_refuses,
        # Forward + backward, batch 64, fp32, one thread of an AMD EPYC (Zen 3), torch 2.15,
        # 16x32x32 to 128x4x4, cg 2 and 8, both layouts: dense 2.3-10 ms, reference 29-696 ms.
        # One GEMM per distinct window and one grouped convolution over the gathered windows
        # were 1.3 to 25 times slower than dense at each of these shapes, so neither is here.
        preference=10,
        note="1x1 convolution with the (c_out, c_in) matrix",
    ),
    Implementation(
        op=OP,
        name="reference",
        entry="kernels.sliding_channel.reference:sliding_channel_conv2d_reference",
        refuses=_refuses,
        preference=0,
        note="the definition: gathers every window",
    ),
)
