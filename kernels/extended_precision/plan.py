"""Tiles, schedules and limits of the kernels; imports no torch.

Every figure of a plan is a compile-time constant: one cubin a plan.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

STEP = 32
"""Columns of K in a stage: a row of both halves is then 128 bytes."""

ROW_BYTES = 128
ROW_MULTIPLE = 8
"""Images have whole groups of so many rows, the unit of the swizzle."""

SCALED_TOP = 14
"""Binary exponent of a row's largest magnitude after scaling."""

SCALE_EXPONENTS = (-113, 100)
"""Scales beyond them are not used: the product of two must stay within twice a float's range."""

WIDE_SHARE = 16
"""A row is wide where more than 1 / 16 of it is held less exactly than to 22 bits."""

NOT_FINITE = 1 << 30
TINY = 1 << 29
"""Added to a row's ``trouble`` where it has inf or nan, and where it is too small to be scaled."""

Schedule = Literal["shared", "separate", "reused"]
SCHEDULES: tuple[Schedule, ...] = ("shared", "separate", "reused")

_SHARED_KIB = 227
_THREADS = {2: 384, 3: 512}


@dataclass(frozen=True, slots=True)
class GemmPlan:
    """One compiled product on Hopper.

    Attributes:
        warpgroups: that multiply; one more loads.
        strips: of 64 rows that a warpgroup owns.
        columns: of the tile.
        stages: of 32 columns of K in flight.
        cluster_m: blocks one below the other that share the columns' operand.
        cluster_n: blocks side by side that share the rows' operand.
        schedule: ``shared``: all products in one accumulator, the small ones first. ``separate``:
            the small ones in an accumulator of their own for all of K. ``reused``: the small ones
            first, promoted with their scale, then the large ones in the same registers.
        promote: after how many columns of K partial sums go to the total in ordinary arithmetic;
            0: never, as in the paper of 2021.
        products: 3, or 4 with the product of both lower halves.
        residual_bits: lower halves are grown by 2 to this power.
        stagger: whether the second warpgroup starts one product later, so that one promotes while
            the other multiplies.
        group: rows of clusters among which neighbouring blocks stay.
    """

    warpgroups: int = 2
    strips: int = 2
    columns: int = 128
    stages: int = 4
    cluster_m: int = 1
    cluster_n: int = 2
    schedule: Schedule = "shared"
    promote: int = STEP
    products: int = 3
    residual_bits: int = 0
    stagger: bool = False
    group: int = 8

    @property
    def rows(self) -> int:
        """Rows of the tile."""
        return 64 * self.strips * self.warpgroups

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 128 * (self.warpgroups + 1)

    @property
    def cluster(self) -> int:
        """Blocks of a cluster."""
        return self.cluster_m * self.cluster_n

    @property
    def stage_bytes(self) -> int:
        """Shared memory of one stage."""
        return (self.rows + self.columns) * ROW_BYTES

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of a block: stages, two barriers each, and what alignment takes."""
        return self.stages * (self.stage_bytes + 16) + 1024

    @property
    def accumulators(self) -> int:
        """Registers of a thread that hold sums."""
        per_strip = self.columns // 2
        return per_strip * (self.strips + (2 if self.schedule == "separate" else 1))

    def defines(self, *, nearest: bool = False) -> dict[str, int]:
        """Return the constants of ``cuda/gemm.cu``."""
        return {
            "WARPGROUPS": self.warpgroups,
            "STRIPS": self.strips,
            "BN": self.columns,
            "STAGES": self.stages,
            "CLUSTER_M": self.cluster_m,
            "CLUSTER_N": self.cluster_n,
            "SCHEDULE": SCHEDULES.index(self.schedule),
            "PROMOTE": self.promote // STEP,
            "PRODUCTS": self.products,
            "RESIDUAL": self.residual_bits,
            "STAGGER": int(self.stagger),
            "GROUP": self.group,
            "NEAREST": int(nearest),
            "HOPPER": 1,
        }

    def clusters(self, m: int, n: int) -> tuple[int, int]:
        """Return how many clusters cover m rows and n columns."""
        return (
            _ceil(_ceil(m, self.rows), self.cluster_m),
            _ceil(_ceil(n, self.columns), self.cluster_n),
        )

    def blocks(self, m: int, n: int, batch: int, sms: int) -> int:
        """Return the blocks to launch: whole clusters, at most one block a multiprocessor."""
        down, across = self.clusters(m, n)
        return self.cluster * min(down * across * batch, max(1, sms // self.cluster))


def refuses(plan: GemmPlan) -> str | None:
    """Return why a plan cannot be a kernel on Hopper, None if it can."""
    if plan.schedule not in SCHEDULES or plan.products not in (3, 4):
        return f"schedules are {', '.join(SCHEDULES)} with 3 or 4 products"
    if plan.warpgroups not in _THREADS or plan.columns not in (64, 128, 192):
        return "2 or 3 warpgroups multiply tiles of 64, 128 or 192 columns"
    if plan.cluster_m not in (1, 2) or plan.cluster_n not in (1, 2):
        return "clusters are up to 2 blocks high and 2 wide"
    if plan.promote % STEP or plan.promote < 0:
        return f"sums are promoted after multiples of {STEP} columns, not {plan.promote}"
    one_accumulator = plan.schedule == "shared"
    if one_accumulator and plan.residual_bits:
        return "one accumulator for all products has one scale: residual_bits must be 0"
    if not one_accumulator and plan.promote != STEP:
        return f"the schedule {plan.schedule} promotes after {STEP} columns"
    if plan.strips > 1 and (plan.promote != STEP or plan.schedule == "separate"):
        return "several strips share one accumulator, which each promotes at every stage"
    if plan.stagger and (plan.schedule != "shared" or plan.warpgroups != 2):
        return "only two warpgroups with one accumulator each take turns"
    budget = 192 if plan.warpgroups == 2 else 128
    if plan.accumulators > budget:
        return f"{plan.accumulators} accumulators a thread, of {budget}"
    if plan.stages < 2 or plan.shared_bytes > _SHARED_KIB << 10:
        return f"{plan.shared_bytes} bytes of shared memory in {plan.stages} stages"
    return None


BALANCED = GemmPlan()
"""256 x 128 tiles. The most work per byte of both caches that leaves room for two warpgroups."""

_SMALL = GemmPlan(strips=1, schedule="separate", residual_bits=11, stages=6)

VARIANTS: dict[str, GemmPlan] = {
    "256x128": BALANCED,
    "256x128 staggered": replace(BALANCED, stagger=True),
    "256x128 staggered four": replace(BALANCED, stagger=True, cluster_m=2),
    "256x128 down": replace(BALANCED, cluster_m=2, cluster_n=1),
    "256x128 four": replace(BALANCED, cluster_m=2),
    "256x128 alone": replace(BALANCED, cluster_n=1),
    "256x128 scaled": replace(BALANCED, schedule="reused", residual_bits=11),
    "128x128 scaled": _SMALL,
    "128x128 scaled down": replace(_SMALL, cluster_m=2, cluster_n=1),
    "128x128 scaled four": replace(_SMALL, cluster_m=2),
    "128x192": GemmPlan(strips=1, columns=192, stages=5),
    "128x192 staggered": GemmPlan(strips=1, columns=192, stages=5, stagger=True),
    "128x192 down": GemmPlan(strips=1, columns=192, stages=5, cluster_m=2, cluster_n=1),
    "192x128": GemmPlan(warpgroups=3, strips=1, stages=5),
    "192x128 down": GemmPlan(warpgroups=3, strips=1, stages=5, cluster_m=2, cluster_n=1),
    "128x128": GemmPlan(strips=1, stages=6),
    "128x64": GemmPlan(strips=1, columns=64, stages=8),
}
"""What a bench times side by side; all are as exact as float32."""

PAPER = GemmPlan(strips=1, promote=0, products=4, stages=6)
"""The paper's arithmetic: four products, one long sum in the tensor cores."""

NEAREST = replace(BALANCED, cluster_m=2, cluster_n=1)
"""For the nearest column of each row: blocks of a cluster share the columns they all go through."""


def choose(m: int, n: int, batch: int, *, sms: int, residual_bits: int = 0) -> GemmPlan:
    """Return the plan for a product, by rule; no GPU has measured it yet.

    The largest tile that still gives most multiprocessors one; a cluster only where it has work.

    Args:
        m: rows of the result.
        n: columns of the result.
        batch: results.
        sms: multiprocessors.
        residual_bits: how the operands are split.
    """
    if residual_bits:
        return _SMALL if _ceil(n, 128) > 1 else replace(_SMALL, cluster_n=1)
    large = _ceil(m, 256) * _ceil(n, 128) * batch
    if large * 4 >= sms * 3:
        return BALANCED if _ceil(n, 128) > 1 else replace(BALANCED, cluster_n=1)
    plan = VARIANTS["128x128"]
    if _ceil(m, 128) * _ceil(n, 128) * batch * 2 < sms:
        plan = VARIANTS["128x64"]
    return plan if _ceil(n, plan.columns) > 1 else replace(plan, cluster_n=1)


def pays(batch: int, m: int, k: int, n: int) -> bool:
    """Tell whether a product from float32 is worth splitting on an H100; an estimate.

    Bytes at 3 TB/s, float32 at 50 and three products of halves at 190 TFLOP/s in whole tiles, 3
    and 8 us for launches. To be replaced by measured figures.
    """
    read, written = 4 * batch * (m * k + k * n), 4 * batch * m * n
    plain_us = max(2 * batch * m * n * k / 50e6, (read + written) / 3e6) + 3
    tiles = _ceil(m, 128) * _ceil(n, 128) * batch * 128 * 128
    product_us = max(2 * tiles * k / 190e6, (read + written) / 3e6)
    return 2 * read / 3e6 + product_us + 8 < plain_us


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """One compiled split of a matrix.

    Attributes:
        residual_bits: lower halves are grown by 2 to this power.
        truncate: cut the halves instead of rounding them.
        swizzled: whether the image is for Hopper's tensor cores to read as it is.
        warps: of 8 in a block that share a row, where K is contiguous.
        values: groups of 4 numbers of a row that a thread holds.
        aligned: whether rows can be read 16 bytes at a time.
    """

    residual_bits: int = 0
    truncate: bool = False
    swizzled: bool = True
    warps: int = 8
    values: int = 4
    aligned: bool = True

    def defines(self) -> dict[str, int]:
        """Return the constants of ``cuda/split.cu``."""
        return {
            "RESIDUAL": self.residual_bits,
            "TRUNCATE": int(self.truncate),
            "SWIZZLE": int(self.swizzled),
            "WARPS": self.warps,
            "VALUES": self.values,
            "ALIGNED": int(self.aligned),
        }


TALL = 128
CHUNK = 256
"""Rows and columns of K of a block, where the rows are contiguous; as in ``cuda/split.cu``."""


def split_plan(
    k: int,
    *,
    residual_bits: int = 0,
    truncate: bool = False,
    swizzled: bool = True,
    aligned: bool = True,
) -> SplitPlan:
    """Return how rows of K numbers are split: held in registers as far as they fit."""
    warps, values = next((size for most, size in _HELD.items() if k <= most), (8, 8))
    return SplitPlan(residual_bits, truncate, swizzled, warps, values, aligned)


_HELD = {128: (1, 1), 512: (1, 4), 1024: (2, 4), 2048: (4, 4), 4096: (8, 4)}
"""Rows of up to so many numbers: warps a row and groups of 4 a thread."""


def _ceil(count: int, size: int) -> int:
    return -(-count // size)
