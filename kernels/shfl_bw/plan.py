"""Tiles of the Hopper kernel and which to take; imports no torch.

Every figure of a plan but the splits is a compile-time constant of ``cuda/spmm.cu``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

VECTORS = (16, 32, 64, 128)
"""Rows of a group that the kernel takes; fewer than 64 fill half or a quarter of a product."""

DEPTH = 64
"""Kept columns of a tile."""

_SHARED_LIMIT = 227 << 10  # bytes of a multiprocessor; a block also takes 1 KiB of its own
_PRODUCER_REGISTERS = 56  # 40 spilled
_CONSUMER_REGISTERS = {(2, 1): 224, (1, 1): 224, (1, 2): 192}  # by warpgroups and blocks

# The model behind ``choose``, in clocks of one multiprocessor. From the data sheet and from what
# plain gather kernels reached on an H100 (KERNELS notes), not from this kernel: it has not run yet.
_GATHER_BYTES = 34.0  # from L2 to all 132 at once: 8 TB/s at 1.75 GHz
_GATHER_ALONE = 55.0  # to one, when others rest
_TILE = 60.0  # barriers of a tile
_ITEM = 600.0  # an output tile beside its products: indices, first copies, last stores
_START = 3000.0  # launch and first copies
_STORE_BYTES = 40.0
_REDUCE = 4000.0  # a second launch


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
        counted: whether barriers see the copies land by themselves, and those who multiply fence;
            else those who gather wait for them.
        tokens_first: whether neighbouring blocks take the groups of a few tokens, so that these
            stay in the L2 cache; else all tokens of a few groups.
    """

    v: int
    width: int = 256
    side: int = 1
    stages: int = 4
    cluster: int = 1
    blocks: int = 1
    splits: int = 1
    counted: bool = True
    tokens_first: bool = True

    def __str__(self) -> str:
        ring = f"{self.width}x{self.side} ring {self.stages}"
        parts = [f"V{self.v} {ring} cluster {self.cluster}"]
        parts += ["two blocks"] if self.blocks > 1 else []
        parts += [f"split {self.splits}"] if self.splits > 1 else []
        parts += [] if self.counted else ["waited for"]
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
            "BLOCKS_PER_SM": self.blocks,
            "PRODUCER_REGISTERS": _PRODUCER_REGISTERS,
            "CONSUMER_REGISTERS": _CONSUMER_REGISTERS[self.consumers, self.blocks],
        }
        found |= {"SPLIT": 1} if self.splits > 1 else {}
        return found | ({"COUNTED": 1} if self.counted else {})

    def token_tiles(self, tokens: int) -> int:
        """Return how many output tiles lie side by side, a whole number of clusters."""
        supers = -(-tokens // (self.tokens * self.cluster))
        return supers * self.cluster

    def items(self, groups: int, tokens: int) -> int:
        """Return how many blocks' worth of work there is."""
        return self.token_tiles(tokens) * groups * self.splits


def refuses_plan(plan: Plan) -> str | None:
    """Return why a plan cannot be compiled or launched, None if it can."""
    if plan.v not in VECTORS:
        return f"V must be one of {', '.join(map(str, VECTORS))}, not {plan.v}"
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
    """Return every plan worth timing for V, each with as many stages as fit."""
    found = []
    for width, side, cluster, blocks in product((256, 128, 64), (1, 2), (1, 2, 4), (1, 2)):
        plan = Plan(v, width, side, 2, cluster, blocks)
        if plan.consumers == blocks == 1:
            continue  # one warpgroup alone on a multiprocessor hides no epilogue
        if cluster == 4 and width < 256:
            continue  # narrow tiles are for little work, and some multiprocessors fit no cluster
        stages = (_SHARED_LIMIT // blocks - 1024) // (plan.slot_bytes + 16)
        plan = replace(plan, stages=min(8, stages))
        if refuses_plan(plan) is None:
            found.append(plan)
    return tuple(found)


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
    """Return the clocks that the model expects; see :func:`choose`."""
    tiles = -(-columns // DEPTH) / plan.splits
    items = plan.token_tiles(tokens) * groups * plan.splits
    busy = min(items, sms * plan.blocks)
    rounds = -(-items // (sms * plan.blocks))
    rate = min(_GATHER_ALONE, _GATHER_BYTES * 132 * plan.blocks / max(1, busy))
    moved = DEPTH * plan.tokens * 2 + plan.panel_bytes / plan.cluster
    gather = moved / (rate / plan.blocks)
    products = DEPTH / 16 * plan.consumers * plan.width / 2 * plan.blocks
    stored = plan.v * plan.tokens * (4 if plan.splits > 1 else 2) / (_STORE_BYTES / plan.blocks)
    item = tiles * (max(gather, products) + _TILE) + _ITEM
    total = _START + rounds * (item + (0.3 if gather > products else 1.0) * stored)
    if plan.splits == 1:
        return total
    scratch = 8.0 * plan.splits * groups * plan.v * tokens / (_GATHER_BYTES * 132)
    return total + _REDUCE + scratch
