"""The implementations of low-bit linear layers and convolutions; imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec

from kernels.arbitrary_precision.encodings import longest_sum
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
"""Preference and note: bytes have 25, int8 has 10."""

_PLANES_PAY = {LINEAR: 9, CONV: 4}
"""Up to how many products of planes, p q, they are faster than bytes (H100 and H200)."""

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


def _refuses_bytes(workload: Workload, device: Device) -> str | None:
    """Refuse what the Triton kernels cannot do."""
    if device.kind != "cuda":
        return "needs a GPU"
    if find_spec("triton") is None:
        return "Triton is not installed"
    if device.capability is None or not _is_roomy(device.capability):
        return "needs the shared memory of an A100, an H100 or a B200"
    if workload.dtype not in ("float16", "bfloat16", "float32"):
        return f"its inputs are float16, bfloat16 or float32, not {workload.dtype}"
    precision = Precision.parse(workload.variant)
    products = precision.weight_bits * precision.activation_bits
    if products <= _PLANES_PAY[workload.op] and _refuses_planes("wgmma", workload, device) is None:
        return "bit planes are faster"
    added = workload.inputs[0][1 if workload.op == CONV else -1] * _taps(workload)
    if added > (longest := longest_sum(precision.weights, precision.activations())):
        return f"sums of {added} products may not fit 32 bits; {longest} do"
    return None


def _is_roomy(capability: tuple[int, int]) -> bool:
    return capability == (8, 0) or 9 <= capability[0] <= 10


def _taps(workload: Workload) -> int:
    if workload.op != CONV:
        return 1
    return int(str(workload.attr("kernel_height"))) * int(str(workload.attr("kernel_width")))


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
    width = int(str(workload.attr("kernel_width")))
    window = Window(_taps(workload), width, -(-workload.inputs[0][1] // 64) * 8)
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
            op,
            "bytes",
            f"{home}.bytes_path:{function}",
            _refuses_bytes,
            25,
            "bytes on tensor cores, in two launches",
        ),
        Implementation(
            op,
            "int8",
            f"{home}.int8_path:{function}",
            _refuses_int8,
            10,
            "bytes by torch's product, any sums",
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
