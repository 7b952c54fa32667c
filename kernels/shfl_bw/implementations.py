"""The implementations of products with packed weights; imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from kernels.device import Device
from kernels.select import Implementation
from kernels.shfl_bw.pays import refuses_cost
from kernels.shfl_bw.plan import VECTORS
from kernels.workload import Scalar, Workload

OP = "shfl_bw"
"""Matrix product; its functions take ``(x, values, columns, offsets, rows, bias)``."""

CONV_OP = "shfl_bw_conv"
"""Convolution as implicit matrix product; its functions take the same and a window."""

FEATURE_MAJOR = "feature_major"
"""Layout of tensors whose first axis holds features: (features, tokens), (c, h, w, b)."""


def shfl_bw_workload(
    shape: Sequence[int],
    out_features: int,
    *,
    v: int,
    density: float,
    dtype: str = "float32",
    feature_major: bool = False,
    activation: str = "none",
) -> Workload:
    """Return the workload of one product.

    Args:
        shape: (tokens, in_features), whatever the layout.
        out_features: rows of the weight.
        v: rows of a group.
        density: share of the vectors that is kept.
        dtype: element type, a torch name without the prefix.
        feature_major: whether features are the first axis in memory.
        activation: what the epilogue applies.
    """
    return Workload(
        OP,
        (tuple(shape),),
        (shape[0], out_features),
        _attributes(v, density),
        dtype,
        FEATURE_MAJOR if feature_major else "contiguous",
        fused=() if activation == "none" else (activation,),
    )


def shfl_bw_conv_workload(
    shape: Sequence[int],
    output: Sequence[int],
    *,
    v: int,
    density: float,
    kernel: tuple[int, int],
    dtype: str = "float32",
    feature_major: bool = False,
    activation: str = "none",
) -> Workload:
    """Return the workload of one convolution.

    Args:
        shape: (b, c, h, w), whatever the layout.
        output: (b, out, oh, ow).
        v: rows of a group.
        density: share of the vectors that is kept.
        kernel: height and width of the filters.
        dtype: element type, a torch name without the prefix.
        feature_major: whether memory holds (c, h, w, b).
        activation: what the epilogue applies.
    """
    size: tuple[tuple[str, Scalar], ...] = (("kernel", "x".join(map(str, kernel))),)
    return Workload(
        CONV_OP,
        (tuple(shape),),
        tuple(output),
        (*_attributes(v, density), *size),
        dtype,
        FEATURE_MAJOR if feature_major else "contiguous",
        fused=() if activation == "none" else (activation,),
    )


def _attributes(v: int, density: float) -> tuple[tuple[str, Scalar], ...]:
    return (("V", v), ("density", round(density, 4)))


def _refuses(workload: Workload, device: Device) -> str | None:
    if "float" not in workload.dtype:
        return f"only floating-point types, not {workload.dtype}"
    return None


def _refuses_hopper(workload: Workload, device: Device) -> str | None:
    if device.kind != "cuda" or device.capability != (9, 0):
        return "needs a Hopper GPU (compute capability 9.0)"
    return _refuses_halves(workload)


def _refuses_halves(workload: Workload) -> str | None:
    if workload.dtype not in ("float16", "bfloat16"):
        return f"float16 and bfloat16, not {workload.dtype}"
    v = int(str(workload.attr("V")))
    return None if v in VECTORS else f"V must be one of {', '.join(map(str, VECTORS))}, not {v}"


def _refuses_slower(workload: Workload, device: Device) -> str | None:
    """Refuse what the Hopper kernel cannot do, and where the dense product is expected to win."""
    reason = _refuses_hopper(workload, device)
    if reason is not None:
        return reason
    v, density = int(str(workload.attr("V"))), float(str(workload.attr("density")))
    (given,), output = workload.inputs, workload.output
    convolution = workload.op == CONV_OP
    taps = prod(map(int, str(workload.attr("kernel")).split("x"))) if convolution else 1
    return refuses_cost(
        -(-output[1] // v),
        v,
        taps * given[1],
        density,
        prod(output) // output[1],
        turned=None if workload.layout == FEATURE_MAJOR else (prod(given), prod(output)),
        convolution=convolution,
    )


def _refuses_portable(workload: Workload, device: Device) -> str | None:
    if device.kind != "cuda" or (device.capability or (0, 0)) < (8, 0):
        return "needs a GPU of compute capability 8.0 or more"
    return _refuses_halves(workload)


def _refuses_grouped(workload: Workload, device: Device) -> str | None:
    if device.kind != "cpu":
        return "batched products of groups: for CPUs"
    v, density = int(str(workload.attr("V"))), float(str(workload.attr("density")))
    if v < 8:
        return f"gathers as much as it multiplies with V={v}; from 8 on"
    if density > 0.5:
        return f"no faster than dense at density {density:g}; up to 0.5"
    return _refuses(workload, device)


BY_NAME = -10
"""Rank of what is taken only where it is forced by name."""

IMPLEMENTATIONS = tuple(
    Implementation(op, name, f"kernels.shfl_bw.{module}", refuses, preference, note)
    for op, suffix in ((OP, ""), (CONV_OP, "_conv2d"))
    for name, module, refuses, preference, note in (
        (
            "hopper",
            f"hopper:shfl_bw{suffix}_hopper",
            _refuses_slower,
            30,
            "gathered columns on tensor cores (wgmma)",
        ),
        (
            "hopper-any",
            f"hopper:shfl_bw{suffix}_hopper",
            _refuses_hopper,
            BY_NAME,
            "the same, also where the dense product is expected to win",
        ),
        (
            "portable",
            f"portable:shfl_bw{suffix}_portable",
            _refuses_portable,
            BY_NAME,
            "gathered columns on tensor cores (Triton)",
        ),
        (
            "grouped",
            f"grouped:shfl_bw{suffix}_grouped",
            _refuses_grouped,
            20,
            "batched products of groups on gathered features",
        ),
        ("dense", f"dense:shfl_bw{suffix}_dense", _refuses, 10, "the matrix with its zeros"),
        (
            "reference",
            f"reference:shfl_bw{suffix}_reference",
            _refuses,
            0,
            "the definition, group by group",
        ),
    )
)
