"""The implementations of sliding-channel convolution; imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from kernels.device import Device
from kernels.select import Implementation
from kernels.sliding_channel.plan import Structure, whole_shift
from kernels.sliding_channel.windows import Order, Rule
from kernels.workload import Workload

OP = "sliding_channel"
"""Name of the operator; its functions take ``(x, weight, starts, bias=None)``."""

WHOLE_SHIFT = ("cuda", "grouped")
"""Implementations whose functions also take ``shift``, which spares them a look at ``starts``."""


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


def _bare(workload: Workload) -> str | None:
    if workload.variant != "dense":
        return f"only the dense variant, not {workload.variant}"
    return f"fuses nothing, asked for {', '.join(workload.fused)}" if workload.fused else None


def _structure(workload: Workload) -> Structure | str:
    """Return the windows where they move by a whole number of channels, else why they do not."""
    channels, cg = workload.inputs[0][1], int(str(workload.attr("cg")))
    co, rule, order = (str(workload.attr(name)) for name in ("co", "rule", "order"))
    shift = whole_shift(channels, cg, co, rule, order)
    if shift is None:
        return f"windows must move by a whole number of channels, not by {order} order of {co}"
    return Structure(channels, workload.output[1], channels // cg, shift)


def _refuses_cuda(workload: Workload, device: Device) -> str | None:
    if device.kind != "cuda" or (device.capability or (0, 0)) < (8, 0):
        return "needs a GPU of compute capability 8.0 or later"
    if workload.dtype not in ("float16", "bfloat16"):
        return f"only float16 and bfloat16, not {workload.dtype}"
    if workload.layout != "channels_last":
        return f"only channels_last, not {workload.layout}"
    structure = _structure(workload)
    return _bare(workload) or (structure if isinstance(structure, str) else None)


def _refuses_grouped(workload: Workload, device: Device) -> str | None:
    if workload.dtype not in ("float32", "float64"):
        return f"only float32 and float64, not {workload.dtype}"
    if workload.layout != "contiguous":
        return f"only contiguous images, not {workload.layout}"
    height, width = workload.inputs[0][2:]
    if height * width < 64:
        return f"measured slower than dense below 64 pixels an image, has {height * width}"
    structure = _structure(workload)
    if isinstance(structure, str):
        return structure
    if structure.period > 8:
        return f"measured slower than dense beyond 8 windows, has {structure.period}"
    return _bare(workload)


IMPLEMENTATIONS = (
    Implementation(
        op=OP,
        name="cuda",
        entry="kernels.sliding_channel.fast:sliding_channel_conv2d_cuda",
        refuses=_refuses_cuda,
        preference=30,
        note="tensor-core kernels; one dense matrix for shapes that they do not take",
    ),
    Implementation(
        op=OP,
        name="grouped",
        entry="kernels.sliding_channel.grouped:sliding_channel_conv2d_grouped",
        refuses=_refuses_grouped,
        # One thread of an AMD EPYC (Zen 3), torch 2.15, fp32, contiguous: 1.1 to 5 times faster
        # than dense forward, 1.1 to 3 forward + backward, at 8x8 pixels and more; 3 times slower
        # at 64x128x4x4 with 16 windows. On an H200: 403 us against 674, B64 256x56x56 cg 2.
        preference=20,
        note="one batched matrix product per window",
    ),
    Implementation(
        op=OP,
        name="dense",
        entry="kernels.sliding_channel.dense:sliding_channel_conv2d",
        refuses=_refuses,
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
