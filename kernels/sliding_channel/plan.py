"""Which shapes the CUDA kernels take, and the tiles they run with; imports no torch.

Every figure here is a compile-time constant of a kernel: one cubin per layer shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

ACTIVATIONS = ("none", "relu", "relu6", "silu", "hardswish")
"""What the fused block applies, at the number that the kernel knows it by."""

FEW_PIXELS = 16384
"""Up to so many pixels one gradient alone leaves an H200 half empty."""

MAX_PERIOD = 16
_MAX_WEIGHT_REGISTERS = 128
_GRADIENT_WARPS = 16
_SHARED_KIB = {(8, 0): 163, (8, 7): 163, (9, 0): 227, (10, 0): 227, (10, 3): 227}


@dataclass(frozen=True, slots=True)
class Structure:
    """Windows that move by a whole number of channels: output ``o`` starts at ``o * shift``.

    Attributes:
        c_in: input channels.
        c_out: output channels.
        width: channels of a window.
        shift: channels from one window to the next.
    """

    c_in: int
    c_out: int
    width: int
    shift: int

    @property
    def period(self) -> int:
        """After how many outputs the windows begin again."""
        return self.c_in // self.chunk

    @property
    def chunk(self) -> int:
        """Channels that always lie in the same windows: every start is a multiple."""
        return math.gcd(self.shift, self.c_in)

    @property
    def members(self) -> int:
        """Windows that read a chunk, where the chunk divides the width."""
        return self.width // self.chunk

    @property
    def per_window(self) -> int:
        """Outputs that read one window, where the period divides ``c_out``."""
        return self.c_out // self.period


@dataclass(frozen=True, slots=True)
class Plan:
    """One compiled kernel and its launch.

    Attributes:
        file: the CUDA source in ``cuda/``.
        defines: its compile-time constants, by name.
        shared_bytes: of a block.
    """

    file: str
    defines: tuple[tuple[str, int], ...]
    shared_bytes: int

    def constant(self, name: str) -> int:
        """Return one compile-time constant."""
        return dict(self.defines)[name]

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 32 * self.constant("WARPS")

    @property
    def split(self) -> int:
        """Blocks that share the outputs of a pixel."""
        return self.constant("SPLIT")

    def blocks(self, tiles: int, sms: int) -> int:
        """Return how many blocks walk over the tiles, all of them resident at once."""
        return min(tiles, max(1, sms * self.constant("BLOCKS_PER_SM") // self.split))


def whole_shift(
    c_in: int, cg: int, co: float | str | Fraction, rule: str, order: str
) -> int | None:
    """Return the shift where starts are its multiples; None where they are not."""
    if order != "cyclic":
        return None
    shift = (1 - Fraction(str(co))) * (c_in // cg)
    if rule == "shift":
        return max(1, math.floor(shift))
    return int(shift) if shift.denominator == 1 else None


def refuses_structure(s: Structure) -> str | None:
    """Return why no kernel takes these windows, None if the forward kernel does."""
    if s.c_in % 64 or s.width % 16 or s.shift % 8:
        return (
            "windows must start at multiples of 8 channels and be multiples of 16 wide, of a "
            f"multiple of 64 input channels, not {s.c_in} in windows of {s.width} shifted by "
            f"{s.shift}"
        )
    period = s.period
    if period > MAX_PERIOD or period & (period - 1):
        return f"windows must repeat after 1, 2, 4, 8 or 16 outputs, not {period}"
    if s.c_out % (8 * period):
        return f"output channels must be a multiple of {8 * period}, not {s.c_out}"
    if period * s.width // 8 > _MAX_WEIGHT_REGISTERS:
        return f"the weights of {s.c_in} input channels do not fit in registers"
    return None


def loses_to_dense(s: Structure) -> bool:
    """Whether the dense product was measured faster: 512 channels in two groups, on an H200.

    A fragment of inputs then serves too few products, and half the registers hold weights.
    """
    return s.period * s.width // 8 > 64 and s.width >= 256


def refuses_input_gradient(s: Structure) -> str | None:
    """Return why the input gradient has no kernel for windows that the forward kernel takes."""
    if s.chunk % 32 and 32 % s.chunk:
        return f"the shift must share 8, 16 or a multiple of 32 channels, not {s.chunk}"
    if s.width % s.chunk:
        return f"windows of {s.width} channels are no multiple of the {s.chunk} they share"
    if s.members * s.per_window // 2 > _MAX_WEIGHT_REGISTERS:
        return f"the weights of {s.c_out} output channels do not fit in registers"
    return _refuses_order(s)


def refuses_weight_gradient(s: Structure) -> str | None:
    """Return why the weight gradient has no kernel for windows that the forward kernel takes."""
    refusal = _refuses_order(s)
    if refusal is None and None in (_weight_tiles(s, pixels) for pixels in (1, FEW_PIXELS + 1)):
        return f"16 warps cannot share {s.c_out} outputs of {s.width} weights"
    return refusal


def _refuses_order(s: Structure) -> str | None:
    """Return why outputs cannot be put in window-major order."""
    if s.c_out < 64 or s.c_out & (s.c_out - 1) or s.per_window < 16:
        return (
            "output channels must be a power of two, at least 64 and 16 a window, not "
            f"{s.c_out} in {s.period} windows"
        )
    return None


def shared_limit(capability: tuple[int, int]) -> int:
    """Return the bytes of shared memory that one multiprocessor gives to blocks."""
    return _SHARED_KIB.get(capability, 99) << 10


def constants(s: Structure) -> dict[str, int]:
    """Return what all kernels are told about the windows."""
    return {
        "CIN": s.c_in,
        "COUT": s.c_out,
        "WIDTH": s.width,
        "SHIFT": s.shift,
        "PERIOD": s.period,
    }


def _shares(groups: int) -> tuple[int, int]:
    """Return (warps side by side, blocks that share) for groups of outputs."""
    side_by_side = math.gcd(groups, 8)
    return side_by_side, groups // side_by_side


def _pixels(count: int, split: int, sms: int, tallest: int, least: int) -> int:
    """Return the tallest tile of pixels that still gives every multiprocessor some."""
    size = tallest
    while size > least and -(-count // size) * split < sms:
        size //= 2
    return size


def forward_plan(
    s: Structure,
    pixels: int,
    *,
    sms: int,
    capability: tuple[int, int],
    bias: bool = False,
    **chosen: int,
) -> Plan:
    """Return the plan of the forward product over ``pixels`` pixels.

    Args:
        s: the windows; :func:`refuses_structure` must take them.
        pixels: batch x height x width.
        sms: multiprocessors of the device.
        capability: its compute capability.
        bias: whether one is added.
        chosen: constants to use instead of the rule's own.
    """
    side, split = _shares(s.c_out // (8 * s.period))
    resident = _resident(s.period * s.width // 8)
    extra = 4 * s.c_out * bias
    budget = shared_limit(capability) // resident - 1024 - extra
    least = 16 * (8 // side)
    tallest = max(least, 64 if s.c_in <= 128 else 32)
    tile = chosen.get("PIXELS") or _pixels(pixels, split, sms, tallest, least)
    tile_bytes = tile * s.c_in * 2
    stages = chosen.get("STAGES") or max(2, min(3, budget // tile_bytes))
    defines = constants(s) | {
        "SPLIT": split,
        "WARPS": 8,
        "PIXELS": tile,
        "STAGES": stages,
        "BLOCKS_PER_SM": resident,
        "ROWS": 1,
        "BIAS": int(bias),
    }
    return _plan("forward.cu", defines | chosen, stages * tile_bytes + extra)


def input_gradient_plan(
    s: Structure, pixels: int, *, sms: int, capability: tuple[int, int], **chosen: int
) -> Plan:
    """Return the plan of the input gradient; see :func:`forward_plan`."""
    side, split = _shares(s.c_in // 32)
    resident = _resident(s.members * s.per_window // 2)
    budget = shared_limit(capability) // resident - 1024
    least = 16 * (8 // side)
    tallest = max(least, 64 if 3 * 64 * s.c_out * 2 <= budget else 32)
    tile = chosen.get("PIXELS") or _pixels(pixels, split, sms, tallest, least)
    tile_bytes = tile * s.c_out * 2
    stages = chosen.get("STAGES") or max(2, min(4, budget // tile_bytes - 1))
    defines = constants(s) | {
        "SPLIT": split,
        "WARPS": 8,
        "PIXELS": tile,
        "STAGES": stages,
        "BLOCKS_PER_SM": resident,
        "ROWS": 1,
        "CHUNK": s.chunk,
        "INVERSE": pow(s.shift // s.chunk, -1, s.period) if s.period > 1 else 0,
    }
    return _plan("input_gradient.cu", defines | chosen, (stages + 1) * tile_bytes)


def weight_gradient_plan(
    s: Structure, pixels: int, *, sms: int, capability: tuple[int, int], **chosen: int
) -> Plan:
    """Return the plan of the weight gradient; see :func:`forward_plan`."""
    warps = _GRADIENT_WARPS
    tiles = _weight_tiles(s, pixels)
    assert tiles is not None
    split, tile_q, tile_j = tiles
    slice_ = s.c_out // split
    depth = max(1, warps * tile_q * tile_j // (slice_ * s.width))
    budget = shared_limit(capability) - 1024
    tile = chosen.get("PIXELS") or max(16 * depth, _pixels(pixels, split, sms, 64, 16))
    while tile > 16 * depth and tile * 2 * (2 * s.c_in + 3 * slice_) > budget:
        tile //= 2
    stage_bytes, sorted_bytes = tile * 2 * (s.c_in + slice_), tile * 2 * slice_
    stages = chosen.get("STAGES") or max(2, min(4, (budget - sorted_bytes) // stage_bytes))
    defines = constants(s) | {
        "SPLIT": split,
        "WARPS": warps,
        "PIXELS": tile,
        "STAGES": stages,
        "BLOCKS_PER_SM": 1,
        "TILE_Q": tile_q,
        "TILE_J": tile_j,
    }
    return _plan("weight_gradient.cu", defines | chosen, stages * stage_bytes + sorted_bytes)


def fused_plan(
    s: Structure,
    kernel: int,
    stride: int,
    first: str,
    last: str,
    *,
    capability: tuple[int, int],
    residual: bool = False,
    **chosen: int,
) -> Plan | str:
    """Return the plan of the fused block, or why it has none.

    Args:
        s: the windows; :func:`refuses_structure` must take them.
        kernel: size of the depthwise filter.
        stride: of the depthwise convolution.
        first: activation after it, among ``ACTIVATIONS``.
        last: activation after the product.
        capability: of the device.
        residual: whether one is added.
        chosen: constants to use instead of the rule's own.
    """
    side, split = _shares(s.c_out // (8 * s.period))
    limit = shared_limit(capability) - 1024
    least = 16 * (8 // side)
    for tile in (64, 32, 16):
        shared = _fused_bytes(s, kernel, stride, tile)
        if shared <= limit or tile == least:
            break
    if shared > limit:
        return (
            f"a {kernel}x{kernel} stride-{stride} block of {s.c_in} channels needs {shared} bytes "
            f"of shared memory, there are {limit}"
        )
    small = s.period * s.width // 8 <= 64
    defines = constants(s) | {
        "SPLIT": split,
        "WARPS": 8,
        "PIXELS": tile,
        "BLOCKS_PER_SM": 2 if small and 2 * shared <= limit else 1,
        "ROWS": 2 if s.period <= 4 and tile % (2 * least) == 0 else 1,
        "DW_ROWS": 2 if (kernel, stride) == (3, 1) and tile > 16 else 1,
        "RESIDUAL": int(residual),
        "KERNEL": kernel,
        "STRIDE": stride,
        "FIRST_ACT": ACTIVATIONS.index(first),
        "LAST_ACT": ACTIVATIONS.index(last),
    }
    return _plan("fused.cu", defines | chosen, shared)


def _fused_bytes(s: Structure, kernel: int, stride: int, tile: int) -> int:
    wide, high = 7 * stride + kernel, (tile // 8 - 1) * stride + kernel
    return s.c_in * (2 * wide * high + 2 * tile + 4 * kernel * kernel + 4) + 4 * s.c_out


def slots_per_block(plan: Plan) -> int:
    """Return how many partial sums a block of the weight gradient writes."""
    d = dict(plan.defines)
    tiles = d["COUT"] // plan.split * d["WIDTH"] // (d["TILE_Q"] * d["TILE_J"])
    return d["WARPS"] // tiles


def _weight_tiles(s: Structure, pixels: int) -> tuple[int, int, int] | None:
    """Return (blocks that share the outputs, outputs and weights of a warp's tile)."""
    split, fits = 1, s.c_out * s.width // 32768  # so many sums fit in the registers of a block
    wanted = max(fits, 8 if pixels <= FEW_PIXELS else 1)
    while split < wanted and s.per_window % (32 * split) == 0 and s.c_out % (128 * split) == 0:
        split *= 2
    sums = s.c_out // split * s.width
    tiles = [
        (q * j, -q - j, q, j)
        for q in (16, 32, 64)
        for j in range(16, min(s.width, 128) + 1, 16)
        if s.per_window // split % q == 0
        and s.width % j == 0
        and q * j <= 2048
        and sums // (q * j) <= _GRADIENT_WARPS
        and _GRADIENT_WARPS % (sums // (q * j)) == 0
    ]
    if not tiles:
        return None
    least = min(area for area, *_ in tiles)  # the most warps at work, then the squarest
    _, _, q, j = max(tile for tile in tiles if tile[0] == least)
    return split, q, j


def _resident(registers: int) -> int:
    """Return how many blocks share a multiprocessor, from the registers that hold weights."""
    return 1 if registers > 64 else 2


def _plan(file: str, defines: Mapping[str, int], shared_bytes: int) -> Plan:
    return Plan(file, tuple(sorted(defines.items())), shared_bytes)
