"""The implementations of low-bit linear layers and convolutions; imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from kernels.arbitrary_precision.precision import Precision
from kernels.device import Device
from kernels.select import Implementation
from kernels.workload import Workload

LINEAR = "low_bit_linear"
"""Name of the linear operator; its functions take ``(x, weights)``."""

CONV = "low_bit_conv2d"
"""Name of the convolution; its functions take ``(x, weights, geometry)``."""


def linear_workload(
    shape: Sequence[int], outputs: int, precision: Precision, *, dtype: str = "float32"
) -> Workload:
    """Return the workload of one linear layer.

    Args:
        shape: of the input (..., k).
        outputs: m.
        precision: bits.
        dtype: of the input; ``"codes"`` where it comes packed.
    """
    output = (*shape[:-1], outputs)
    return Workload(LINEAR, (tuple(shape),), output, dtype=dtype, variant=str(precision))


def conv_workload(
    shape: Sequence[int],
    output: Sequence[int],
    kernel: tuple[int, int],
    precision: Precision,
    *,
    dtype: str = "float32",
) -> Workload:
    """Return the workload of one convolution.

    Args:
        shape: of the input (b, c, h, w).
        output: shape of the output.
        kernel: height and width of the window.
        precision: bits.
        dtype: of the input; ``"codes"`` where it comes packed.
    """
    attrs = (("kernel_height", kernel[0]), ("kernel_width", kernel[1]))
    return Workload(
        CONV, (tuple(shape),), tuple(output), attrs, dtype, "contiguous", str(precision)
    )


def _refuses_exact(workload: Workload, device: Device) -> str | None:
    return None


def _refuses_int8(workload: Workload, device: Device) -> str | None:
    if device.kind == "cpu":
        return "the exact path is faster on a CPU"
    return None


IMPLEMENTATIONS = tuple(
    Implementation(
        op, name, f"kernels.arbitrary_precision.{module}:{function}", refuses, rank, note
    )
    for op, function in ((LINEAR, "linear"), (CONV, "conv2d"))
    for name, module, refuses, rank, note in (
        ("exact", "exact_path", _refuses_exact, 0, "whole numbers through floating-point products"),
        ("int8", "int8_path", _refuses_int8, 10, "signed bytes on 8-bit tensor cores"),
    )
)
"""Read by ``kernels.select``."""
