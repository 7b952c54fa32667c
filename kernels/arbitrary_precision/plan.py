"""Which tiles the CUDA kernels take; imports no torch.

Every figure here is a compile-time constant of a kernel. What fits is one function's business
(:meth:`Tile.problem`), what is best another's (:func:`choose`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from kernels.arbitrary_precision.precision import Precision

Path = Literal["wgmma", "mma"]

MAX_PLANE_PRODUCTS = 16
"""From p * q = 17 on, products of planes are not offered: 8-bit tensor cores do the same sooner."""

TILE_BITS = 1024
"""Of a row and plane, in a tile."""

_TILE_BYTES = TILE_BITS // 8
_AT_ONCE = 8  # products of planes whose sums a thread holds at once
_REGISTERS = 65536
_SHARED_KIB = {(8, 0): 163, (8, 7): 163, (9, 0): 227, (10, 0): 227, (10, 3): 227}
_SMALLEST_SHARED_KIB = 99
_WINDOW_BYTES = 12  # where a token's window of an image begins
_SPARE_BYTES = 3 << 10  # what kernels have in fixed places


@dataclass(frozen=True, slots=True)
class Tile:
    """What a block of threads makes at a time.

    Attributes:
        path: the instructions: ``"wgmma"`` (sm_90a) or ``"mma"`` (sm_80 and later).
        features: outputs, a multiple of 32.
        strips: tokens by 64 that a warpgroup owns (wgmma); by 16 that a warp owns (mma).
        groups: warpgroups that multiply (wgmma); warps along tokens (mma).
        across: warps along features (mma); 1 for wgmma.
        stages: tiles along k in shared memory.
        cluster: blocks with neighbouring tokens that share what they read of the weights (wgmma).
        pingpong: whether warpgroups take tiles in turn, so that one finishes its outputs while
            another multiplies; else they share each tile (wgmma).
    """

    path: Path
    features: int
    strips: int
    groups: int
    across: int
    stages: int
    cluster: int = 1
    pingpong: bool = False

    @property
    def tokens(self) -> int:
        """Rows of the product."""
        groups = 1 if self.pingpong else self.groups
        return self.strips * groups * (64 if self.path == "wgmma" else 16)

    @property
    def threads(self) -> int:
        """Of a block."""
        if self.path == "wgmma":
            return 128 * (1 + self.groups)
        return 32 * self.groups * self.across

    def passes(self, precision: Precision) -> int:
        """Return how often tiles are gone through: once a plane of weights, where they are many."""
        p, q = precision.weight_bits, precision.activation_bits
        return p if p > 2 or p * q > _AT_ONCE else 1

    def planes(self, precision: Precision) -> int:
        """Return planes of weights in a tile at a time."""
        return 1 if self.passes(precision) > 1 else precision.weight_bits

    def stage_bytes(self, precision: Precision) -> int:
        """Return shared memory of one tile along k."""
        rows = self.tokens * precision.activation_bits + self.features * self.planes(precision)
        return rows * _TILE_BYTES

    def shared_bytes(self, precision: Precision) -> int:
        """Return dynamic shared memory of a block."""
        stages = self.stages * self.stage_bytes(precision) + 1024
        return stages + (self.tokens * _WINDOW_BYTES if self.path == "wgmma" else 0)

    def accumulators(self, precision: Precision) -> int:
        """Return registers of a thread that hold sums."""
        planes = self.strips * precision.activation_bits
        if self.path == "wgmma":
            own, run = self.planes(precision) * self.features // 2, self.features // 2
        else:
            own = self.planes(precision) * self.features // self.across // 2
            run = self.features // self.across // 2
        return planes * own + (self.strips * run if self.passes(precision) > 1 else 0)

    def problem(self, precision: Precision, capability: tuple[int, int]) -> str | None:
        """Return why a device cannot run the tile, None where it can."""
        if precision.weight_bits * precision.activation_bits > MAX_PLANE_PRODUCTS:
            return f"p * q is {precision.weight_bits * precision.activation_bits}, at most 16 pay"
        if self.path == "wgmma" and capability != (9, 0):
            return "wgmma on single bits exists on compute capability 9.0 alone"
        if not (8, 0) <= capability < (10, 0):
            return "1-bit tensor cores exist from compute capability 8.0 to 9.0"
        own = self.features // self.across
        if self.features % 32 or own % 32 or self.tokens % 64:
            return "tiles are whole blocks of 32 outputs and 64 tokens"
        columns = self.features * self.planes(precision)
        if self.path == "wgmma" and columns > 256:
            return f"a product has at most 256 columns, not {columns}"
        most = 192 if self.path == "wgmma" else 160
        if self.accumulators(precision) > most:
            return f"{self.accumulators(precision)} registers of sums a thread, {most} fit"
        limit = _SHARED_KIB.get(capability, _SMALLEST_SHARED_KIB) << 10
        if self.shared_bytes(precision) + _SPARE_BYTES > limit:
            return f"{self.shared_bytes(precision) >> 10} KiB of shared memory, {limit >> 10} exist"
        return None

    def defines(self, precision: Precision) -> dict[str, int]:
        """Return the kernel's constants that follow from tile and precision."""
        common = {
            "Q": precision.activation_bits,
            "P": self.planes(precision),
            "PASSES": self.passes(precision),
            "SIGNED": int(precision.weights.signed),
            "FEATURES": self.features,
            "STAGES": self.stages,
        }
        if self.path == "mma":
            own = {"BLOCKS": self.strips, "TOKEN_WARPS": self.groups, "FEATURE_WARPS": self.across}
            return {**common, **own}
        taken = 40 if self.groups == 2 else 56
        left = (_REGISTERS // 128 - taken) // self.groups // 8 * 8
        own = {
            "HOPPER": 1,
            "TOKEN_STRIPS": self.strips,
            "WARPGROUPS": self.groups,
            "CLUSTER": self.cluster,
            "PINGPONG": int(self.pingpong),
            "PRODUCER_REGISTERS": taken,
            "CONSUMER_REGISTERS": min(left, 240),
        }
        return {**common, **own}


def tiles(precision: Precision, capability: tuple[int, int]) -> Iterator[Tile]:
    """Yield every tile that a device can run, as a tuner tries them."""
    for shape in (*_wgmma_shapes(), *_mma_shapes()):
        for stages in (6, 5, 4, 3, 2):
            tile = replace(shape, stages=stages)
            if tile.problem(precision, capability) is None:
                yield tile
                break


def _wgmma_shapes() -> Iterator[Tile]:
    for features in (256, 192, 128, 96, 64, 32):
        for strips in (1, 2):
            for cluster in (2, 1):
                yield Tile("wgmma", features, strips, 2, 1, 0, cluster)
            yield Tile("wgmma", features, strips, 1, 1, 0)
        if features < 256:  # wider or longer ones won nowhere
            for cluster in (2, 1):
                yield Tile("wgmma", features, 1, 2, 1, 0, cluster, pingpong=True)


def _mma_shapes() -> Iterator[Tile]:
    for features in (128, 64, 32):
        for strips in (1, 2, 4):
            for groups, across in ((4, 2), (4, 1), (2, 1)):
                yield Tile("mma", features, strips, groups, across, 0)


@lru_cache(maxsize=4096)
def choose(
    precision: Precision,
    tokens: int,
    features: int,
    depth: int,
    *,
    sms: int,
    capability: tuple[int, int],
    path: Path | None = None,
    output_bytes: int = 2,
) -> Tile | None:
    """Return the tile that an estimate prefers; None where no tile runs.

    Args:
        precision: bits of the operands.
        tokens: rows of the product.
        features: outputs.
        depth: tiles along k.
        sms: multiprocessors.
        capability: of the device.
        path: instructions to use; None takes the better.
        output_bytes: of an output, as it is written.
    """
    size = (tokens, features, depth)
    found = ranked(
        precision, size, sms=sms, capability=capability, path=path, output_bytes=output_bytes
    )
    return found[0] if found else None


def ranked(
    precision: Precision,
    size: tuple[int, int, int],
    *,
    sms: int,
    capability: tuple[int, int],
    path: Path | None = None,
    output_bytes: int = 2,
) -> list[Tile]:
    """Return the tiles that run, the one that an estimate prefers first; see :func:`choose`.

    Args:
        precision: bits of the operands.
        size: tokens, outputs, tiles along k.
        sms: multiprocessors.
        capability: of the device.
        path: instructions to use; None takes the better.
        output_bytes: of an output, as it is written.
    """
    wanted = path or ("wgmma" if capability == (9, 0) else "mma")
    times = {
        tile: estimate(tile, precision, size, output_bytes, sms)
        for tile in tiles(precision, capability)
        # A block of the cluster would have nothing to do where tokens are few.
        if tile.path == wanted and size[0] > tile.tokens * (tile.cluster - 1)
    }
    return sorted(times, key=times.__getitem__)


_CLOCKS = 1755.0  # a microsecond
_BIT_PRODUCTS = {"wgmma": 32768, "mma": 14000}  # a clock of a multiprocessor, as measured
_SHARED_BYTES = 221e3  # a microsecond of a multiprocessor; this and the rest are fitted
_CACHE_BYTES = 76e3  # from the second-level cache, likewise
_STORE_BYTES = 36e3  # to it, likewise
_REAL_OUTPUTS = 3.85e3  # that a warpgroup scales and rounds in a microsecond
_MEMORY_BYTES = 3.35e6  # a microsecond of all
_TURN = 0.16  # microseconds in which a warpgroup alone leaves the tensor cores idle, a tile along k
_START, _CLUSTER_START = 1.2, 0.8  # microseconds of a launch


def estimate(
    tile: Tile, precision: Precision, size: tuple[int, int, int], output_bytes: int, sms: int
) -> float:
    """Return microseconds of a launch; the constants are those of an H100.

    Counts whole rounds of tiles over the multiprocessors. A tile along k takes as long as tensor
    cores, shared memory and second-level cache let it; outputs follow, or go out while another
    warpgroup multiplies. ``docs/kernels.md`` has the figures it was fitted to, and its error.

    Args:
        tile: of the plan.
        precision: bits of the operands.
        size: tokens, outputs, tiles along k.
        output_bytes: of an output, as it is written.
        sms: multiprocessors.
    """
    tokens, features, depth = size
    down, over = -(-tokens // (tile.tokens * tile.cluster)), -(-features // tile.features)
    rounds = -(-down * over // (sms // tile.cluster))
    planes, columns = precision.activation_bits, tile.features * tile.planes(precision)
    outputs, sharers = tile.tokens * tile.features, 1 if tile.pingpong else tile.groups
    products = tile.tokens * planes * columns * TILE_BITS / _BIT_PRODUCTS[tile.path] / _CLOCKS
    read = tile.tokens * planes // 64 * (64 + columns) * _TILE_BYTES
    shared = (read + tile.stage_bytes(precision)) / _SHARED_BYTES
    brought = (tile.tokens * planes + columns / tile.cluster) * _TILE_BYTES / _CACHE_BYTES
    turn = _together(6, max(products, products / sharers + _TURN), shared, brought)
    multiply = depth * tile.passes(precision) * turn
    finish = outputs * output_bytes / _STORE_BYTES
    if output_bytes < 4:
        finish += outputs / sharers / _REAL_OUTPUTS
    if tile.pingpong:
        work = multiply + finish + (rounds - 1) * max(multiply, (multiply + finish) / 2)
    else:
        work = rounds * (multiply + finish)
    start = _START + (_CLUSTER_START if tile.cluster > 1 else 0)
    return _together(1.5, start + work, tokens * features * output_bytes / _MEMORY_BYTES)


def _together(sharpness: float, *times: float) -> float:
    """Return what times that overlap come to: the largest, and more the less they differ."""
    return float(sum(time**sharpness for time in times) ** (1 / sharpness))
