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
        late: whether they come only when the kernel in front has ended.
        nearer: KiB of listed rows a block that come there as soon as they are listed.
        early: whether a warp begins to load its first row before it lists another.
        resident: blocks of a multiprocessor for which registers are left.
        sent: whether threads send the projection's sums instead of the copy engine.
        overlap: whether a step begins while the kernel in front of it still runs.
    """

    warps: int
    cluster: int
    held: int
    groups: int = 1
    deep: int = 8
    pieces: int = 1
    ahead: int = 48
    late: bool = False
    nearer: int = 0
    early: bool = False
    resident: int = 1
    sent: bool = False
    overlap: bool = True

    def alone(self) -> Plan:
        """Return the same where the GPU has no clusters."""
        return replace(self, cluster=1, groups=1, sent=False, overlap=False)

    def defines(self) -> dict[str, int]:
        """Return the kernel's constants."""
        found = {name.upper(): int(value) for name, value in asdict(self).items()}
        del found["AHEAD"], found["NEARER"]
        return found | ({"HOPPER": 1} if self.cluster > 1 or self.overlap else {})


LSTM_PLANS = {
    "sent": Plan(24, 8, 3, groups=2, sent=True),
    "copied": Plan(24, 8, 3, groups=2),
    "nearer": Plan(24, 8, 3, groups=2, sent=True, nearer=64),
    "nearer, 72 ahead": Plan(24, 8, 3, groups=2, sent=True, nearer=64, ahead=72),
    "nearer, 72 late": Plan(24, 8, 3, groups=2, sent=True, nearer=64, ahead=72, late=True),
    "undivided": Plan(24, 8, 3, sent=True, nearer=64),
    "28 warps": Plan(28, 8, 3, groups=2, sent=True, nearer=64),
    "28 warps, 72 ahead": Plan(28, 8, 3, groups=2, sent=True, nearer=64, ahead=72),
    "28 warps, 96 late": Plan(28, 8, 3, groups=2, sent=True, nearer=64, ahead=96, late=True),
    "28 warps, 24 ahead": Plan(28, 8, 3, groups=2, sent=True, nearer=64, ahead=24),
    "28 warps, early": Plan(28, 8, 3, groups=2, sent=True, nearer=64, early=True),
    "28 warps, early, 72 ahead": Plan(
        28, 8, 3, groups=2, sent=True, nearer=64, early=True, ahead=72
    ),
    "early, 72 ahead": Plan(24, 8, 3, groups=2, sent=True, nearer=64, early=True, ahead=72),
    "early": Plan(24, 8, 3, groups=2, sent=True, nearer=64, early=True),
    "32 warps": Plan(32, 8, 3, groups=2, sent=True, nearer=64),
    "16 warps": Plan(16, 8, 3, groups=2, sent=True, nearer=64, deep=12),
    "16 warps, two resident": Plan(16, 8, 3, groups=2, sent=True, nearer=64, late=True, resident=2),
    "clusters of 4": Plan(28, 4, 3, sent=True, nearer=64),
}
FFN_PLANS = {
    "16 loads": Plan(16, 8, 4, groups=4, deep=16),
    "16 loads, sent": Plan(16, 8, 4, groups=4, deep=16, sent=True),
    "16 loads, sent, two groups": Plan(16, 8, 4, groups=2, deep=16, sent=True),
}
DENSE_PLANS = {
    "half rows": Plan(warps=24, cluster=1, held=1, pieces=2),
    "whole rows": Plan(warps=24, cluster=1, held=1),
    "whole rows, 96 ahead": Plan(warps=24, cluster=1, held=1, ahead=96),
    "all ahead": Plan(warps=24, cluster=1, held=1, ahead=320),
    "28 warps": Plan(warps=28, cluster=1, held=1),
    "16 warps": Plan(warps=16, cluster=1, held=1, deep=12),
}
"""What the bench tries: of both steps, and of the dense LSTM step that one is held against."""

LSTM_PLAN, FFN_PLAN = LSTM_PLANS["sent"], FFN_PLANS["16 loads"]
"""Of the steps where there are clusters."""
