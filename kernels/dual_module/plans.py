"""Compile-time choices of the kernels, and those that the bench tries; imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True, slots=True)
class Plan:
    """Compile-time choices of a kernel.

    Attributes:
        warps: of a block; one block a multiprocessor.
        cluster: blocks that compute the projection together; 1 where the GPU has no clusters.
        held: chunks of the input of which a warp projects at once: it holds their signs while the
            vector is coming in.
        groups: of chunks, into which a part of the input is divided among a cluster's blocks.
        deep: loads of a row that a thread has on the way.
        pieces: of a row of an LSTM, which warps take one by one.
        ahead: KiB of rows a block that come into the second-level cache before it is known whether
            they matter.
        overlap: whether a step begins while the kernel in front of it still runs.
    """

    warps: int
    cluster: int
    held: int
    groups: int = 1
    deep: int = 8
    pieces: int = 1
    ahead: int = 48
    overlap: bool = True

    def alone(self) -> Plan:
        """Return the same where the GPU has no clusters."""
        return replace(self, cluster=1, groups=1, overlap=False)

    def defines(self) -> dict[str, int]:
        """Return the kernel's constants."""
        found = {name.upper(): int(value) for name, value in asdict(self).items()}
        del found["AHEAD"]
        return found | ({"HOPPER": 1} if self.cluster > 1 or self.overlap else {})


LSTM_PLANS = {
    "24 warps": Plan(24, 8, 3, groups=2),
    "28 warps": Plan(28, 8, 3, groups=2),
}
FFN_PLANS = {"16 loads": Plan(16, 8, 4, groups=4, deep=16)}
DENSE_PLANS = {
    "half rows": Plan(warps=24, cluster=1, held=1, pieces=2),
    "whole rows": Plan(warps=24, cluster=1, held=1),
    "whole rows, 96 ahead": Plan(warps=24, cluster=1, held=1, ahead=96),
}
"""What the bench tries: of both steps, and of the dense LSTM step that one is held against."""

LSTM_PLAN, FFN_PLAN = LSTM_PLANS["28 warps"], FFN_PLANS["16 loads"]
"""Of the steps where there are clusters."""
