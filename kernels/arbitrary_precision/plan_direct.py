"""Which tiles the direct convolution takes; imports no torch. See ``plan`` for matrix products."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from kernels.arbitrary_precision.precision import Precision

PIXELS = 64
"""Output pixels of a warpgroup's tile."""

_ONES = 16  # columns of ones, which count the sums that weights of -1 and +1 need
_COLUMNS = (*range(8, 33, 8), *range(48, 257, 16))  # that a product has
_ROW_BYTES = 128  # of weights: 1024 bits along k
_SHARED_BYTES = 227 << 10  # of a multiprocessor
_SPARE_BYTES = 3 << 10  # of a block: alignment, factors, what the system keeps
_OTHER_REGISTERS = 44  # of a thread: addresses and what finishing needs; and one a turn
_FINISHING, _GATHERING = 8, 55  # instructions of a warp: an output of its columns; a turn
_WAITING, _BETWEEN = 600, 1500  # clocks: for memory; of a tile otherwise
_AT_ONCE = 12  # turns that are written out, see direct_sm90.cu


@dataclass(frozen=True, slots=True)
class Window:
    """What tiles must know of a convolution.

    Attributes:
        taps: elements of the window.
        width: of the window.
        plane_bytes: of a plane of a pixel.
        residual: whether something is added to the outputs.
    """

    taps: int
    width: int
    plane_bytes: int
    residual: bool = False

    @property
    def unit(self) -> int:
        """Bytes that a thread reads of a plane at a time."""
        return 16 if self.plane_bytes % 16 == 0 else 8

    @property
    def turns(self) -> int:
        """Steps along k, each of four units."""
        return -(-self.taps * self.plane_bytes // (4 * self.unit))

    @property
    def k_tiles(self) -> int:
        """Rows of weights in shared memory, 1024 bits each, of an output and plane."""
        turns = self.turns if self.turns <= _AT_ONCE else -(-self.turns // 6) * 6
        return -(-turns * 4 * self.unit // _ROW_BYTES)

    def defines(self) -> dict[str, int]:
        """Return the kernel's constants that follow."""
        units = self.plane_bytes // self.unit
        return {
            "UNIT": self.unit,
            "UNITS": units,
            "TAPS": self.taps,
            "KERNEL_WIDTH": self.width,
        }


@dataclass(frozen=True, slots=True)
class DirectTile:
    """What a block of threads makes at a time.

    Attributes:
        features: outputs, a multiple of 32; their weights stay in shared memory.
        groups: warpgroups of a block, 64 output pixels each.
        ahead: turns whose codes are on the way.
        blocks: that a multiprocessor runs at once.
        early: whether what is added to the outputs is asked for before the products.
    """

    features: int
    groups: int
    ahead: int
    blocks: int
    early: bool = False

    @property
    def threads(self) -> int:
        """Of a block."""
        return 128 * self.groups

    def columns(self, precision: Precision) -> int:
        """Return columns of a product."""
        ones = _ONES if precision.weight_bits == 1 else 0
        return self.features * precision.weight_bits + ones

    def shared_bytes(self, precision: Precision, window: Window) -> int:
        """Return dynamic shared memory of a block."""
        return window.k_tiles * self.columns(precision) * _ROW_BYTES + 1024

    def registers(self, precision: Precision, window: Window) -> int:
        """Return about how many registers a thread needs."""
        q = precision.activation_bits
        taken = min(self.ahead, window.turns) * q * 2 * window.unit // 4
        held = self.features // 4 + 8 if self.early else 0
        others = _OTHER_REGISTERS + min(window.turns, _AT_ONCE)
        return q * self.columns(precision) // 2 + taken + held + others

    def problem(self, precision: Precision, window: Window) -> str | None:
        """Return why an H100 cannot run the tile, None where it can."""
        if self.columns(precision) not in _COLUMNS:
            return f"a product has at most 256 columns, not {self.columns(precision)}"
        registers = min(255, 65536 // (self.threads * self.blocks) // 8 * 8)
        if (needed := self.registers(precision, window)) > registers:
            return f"about {needed} registers a thread, {registers} exist"
        shared = self.blocks * (self.shared_bytes(precision, window) + _SPARE_BYTES)
        if shared > _SHARED_BYTES:
            return f"{shared >> 10} KiB of shared memory, {_SHARED_BYTES >> 10} exist"
        return None

    def defines(self, precision: Precision, window: Window) -> dict[str, int]:
        """Return the kernel's constants that follow from tile, precision and window."""
        return {
            "HOPPER": 1,
            "P": precision.weight_bits,
            "Q": precision.activation_bits,
            "PASSES": 1,
            "SIGNED": int(precision.weights.signed),
            "FEATURES": self.features,
            "ONES": _ONES if precision.weight_bits == 1 else 0,
            "WARPGROUPS": self.groups,
            "AHEAD": self.ahead,
            "BLOCKS": self.blocks,
            "EARLY": int(self.early),
            **window.defines(),
        }


def tiles(precision: Precision, window: Window) -> Iterator[DirectTile]:
    """Yield the tiles that an H100 can run, with as many blocks at once as fit."""
    aheads = sorted({min(ahead, window.turns) for ahead in (2, 3, 4)}, reverse=True)
    groups_of = (1, 2) if window.k_tiles > 2 else (1,)  # few weights are not worth sharing
    shapes = product((128, 64, 32), groups_of, aheads, (False, True)[: 1 + window.residual])
    for features, groups, ahead, early in shapes:
        for blocks in (8, 6, 5, 4, 3, 2, 1):
            tile = DirectTile(features, groups, ahead, blocks, early)
            if tile.problem(precision, window) is None:
                yield tile
                break


def ranked(
    precision: Precision, window: Window, pixels: int, outputs: int, sms: int
) -> list[DirectTile]:
    """Return the tiles that an H100 can run, in the order in which to try them.

    An estimate of clocks: rounds of tiles, each as long as the instructions of all warps of a
    scheduler or as one warp alone with what it waits for. It was not fitted to measurements.

    Args:
        precision: bits of the operands.
        window: of the convolution.
        pixels: of the output, of all images.
        outputs: channels.
        sms: multiprocessors.
    """

    def clocks(tile: DirectTile) -> float:
        work = -(-pixels // PIXELS) * -(-outputs // tile.features)
        at_once = min(tile.blocks * tile.groups, -(-work // sms))
        instructions = _FINISHING * tile.features + _GATHERING * window.turns + _GATHERING
        waits = -(-window.turns // tile.ahead) + (window.residual and not tile.early)
        alone = 2 * instructions + _BETWEEN + _WAITING * waits
        return -(-work // (sms * at_once)) * max(at_once * instructions, alone)

    def cost(tile: DirectTile) -> tuple[float, ...]:
        return clocks(tile), tile.groups, -tile.features, -tile.early, -tile.ahead

    return sorted(tiles(precision, window), key=cost)


@lru_cache(maxsize=4096)
def choose(
    precision: Precision, window: Window, pixels: int, outputs: int, sms: int
) -> DirectTile | None:
    """Return the first of :func:`ranked`, None where no tile runs."""
    return next(iter(ranked(precision, window, pixels, outputs, sms)), None)
