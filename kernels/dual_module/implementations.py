"""The implementations of a ReLU feed-forward block for one vector; imports no torch."""

from __future__ import annotations

from kernels.device import Device
from kernels.select import Implementation
from kernels.workload import Workload

OP = "dual_module"
"""Name of the operator; its functions make a call of a fitted ``DualModuleFFN``, see ``routes``."""


def feed_forward_workload(
    inputs: int, hidden: int, outputs: int, *, ratio: float = 0.8, dtype: str = "float16"
) -> Workload:
    """Return the workload of one vector.

    Args:
        inputs: d.
        hidden: n.
        outputs: m.
        ratio: share of the hidden units that are not computed.
        dtype: of the weights.
    """
    attrs = (("hidden", hidden), ("ratio", ratio))
    return Workload(OP, ((1, inputs),), (1, outputs), attrs, dtype)


def _refuses(workload: Workload, device: Device) -> str | None:
    if workload.variant != "dense" or workload.fused:
        return f"only the bare block, not {workload.variant} with {workload.fused or 'nothing'}"
    return None


def _refuses_fused(workload: Workload, device: Device) -> str | None:
    if device.kind != "cuda" or (device.capability or (0, 0)) < (9, 0):
        return "needs a GPU of compute capability 9.0 or later"
    if workload.inputs[0][0] != 1:
        return f"skips rows for one vector, not for {workload.inputs[0][0]}"
    if workload.dtype != "float16" or workload.output[1] % 8:
        return f"only float16 and outputs in eights, not {workload.dtype}, {workload.output[1]}"
    return _refuses(workload, device)


IMPLEMENTATIONS = (
    Implementation(
        op=OP,
        name="dense",
        entry="kernels.dual_module.routes:dense",
        refuses=_refuses,
        preference=10,
        note="both layers by torch, every row computed",
    ),
    Implementation(
        op=OP,
        name="lossless",
        entry="kernels.dual_module.routes:lossless",
        refuses=_refuses_fused,
        preference=5,
        note="one launch; rows of the second matrix that meet a zero are left out",
    ),
    Implementation(
        op=OP,
        name="dual",
        entry="kernels.dual_module.routes:dual",
        refuses=_refuses_fused,
        preference=20,
        note="one launch; rows of both matrices are computed where an estimate says they matter",
    ),
)
