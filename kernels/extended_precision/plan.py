"""Tiles, schedules and limits of the kernels; imports no torch.

Every figure of a plan is a compile-time constant: one cubin a plan.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

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

Schedule = Literal["shared", "separate"]
SCHEDULES: tuple[Schedule, ...] = ("shared", "separate")

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
            the small ones in an accumulator of their own for all of K.
        promote: after how many columns of K partial sums go to the total in ordinary arithmetic;
            0: never, as in the paper of 2021.
        products: 3, or 4 with the product of both lower halves.
        residual_bits: lower halves are grown by 2 to this power.
        group: rows of clusters among which neighbouring blocks stay.
    """

    warpgroups: int = 2
    strips: int = 2
    columns: int = 128
    stages: int = 4
    cluster_m: int = 1
    cluster_n: int = 1
    schedule: Schedule = "shared"
    promote: int = STEP
    products: int = 3
    residual_bits: int = 0
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
    budget = 192 if plan.warpgroups == 2 else 128
    if plan.accumulators > budget:
        return f"{plan.accumulators} accumulators a thread, of {budget}"
    if plan.stages < 2 or plan.shared_bytes > _SHARED_KIB << 10:
        return f"{plan.shared_bytes} bytes of shared memory in {plan.stages} stages"
    return None


BALANCED = GemmPlan()
"""256 x 128 tiles. The most work per byte of both caches that leaves room for two warpgroups."""

_SMALL = GemmPlan(strips=1, schedule="separate", residual_bits=11, stages=6)
_SQUARE = GemmPlan(strips=1, stages=6)
_NARROW = GemmPlan(strips=1, columns=64, stages=8)

VARIANTS: dict[str, GemmPlan] = {
    "256x128": BALANCED,
    "256x128 across": replace(BALANCED, cluster_n=2),
    "256x128 down": replace(BALANCED, cluster_m=2),
    "128x128 scaled": _SMALL,
    "128x128 scaled down": replace(_SMALL, cluster_m=2),
    "128x192": GemmPlan(strips=1, columns=192, stages=5, cluster_m=2),
    "192x128": GemmPlan(warpgroups=3, strips=1, stages=5, cluster_m=2),
    "128x128": _SQUARE,
    "128x128 across": replace(_SQUARE, cluster_n=2),
    "128x64": _NARROW,
}
"""What a bench times side by side; all are as exact as float32."""

PAPER = GemmPlan(strips=1, promote=0, products=4, stages=6)
"""The paper's arithmetic: four products, one long sum in the tensor cores."""

NEAREST = replace(BALANCED, cluster_m=2)
"""For the nearest column of each row: blocks of a cluster share the columns they all go through."""


def choose(
    m: int, n: int, batch: int, steps: int, *, sms: int, residual_bits: int = 0
) -> tuple[GemmPlan, int]:
    """Return the plan for a product and in how many parts K is summed, by measured costs.

    Parts are multiplied side by side and added up afterwards: small results keep the
    multiprocessors busy, and long sums are shorter, for which a tenth of the time may go.

    Args:
        m: rows of the result.
        n: columns of the result.
        batch: results.
        steps: of 32 columns of K.
        sms: multiprocessors.
        residual_bits: how the operands are split.
    """
    plans = {_SMALL: Cost(1.0, 4.0)} if residual_bits else RULE
    times = {
        (plan, parts): _estimate(plan, plans[plan], (m, n, batch), steps, parts, sms)
        for plan in plans
        for parts in _parts(steps, batch)
    }
    enough = min(times.values()) * 1.1
    return min((o for o in times if times[o] <= enough), key=lambda o: (-o[1], times[o]))


def _estimate(
    plan: GemmPlan,
    cost: Cost,
    size: tuple[int, int, int],
    steps: int,
    parts: int,
    sms: int,
) -> float:
    """Return us; on an H100 within 7 % (root mean square) for 14 sizes from 256^3 to 2048^3."""
    m, n, batch = size
    down, across = plan.clusters(m, n)
    tiles = down * across * plan.cluster * batch * parts
    own = _ceil(tiles, sms) * (steps // parts * cost.step_us + cost.tile_us)
    return own + (2.4 + (parts + 1) * 4 * m * n / 1.67e6 if parts > 1 else 0.0)


def _parts(steps: int, batch: int) -> list[int]:
    """Return into how many parts K may go: as many steps each, and enough of them to pay."""
    if batch > 1:
        return [1]
    return [1, *(p for p in (2, 4, 8, 16) if steps % p == 0 and steps // p >= 8)]


class Cost(NamedTuple):
    """What a plan takes a multiprocessor of an H100, fitted to measurements.

    Attributes:
        step_us: 32 columns of K of a tile.
        tile_us: a tile besides.
    """

    step_us: float
    tile_us: float


RULE: dict[GemmPlan, Cost] = {
    VARIANTS["256x128 down"]: Cost(0.90, 7.8),
    VARIANTS["256x128"]: Cost(0.92, 8.05),
    VARIANTS["128x128"]: Cost(0.604, 3.64),
    VARIANTS["128x64"]: Cost(0.357, 1.45),
}
"""Plans that :func:`choose` takes."""


def pays(batch: int, m: int, k: int, n: int) -> bool:
    """Tell whether a product from float32 is worth splitting on an H100, by measured costs.

    Torch's own: 48 TFLOP/s and 6 us; splits: 2.7 TB/s; launches and a look for trouble: 11 us.
    """
    plan, parts = choose(m, n, batch, _ceil(k, STEP), sms=132)
    ours = _estimate(plan, RULE[plan], (m, n, batch), _ceil(k, STEP), parts, 132)
    split = 8 * batch * (m * k + k * n) / 2.7e6
    return 11 + split + ours < 6 + 2 * batch * m * n * k / 48e6


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
CHUNK = 128
"""Rows and columns of K of a block, where the rows are contiguous; as in ``cuda/split.cu``."""

MEASURED = 512
MANY = 1024
"""Columns of K and threads of a block that only measures rows."""


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
