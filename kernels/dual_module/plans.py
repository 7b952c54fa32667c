"""Compile-time choices of the kernels, and those that the bench tries; imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """Compile-time choices of a kernel.

    Attributes:
        warps: of a block; one block a multiprocessor.
        cluster: blocks that compute the projection together; 1 where the GPU has no clusters.
        held: products of the projection whose signs a warp holds while the vector is coming in.
        deep: loads of a row that a thread has on the way.
        pieces: of a row of an LSTM, which warps take one by one.
        early: rows of a second matrix that are on the way before hidden values are known.
        soon: matrices whose listed rows come into the second-level cache first.
        ahead: KiB of rows a block that come into the second-level cache before it is known whether
            they matter.
        steal: whether the blocks of a cluster take rows from each other's lists.
        overlap: whether a step begins while the kernel in front of it still runs.
    """

    warps: int
    cluster: int
    held: int
    deep: int = 8
    pieces: int = 1
    early: int = 0
    soon: int = 0
    ahead: int = 48
    steal: bool = False
    overlap: bool = True

    def defines(self) -> dict[str, int]:
        """Return the kernel's constants."""
        found = {name.upper(): int(value) for name, value in asdict(self).items()}
        del found["AHEAD"]
        return found | ({"HOPPER": 1} if self.cluster > 1 or self.overlap else {})


LSTM_PLANS = {
    "half rows": Plan(warps=24, cluster=8, held=3, pieces=2),
    "whole rows": Plan(warps=24, cluster=8, held=3),
    "shared": Plan(warps=24, cluster=8, held=3, pieces=2, steal=True),
    "shared, listed rows ahead": Plan(24, 8, 3, pieces=2, soon=1, steal=True),
    "shared, 96 KiB ahead": Plan(24, 8, 3, pieces=2, ahead=96, steal=True),
    "shared, clusters of 4": Plan(24, 4, 5, pieces=2, steal=True),
    "shared, 16 warps, 12 loads": Plan(16, 8, 5, deep=12, pieces=2, steal=True),
    "one by one": Plan(warps=24, cluster=8, held=3, pieces=2, overlap=False),
    "one by one, shared": Plan(24, 8, 3, pieces=2, steal=True, overlap=False),
}
FFN_PLANS = {
    "first matrix ahead": Plan(warps=16, cluster=8, held=3, soon=1),
    "both ahead": Plan(warps=16, cluster=8, held=3, soon=2),
    "first ahead, 16 loads": Plan(warps=16, cluster=8, held=3, deep=16, soon=1),
    "first ahead, clusters of 4": Plan(warps=16, cluster=4, held=3, soon=1),
    "as listed, one by one": Plan(warps=16, cluster=8, held=3, overlap=False),
    "first ahead, one by one": Plan(warps=16, cluster=8, held=3, soon=1, overlap=False),
}
DENSE_PLANS = {
    "half rows": Plan(warps=24, cluster=1, held=1, pieces=2),
    "whole rows": Plan(warps=24, cluster=1, held=1),
    "half rows, one by one": Plan(24, 1, 1, pieces=2, ahead=0, overlap=False),
    "whole rows, one by one": Plan(24, 1, 1, ahead=0, overlap=False),
}
"""What the bench tries: of both steps, and of the dense LSTM step that one is held against."""

LSTM_PLAN, FFN_PLAN = LSTM_PLANS["half rows"], FFN_PLANS["first matrix ahead"]
"""Of the steps where there are clusters."""
