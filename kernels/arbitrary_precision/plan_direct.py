"""Which tiles the direct convolution takes; imports no torch. See ``plan`` for matrix products."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from kernels.arbitrary_precision.precision import Precision

PIXELS = 64
"""Output pixels of a tile."""

THREADS = 128
"""Of a block: a warpgroup."""

_ONES = 16  # columns of ones, which count the sums that weights of -1 and +1 need
_COLUMNS = (*range(8, 33, 8), *range(48, 257, 16))  # that a product has
_ROW_BYTES = 128  # of weights: 1024 bits along k
_SHARED_BYTES = 227 << 10  # of a multiprocessor
_SPARE_BYTES = 3 << 10  # of a block: alignment, factors, what the system keeps
_OTHER_REGISTERS = 44  # of a thread: addresses and what finishing needs; and one a turn
_AHEAD = 2  # turns whose codes are on the way
_AT_ONCE = 12  # turns that are written out, see direct_sm90.cu
_FINISHING, _GATHERING = 8, 55  # instructions of a warp: an output of its columns; a turn
_WAITING, _BETWEEN = 600, 1500  # clocks: for memory; of a tile otherwise


@dataclass(frozen=True, slots=True)
class Window:
    """What tiles must know of a convolution.

    Attributes:
        taps: elements of the window.
        width: of the window.
        plane_bytes: of a plane of a pixel.
    """

    taps: int
    width: int
    plane_bytes: int

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
    """What a block of threads makes at a time, of 64 output pixels.

    Attributes:
        features: outputs, a multiple of 32; their weights stay in shared memory.
        blocks: that a multiprocessor runs at once.
    """

    features: int
    blocks: int

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
        taken = min(_AHEAD, window.turns) * q * 2 * window.unit // 4
        others = _OTHER_REGISTERS + min(window.turns, _AT_ONCE)
        return q * self.columns(precision) // 2 + taken + others

    def problem(self, precision: Precision, window: Window) -> str | None:
        """Return why an H100 cannot run the tile, None where it can."""
        if self.columns(precision) not in _COLUMNS:
            return f"a product has at most 256 columns, not {self.columns(precision)}"
        registers = min(255, 65536 // (THREADS * self.blocks) // 8 * 8)
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
            "SIGNED": int(precision.weights.signed),
            "FEATURES": self.features,
            "ONES": _ONES if precision.weight_bits == 1 else 0,
            "BLOCKS": self.blocks,
            **window.defines(),
        }


def tiles(precision: Precision, window: Window) -> Iterator[DirectTile]:
    """Yield the tiles that an H100 can run, with as many blocks at once as fit."""
    for features in (128, 64, 32):
        for blocks in (8, 6, 5, 4, 3, 2, 1):
            tile = DirectTile(features, blocks)
            if tile.problem(precision, window) is None:
                yield tile
                break


@lru_cache(maxsize=4096)
def choose(
    precision: Precision, window: Window, pixels: int, outputs: int, sms: int
) -> DirectTile | None:
    """Return the tile that an estimate prefers, None where no tile runs.

    An estimate of clocks: rounds of tiles, each as long as the instructions of all warps of a
    scheduler or as one warp alone with what it waits for. A test holds it to what was measured.

    Args:
        precision: bits of the operands.
        window: of the convolution.
        pixels: of the output, of all images.
        outputs: channels.
        sms: multiprocessors.
    """

    def clocks(tile: DirectTile) -> int:
        work = -(-pixels // PIXELS) * -(-outputs // tile.features)
        at_once = min(tile.blocks, -(-work // sms))
        instructions = _FINISHING * tile.features + _GATHERING * window.turns + _GATHERING
        alone = 2 * instructions + _BETWEEN + _WAITING * -(-window.turns // _AHEAD)
        return -(-work // (sms * at_once)) * max(at_once * instructions, alone)

    return min(tiles(precision, window), key=clocks, default=None)
