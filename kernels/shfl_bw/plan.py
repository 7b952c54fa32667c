"""Tiles of the Hopper kernel and which to take; imports no torch.

Every figure of a plan but the splits is a compile-time constant of ``cuda/spmm.cu``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import accumulate
from typing import NamedTuple

VECTORS = (16, 32, 64, 128)
"""Rows of a group that the kernel takes; fewer than 64 fill half or a quarter of a product."""

DEPTH = 64
"""Kept columns of a panel's tile."""

SLICE = 32
"""Kept columns of a gathered slice: half a tile."""

_SHARED_LIMIT = 228 << 10  # bytes of a multiprocessor; a block also takes 1 KiB of its own
_REGISTERS = {(2, 1): (72, 216), (1, 1): (72, 216), (1, 2): (64, 192)}
# Of a thread that gathers and one that multiplies, by multiplying warpgroups and blocks.
_WRITING = 4  # slices in whose time an output tile is written

_COSTS = {
    # products below each other, columns, side by side, blocks, cluster, staged:
    # start, an output tile, a slice; microseconds on an H100
    (1, 256, 2, 1, 1, False): (3.4, 2.4, 0.69),
    (1, 256, 2, 1, 2, False): (6.0, 1.9, 0.64),
    (1, 128, 1, 2, 1, False): (3.1, 1.1, 0.44),
    (1, 128, 1, 2, 2, False): (4.5, 1.15, 0.366),
    (1, 128, 2, 1, 1, False): (4.2, 1.3, 0.405),
    (1, 64, 1, 2, 1, False): (4.1, 0.52, 0.277),
    (1, 64, 2, 1, 1, False): (4.4, 0.5, 0.29),
    (2, 256, 1, 1, 1, True): (3.4, 2.2, 0.44),
    (2, 128, 1, 1, 1, True): (4.2, 1.2, 0.307),
    (2, 64, 1, 1, 1, True): (4.2, 0.5, 0.234),
}
"""The plans to choose from and what they take: measured, all multiprocessors busy."""

_MOVED_BYTES = 2.7e6  # a microsecond
_REDUCE = 3.0  # microseconds of a second launch


Item = tuple[int, int, int, int]
"""First token tile of a cluster, group (counting on from split to split), first slice, last + 1."""


class Schedule(NamedTuple):
    """What clusters do.

    Attributes:
        items: of all of them, one cluster's after the other's.
        bounds: where each cluster's begin, and the end.
    """

    items: list[Item]
    bounds: list[int]


@dataclass(frozen=True, slots=True)
class Plan:
    """How the kernel is compiled and launched.

    Attributes:
        v: rows of a group.
        width: columns of one product: 64, 128 or 256.
        side: warpgroups side by side over the tokens.
        stages: gathered slices in their ring.
        panels: tiles of the panel in theirs.
        cluster: blocks that share the panel.
        blocks: of a multiprocessor.
        splits: shares of the kept columns that are added by a second kernel.
        staged: whether output goes through shared memory and bulk copies; else straight from
            registers.
        tokens_first: whether the groups of a few tokens are computed side by side, so that these
            stay in the L2 cache; else all tokens of a few groups.
    """

    v: int
    width: int = 256
    side: int = 1
    stages: int = 6
    panels: int = 3
    cluster: int = 1
    blocks: int = 1
    splits: int = 1
    staged: bool = False
    tokens_first: bool = True

    def __str__(self) -> str:
        parts = [f"V{self.v} {self.width}x{self.side} rings {self.stages}+{self.panels}"]
        parts += [f"cluster {self.cluster}"]
        parts += ["two blocks"] if self.blocks > 1 else []
        parts += [f"split {self.splits}"] if self.splits > 1 else []
        parts += ["staged"] if self.staged else []
        parts += [] if self.tokens_first else ["groups first"]
        return ", ".join(parts)

    @property
    def strips(self) -> int:
        """Products of 64 rows below each other."""
        return max(1, self.v // 64)

    @property
    def consumers(self) -> int:
        """Warpgroups that multiply."""
        return self.strips * self.side

    @property
    def tokens(self) -> int:
        """Columns of an output tile."""
        return self.width * self.side

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 128 * (1 + self.consumers)

    @property
    def panel_bytes(self) -> int:
        """Of a tile of the panel."""
        return self.strips * 64 * DEPTH * 2

    @property
    def slice_bytes(self) -> int:
        """Of a slice of gathered rows."""
        return SLICE * self.tokens * 2

    @property
    def fixed_bytes(self) -> int:
        """Of a block, beside its slices."""
        staged = self.consumers * 64 * (2 * self.width + 16) if self.staged else 0
        return self.panels * (self.panel_bytes + 16) + staged

    @property
    def shared_bytes(self) -> int:
        """Of a block."""
        return self.fixed_bytes + self.stages * (self.slice_bytes + 16)

    def defines(self) -> dict[str, int]:
        """Return the compile-time constants."""
        gathering, multiplying = _REGISTERS[self.consumers, self.blocks]
        found = {
            "V": self.v,
            "WIDTH": self.width,
            "SIDE": self.side,
            "STAGES": self.stages,
            "PANELS": self.panels,
            "CLUSTER": self.cluster,
            "BLOCKS_PER_SM": self.blocks,
            "PRODUCER_REGISTERS": gathering,
            "CONSUMER_REGISTERS": multiplying,
        }
        found |= {"SPLIT": 1} if self.splits > 1 else {}
        return found | ({"STAGED": 1} if self.staged else {})

    def token_tiles(self, tokens: int) -> int:
        """Return how many output tiles lie side by side, a whole number of clusters."""
        supers = -(-tokens // (self.tokens * self.cluster))
        return supers * self.cluster

    def schedule(self, counts: Sequence[int], tokens: int, clusters: int) -> Schedule:
        """Deal out the output tiles to clusters that run at once, each to the least loaded one.

        Args:
            counts: kept columns of each group.
            tokens: columns of the input.
            clusters: how many run at once.
        """
        tiles = [-(-count // DEPTH) for count in counts]
        begins = list(accumulate(tiles, initial=0))
        shares = [
            (group + split * len(counts), *_share(begins[group], counts[group], split, self.splits))
            for group in sorted(range(len(counts)), key=lambda group: -counts[group])
            for split in range(self.splits)
        ]
        supers = range(0, self.token_tiles(tokens), self.cluster)
        if self.tokens_first:
            items = [(first, *share) for first in supers for share in shares]
        else:
            items = [(first, *share) for share in shares for first in supers]
        loads = [(0, cluster) for cluster in range(min(clusters, len(items)))]
        dealt: list[list[Item]] = [[] for _ in loads]
        for item in items:
            load, cluster = heappop(loads)
            dealt[cluster].append(item)
            heappush(loads, (load + item[3] - item[2] + _WRITING, cluster))
        bounds = accumulate(map(len, dealt), initial=0)
        return Schedule([item for part in dealt for item in part], list(bounds))


def _share(begin: int, count: int, split: int, splits: int) -> tuple[int, int]:
    """Return the first slice of a group's share and the one behind its last."""
    tiles = -(-count // DEPTH)
    first, last = (begin + tiles * part // splits for part in (split, split + 1))
    return 2 * first, min(2 * last, 2 * begin + -(-count // SLICE))


def refuses_plan(plan: Plan) -> str | None:
    """Return why a plan cannot be compiled or launched, None if it can."""
    if plan.v not in VECTORS:
        return f"V must be one of {', '.join(map(str, VECTORS))}, not {plan.v}"
    if plan.width not in (64, 128, 256):
        return f"a product has 64, 128 or 256 columns, not {plan.width}"
    if (plan.consumers, plan.blocks) not in _REGISTERS:
        return f"{plan.blocks} blocks of {plan.consumers} multiplying warpgroups have no registers"
    if plan.width == 256 and plan.blocks > 1:
        return "sums of 256 columns do not fit in the registers of two blocks"
    if plan.cluster not in (1, 2, 4) or plan.splits < 1:
        return "a cluster has 1, 2 or 4 blocks, K one split or more"
    if plan.stages < 3 or plan.panels < 2:
        return "rings have 3 slices and 2 panels or more"
    if plan.blocks * (plan.shared_bytes + 1024) > _SHARED_LIMIT:
        return f"{plan.blocks} blocks need {plan.shared_bytes} bytes of shared memory each"
    return None


def candidates(v: int) -> tuple[Plan, ...]:
    """Return the plans to choose from for V, each with as many slices as fit."""
    wanted = Plan(v).strips
    found = []
    for strips, width, side, blocks, cluster, staged in _COSTS:
        if strips == wanted:
            plan = Plan(v, width, side, cluster=cluster, blocks=blocks, staged=staged)
            found.append(with_room_used(plan))
    return tuple(found)


def with_room_used(plan: Plan) -> Plan:
    """Return a plan with the rings that its shared memory has room for."""
    plan = replace(plan, panels=4 if plan.cluster > 1 and not plan.staged else 3)
    room = _SHARED_LIMIT // plan.blocks - 1024 - plan.fixed_bytes
    return replace(plan, stages=min(12, room // (plan.slice_bytes + 16)))


def choose(v: int, groups: int, columns: float, tokens: int, *, sms: int) -> Plan:
    """Return the plan that the model expects to be fastest.

    Args:
        v: rows of a group, among :data:`VECTORS`.
        groups: of the weight.
        columns: mean number of columns that a group keeps.
        tokens: columns of the input.
        sms: multiprocessors of the device.
    """
    plans = [
        replace(plan, splits=splits)
        for plan in candidates(v)
        for splits in _splits(plan, groups, columns, tokens, sms)
    ]
    return min(plans, key=lambda plan: estimate(plan, groups, columns, tokens, sms=sms))


def _splits(plan: Plan, groups: int, columns: float, tokens: int, sms: int) -> Iterator[int]:
    """Yield splits of K: more than one only where tiles leave multiprocessors idle."""
    yield 1
    items = plan.token_tiles(tokens) * groups
    depth = -(-columns // DEPTH)
    for splits in (2, 4, 8):
        if splits * items <= sms * plan.blocks and depth >= 4 * splits:
            yield splits


def estimate(plan: Plan, groups: int, columns: float, tokens: int, *, sms: int) -> float:
    """Return the microseconds that are expected of a candidate; see :func:`choose`."""
    key = (plan.strips, plan.width, plan.side, plan.blocks, plan.cluster, plan.staged)
    start, item, piece = _COSTS[key]
    clusters = sms * plan.blocks // plan.cluster
    items = plan.token_tiles(tokens) // plan.cluster * groups * plan.splits
    slices = -(-columns // (SLICE * plan.splits))
    total = start + -(-items // clusters) * (item + slices * piece)
    if plan.splits == 1:
        return total
    return total + _REDUCE + 8.0 * plan.splits * groups * plan.v * tokens / _MOVED_BYTES
