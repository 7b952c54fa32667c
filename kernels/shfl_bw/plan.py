"""Tiles of the Hopper kernel and which to take; imports no torch.

Every figure of a plan but the splits is a compile-time constant of ``cuda/spmm.cu``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import ceil

VECTORS = (16, 32, 64, 128)
"""Rows of a group that the kernels take; groups of fewer than 64 are bundled to 64."""

HEIGHTS = (64, 128)
"""Rows of a group as a kernel sees it."""

DEPTH = 64
"""Kept columns of a tile."""

_SHARED_LIMIT = 227 << 10  # bytes of a multiprocessor; a block also takes 1 KiB of its own
_PRODUCER_REGISTERS = 56  # 40 spilled
_CONSUMER_REGISTERS = {(2, 1): 224, (1, 1): 224, (1, 2): 192}  # by warpgroups and blocks

_COSTS = {
    # V, columns, side by side, teams, blocks, cluster: start, an output tile, 64 kept columns of
    # one; microseconds, fitted to measurements on an H100 with all multiprocessors busy
    (64, 256, 2, 1, 1, 1): (1.35, 2.76, 1.008),
    (64, 256, 2, 1, 1, 2): (2.58, 2.73, 1.01),
    (64, 256, 1, 2, 1, 1): (1.77, 0.99, 0.64),
    (64, 128, 1, 1, 2, 1): (1.5, 1.0, 0.69),
    (64, 128, 1, 1, 2, 2): (1.71, 1.3, 0.667),
    (64, 128, 2, 1, 1, 1): (1.9, 1.38, 0.67),
    (64, 128, 1, 2, 1, 1): (2.97, 0.28, 0.444),
    (64, 64, 1, 1, 2, 1): (1.66, 0.34, 0.548),
    (64, 64, 2, 1, 1, 1): (2.54, 0.62, 0.458),
    (128, 256, 1, 1, 1, 1): (1.5, 2.7, 0.84),
    (128, 256, 1, 1, 1, 2): (2.6, 2.7, 0.88),
    (128, 128, 1, 1, 1, 1): (1.5, 1.4, 0.56),
    (128, 64, 1, 1, 1, 1): (1.5, 1.1, 0.4),
}
"""The plans to choose from and what they take."""

_MOVED_BYTES = 2.7e6  # a microsecond
_REDUCE = 3.0  # microseconds of a second launch


@dataclass(frozen=True, slots=True)
class Plan:
    """How the kernel is compiled and launched.

    Attributes:
        v: rows of a group.
        width: columns of one product: 64, 128 or 256.
        side: warpgroups side by side over the tokens.
        stages: tiles in the ring.
        cluster: blocks that share the panel.
        blocks: of a multiprocessor.
        splits: shares of the kept columns that are added by a second kernel.
        teams: of warpgroups that take output tiles in turn.
        dealt: whether tiles are dealt to blocks by their length, see ``dealing``; else in turn.
    """

    v: int
    width: int = 256
    side: int = 1
    stages: int = 4
    cluster: int = 1
    blocks: int = 1
    splits: int = 1
    teams: int = 1
    dealt: bool = True

    def __str__(self) -> str:
        ring = f"{self.width}x{self.side} ring {self.stages}"
        parts = [f"V{self.v} {ring} cluster {self.cluster}"]
        parts += ["two blocks"] if self.blocks > 1 else []
        parts += [f"split {self.splits}"] if self.splits > 1 else []
        parts += ["two teams"] if self.teams > 1 else []
        parts += [] if self.dealt else ["in turn"]
        return ", ".join(parts)

    @property
    def strips(self) -> int:
        """Products of 64 rows below each other."""
        return self.v // 64

    @property
    def consumers(self) -> int:
        """Warpgroups that multiply."""
        return self.strips * self.side * self.teams

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
    def slot_bytes(self) -> int:
        """Of a tile of the ring: panel and gathered rows."""
        return self.panel_bytes + DEPTH * self.tokens * 2

    @property
    def shared_bytes(self) -> int:
        """Of a block."""
        return self.stages * (self.slot_bytes + 16)

    def defines(self) -> dict[str, int]:
        """Return the compile-time constants."""
        found = {
            "V": self.v,
            "WIDTH": self.width,
            "SIDE": self.side,
            "STAGES": self.stages,
            "CLUSTER": self.cluster,
            "TEAMS": self.teams,
            "BLOCKS_PER_SM": self.blocks,
            "PRODUCER_REGISTERS": _PRODUCER_REGISTERS,
            "CONSUMER_REGISTERS": _CONSUMER_REGISTERS[self.consumers, self.blocks],
        }
        return found | ({"SPLIT": 1} if self.splits > 1 else {})

    def token_tiles(self, tokens: int) -> int:
        """Return how many output tiles lie side by side, a whole number of clusters."""
        supers = -(-tokens // (self.tokens * self.cluster))
        return supers * self.cluster

    def items(self, groups: int, tokens: int) -> int:
        """Return how many blocks' worth of work there is."""
        return self.token_tiles(tokens) * groups * self.splits


def refuses_plan(plan: Plan) -> str | None:
    """Return why a plan cannot be compiled or launched, None if it can."""
    if plan.v not in HEIGHTS:
        return f"a group has {' or '.join(map(str, HEIGHTS))} rows, not {plan.v}"
    if plan.width not in (64, 128, 256):
        return f"a product has 64, 128 or 256 columns, not {plan.width}"
    if (plan.consumers, plan.blocks) not in _CONSUMER_REGISTERS:
        return f"{plan.blocks} blocks of {plan.consumers} multiplying warpgroups have no registers"
    if plan.width == 256 and plan.blocks > 1:
        return "sums of 256 columns do not fit in the registers of two blocks"
    if plan.cluster not in (1, 2, 4) or plan.stages < 2 or plan.splits < 1:
        return "a cluster has 1, 2 or 4 blocks, a ring 2 stages or more, K one split or more"
    if plan.blocks * (plan.shared_bytes + 1024) > _SHARED_LIMIT:
        return f"{plan.blocks} blocks need {plan.shared_bytes} bytes of shared memory each"
    return None


def candidates(v: int) -> tuple[Plan, ...]:
    """Return every plan worth timing for groups of V rows, each with as many stages as fit."""
    found = []
    shapes = product((256, 128, 64), ((1, 1), (2, 1), (1, 2)), (1, 2), (1, 2))
    for width, (side, teams), cluster, blocks in shapes:
        plan = Plan(v, width, side, 2, cluster, blocks, teams=teams)
        if plan.consumers == blocks == 1:
            continue  # one warpgroup alone on a multiprocessor hides no epilogue
        if cluster > 1 and (width < 128 or (width == 128 and blocks == 1)):
            continue  # narrow tiles are for little work, and some multiprocessors fit no cluster
        if teams > 1 and width == 64:
            continue
        stages = (_SHARED_LIMIT // blocks - 1024) // (plan.slot_bytes + 16)
        plan = replace(plan, stages=min(8, stages))
        if refuses_plan(plan) is None:
            found.append(plan)
    return tuple(found)


def choose(
    v: int, groups: int, columns: float, tokens: int, *, sms: int, convolution: bool = False
) -> Plan:
    """Return the plan that is expected to be fastest.

    Args:
        v: rows of a group, among :data:`HEIGHTS`.
        groups: of the weight.
        columns: mean number of columns that a group keeps.
        tokens: columns of the input.
        sms: multiprocessors of the device.
        convolution: whether it gathers from images, where wide tiles were slower as soon as blocks
            take more than one.
    """
    plans = [
        replace(plan, splits=splits)
        for plan in candidates(v)
        if _key(plan) in _COSTS and not (convolution and _slow_on_images(plan, groups, tokens, sms))
        for splits in _splits(plan, groups, columns, tokens, sms)
    ]
    return min(plans, key=lambda plan: estimate(plan, groups, columns, tokens, sms=sms))


def _slow_on_images(plan: Plan, groups: int, tokens: int, sms: int) -> bool:
    many = plan.items(groups, tokens) > sms
    return plan.v < 128 and (plan.cluster > 1 or plan.teams > 1 or (plan.width > 128 and many))


def _key(plan: Plan) -> tuple[int, int, int, int, int, int]:
    return plan.v, plan.width, plan.side, plan.teams, plan.blocks, plan.cluster


def _splits(plan: Plan, groups: int, columns: float, tokens: int, sms: int) -> Iterator[int]:
    """Yield splits of K: more than one only where tiles leave multiprocessors idle."""
    yield 1
    items = plan.token_tiles(tokens) * groups
    depth = -(-columns // DEPTH)
    for splits in (2, 4, 8):
        if splits * items <= sms * plan.blocks and depth >= 4 * splits:
            yield splits


def estimate(plan: Plan, groups: int, columns: float, tokens: int, *, sms: int) -> float:
    """Return the microseconds that are expected of a plan; see :func:`choose`."""
    start, item, tile = _COSTS[_key(plan)]
    clusters = sms * plan.blocks // plan.cluster
    rounds = plan.items(groups, tokens) / plan.cluster / clusters
    rounds = 1.0 if rounds <= 1.0 else (rounds + ceil(rounds)) / 2  # dealing evens out a part
    total = start + rounds * (item + tile * (columns / (DEPTH * plan.splits) + 0.5))
    if plan.splits == 1:
        return total
    return total + _REDUCE + 8.0 * plan.splits * groups * plan.v * tokens / _MOVED_BYTES
