"""The implementations of the extended-precision product; imports no torch."""

from __future__ import annotations

from kernels.device import Device
from kernels.select import Implementation
from kernels.workload import Workload

OP = "extended_precision"
"""Name of the operator; its functions take ``(a, b, added, alpha, beta)``, see ``routes``."""


def extended_precision_workload(batch: int, m: int, k: int, n: int) -> Workload:
    """Return the workload of a product of (batch, m, k) and (batch, k, n) in float32."""
    return Workload(OP, ((batch, m, k), (batch, k, n)), (batch, m, n))


def _refuses(workload: Workload, device: Device) -> str | None:
    """Plain PyTorch runs everywhere."""
    if workload.variant != "dense" or workload.fused:
        return f"only the bare product, not {workload.variant} with {workload.fused or 'nothing'}"
    return None if workload.dtype == "float32" else f"only float32, not {workload.dtype}"


def _refuses_portable(workload: Workload, device: Device) -> str | None:
    if device.kind != "cuda" or (device.capability or (0, 0)) < (8, 0):
        return "needs a GPU of compute capability 8.0 or later"
    return _refuses(workload, device)


def _refuses_hopper(workload: Workload, device: Device) -> str | None:
    if device.kind != "cuda" or device.capability != (9, 0):
        return "needs a Hopper GPU (compute capability 9.0)"
    return _refuses(workload, device)


IMPLEMENTATIONS = (
    Implementation(
        op=OP,
        name="torch",
        entry="kernels.extended_precision.routes:product_torch",
        refuses=_refuses,
        preference=10,
        note="torch's own product, in the precision that torch is set to",
    ),
    Implementation(
        op=OP,
        name="reference",
        entry="kernels.extended_precision.routes:product_reference",
        refuses=_refuses,
        preference=0,
        note="products of halves in plain PyTorch; slow",
    ),
    Implementation(
        op=OP,
        name="hopper",
        entry="kernels.extended_precision.routes:product_hopper",
        refuses=_refuses_hopper,
        preference=30,
        note="three products of halves on Hopper's tensor cores (CUDA)",
    ),
    Implementation(
        op=OP,
        name="portable",
        entry="kernels.extended_precision.routes:product_portable",
        refuses=_refuses_portable,
        preference=5,
        note="three products of halves on tensor cores (Triton); timed on an H100 alone",
    ),
)
