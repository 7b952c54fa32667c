"""The implementations of low-bit linear layers and convolutions; imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from kernels.arbitrary_precision.plan import Path, Tile, tiles
from kernels.arbitrary_precision.plan_direct import Window
from kernels.arbitrary_precision.plan_direct import tiles as direct_tiles
from kernels.arbitrary_precision.precision import Precision
from kernels.device import Device
from kernels.select import Implementation
from kernels.workload import Workload

LINEAR = "low_bit_linear"
"""Name of the linear operator; its functions take ``(x, weights)``."""

CONV = "low_bit_conv2d"
"""Name of the convolution; its functions take ``(x, weights, geometry)``."""


_PLANES: dict[Path, tuple[int, str]] = {
    "wgmma": (20, "bit planes on Hopper's 1-bit tensor cores"),
    "mma": (5, "bit planes on 1-bit tensor cores; not timed yet"),
}
"""Preference and note: int8 has 10."""

_DIRECT = (30, "windows of bit planes straight from memory to 1-bit tensor cores")


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
    return "the exact path is faster on a CPU" if device.kind == "cpu" else None


def _refuses_planes(path: Path, workload: Workload, device: Device) -> str | None:
    """Refuse what the CUDA kernels cannot do."""
    if device.kind != "cuda":
        return "needs a GPU"
    if workload.dtype not in ("float16", "bfloat16"):
        return f"its outputs are float16 or bfloat16; the input is {workload.dtype}"
    if workload.output[1 if workload.op == CONV else -1] % 8:
        return "outputs must be a multiple of 8"
    capability = device.capability or (0, 0)
    precision = Precision.parse(workload.variant)
    if any(tile.path == path for tile in tiles(precision, capability)):
        return None
    smallest = Tile(path, 32, 1, 1 if path == "wgmma" else 4, 1, 2)
    return smallest.problem(precision, capability) or "no tile fits"


def _refuses_direct(workload: Workload, device: Device) -> str | None:
    """Refuse what the direct convolution cannot do."""
    if (refusal := _refuses_planes("wgmma", workload, device)) is not None:
        return refusal
    names = ("kernel_height", "kernel_width")
    height, width = (int(str(workload.attr(name))) for name in names)
    window = Window(height * width, width, -(-workload.inputs[0][1] // 64) * 8)
    if next(direct_tiles(Precision.parse(workload.variant), window), None) is None:
        return "no tile fits: bits or channels are too many"
    return None


def _implementations(op: str, function: str) -> list[Implementation]:
    home = "kernels.arbitrary_precision"
    return [
        Implementation(
            op, "exact", f"{home}.exact_path:{function}", _refuses_exact, 0, "whole numbers as real"
        ),
        Implementation(
            op, "int8", f"{home}.int8_path:{function}", _refuses_int8, 10, "bytes on tensor cores"
        ),
        *(
            Implementation(
                op,
                path,
                f"{home}.planes_path:{function}_{path}",
                partial(_refuses_planes, path),
                preference,
                note,
            )
            for path, (preference, note) in _PLANES.items()
        ),
    ]


IMPLEMENTATIONS = (
    *_implementations(LINEAR, "linear"),
    *_implementations(CONV, "conv2d"),
    Implementation(
        CONV,
        "direct",
        "kernels.arbitrary_precision.direct_path:conv2d",
        _refuses_direct,
        *_DIRECT,
    ),
)
"""Read by ``kernels.select``."""
