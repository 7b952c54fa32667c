"""The forward product on Hopper's warpgroup products: its plan, its weights and its launch."""

from __future__ import annotations

from functools import lru_cache

import numpy
import torch

from kernels.sliding_channel.plan import Plan, Structure, constants, shared_limit

TILE = 64
"""Pixels of a tile: the rows of one warpgroup product."""

CAPABILITY = (9, 0)
_WARPGROUPS = 2
_MOST_OUTPUTS = 256  # of a block: half the registers hold their sums
_BARRIER_BYTES = 1024  # and what is lost to alignment


def refuses_hopper(s: Structure) -> str | None:
    """Return why the kernel does not take these windows, None if it does."""
    if s.c_in % 64 or s.width % 16 or s.shift % 16:
        return "windows must start and end at multiples of 16 channels, of a multiple of 64"
    if s.period > 8 or 8 % s.period or s.period * s.width % 64:
        return f"windows must repeat after 1, 2, 4 or 8 outputs, not {s.period}"
    split = _split(s)
    if s.per_window * s.period != s.c_out or s.per_window % (16 * split):
        return f"output channels must be a multiple of {16 * split * s.period}, not {s.c_out}"
    if _weight_bytes(s, split) + 4 * _stage_bytes(s) > shared_limit(CAPABILITY) - _BARRIER_BYTES:
        return f"the weights of {s.c_in} input channels do not fit in shared memory"
    return None


def hopper_plan(s: Structure, *, bias: bool = False, **chosen: int) -> Plan:
    """Return the plan of the product.

    Args:
        s: the windows; :func:`refuses_hopper` must take them.
        bias: whether one is added.
        chosen: constants to use instead of the rule's own.
    """
    split = _split(s)
    channels = chosen.get("CHANNELS", min(128, s.c_in & -s.c_in))
    stage = 2 * TILE * channels
    room = shared_limit(CAPABILITY) - 2 * _BARRIER_BYTES - _weight_bytes(s, split)
    stages = chosen.get("STAGES", min(12, room // stage))
    defines = constants(s) | {
        "SPLIT": split,
        "CHANNELS": channels,
        "STAGES": stages,
        "WARPGROUPS": _WARPGROUPS,
        "WARPS": 4 * (_WARPGROUPS + 1),
        "BLOCKS_PER_SM": 1,
        "PIXELS": TILE,
        "BIAS": int(bias),
    }
    shared = _weight_bytes(s, split) + stages * stage + 2 * _BARRIER_BYTES
    return Plan("forward_hopper.cu", tuple(sorted((defines | chosen).items())), shared)


@lru_cache(maxsize=64)
def weight_table(s: Structure, device: torch.device) -> torch.Tensor:
    """Index of each packed weight: (split, blocks of 64 columns, rows, 64).

    A column is a channel of a window, window by window; 16-byte units of a row are swizzled.
    Rows are ordered so that a thread's two of each eight make up units of 8 neighbouring outputs.
    """
    split = _split(s)
    rows = s.per_window // split
    part = torch.arange(split).view(-1, 1, 1, 1)
    block = torch.arange(s.period * s.width // 64).view(1, -1, 1, 1)
    row = torch.arange(rows).view(1, 1, -1, 1)
    place = torch.arange(64)
    column = 64 * block + ((place // 8) ^ (row % 8)) * 8 + place % 8
    thread, pair = row % 8 // 2, row % 2
    if s.period == 8:
        q = row // 8 * 8 + 4 * pair + thread
    else:
        tiles = 4 // s.period  # of 8 rows, whose pairs make up a unit
        q = (row // 8 // tiles * 4 + thread) * 2 * tiles + row // 8 % tiles * 2 + pair
    output = s.period * (rows * part + q) + column // s.width
    return (output * s.width + column % s.width).reshape(-1).to(device, torch.int32)


def pixels_argument(pixels: int) -> numpy.int64:
    """Return a count of pixels as the kernel takes it."""
    return numpy.int64(pixels)


def _split(s: Structure) -> int:
    return -(-s.c_out // _MOST_OUTPUTS)


def _weight_bytes(s: Structure, split: int) -> int:
    return 2 * s.c_out * s.width // split


def _stage_bytes(s: Structure) -> int:
    return 2 * TILE * min(128, s.c_in & -s.c_in)


def refuses_hopper_gradient(s: Structure) -> str | None:
    """Return why the kernel of the input's gradient does not take these windows."""
    if s.period not in (2, 4, 8) or s.width % s.chunk or s.chunk % 32 or s.chunk > 128:
        return "chunks of 32, 64 or 128 channels in 2, 4 or 8 windows"
    split = -(-s.c_in // 256)
    if s.per_window * s.period != s.c_out or s.members * s.per_window % 64 or split > 2:
        return "outputs"
    if s.c_out % (16 * s.period) or s.period % split:
        return "outputs"
    if 2 * s.c_in * s.members * s.per_window // split > 140000:
        return "weights"
    return None


def hopper_gradient_plan(s: Structure, **chosen: int) -> Plan:
    """Return the plan of the input's gradient."""
    split = -(-s.c_in // 256)
    channels = chosen.get("CHANNELS", max(16 * s.period, min(128, s.c_out & -s.c_out)))
    stage = 2 * TILE * channels
    weights = 2 * s.c_in * s.members * s.per_window // split
    room = shared_limit(CAPABILITY) - 2 * _BARRIER_BYTES - weights
    stages = chosen.get("STAGES", min(12, room // stage))
    defines = constants(s) | {
        "SPLIT": split,
        "CHANNELS": channels,
        "STAGES": stages,
        "WARPGROUPS": _WARPGROUPS,
        "WARPS": 4 * (_WARPGROUPS + 1),
        "BLOCKS_PER_SM": 1,
        "PIXELS": TILE,
        "CHUNK": s.chunk,
        "INVERSE": pow(s.shift // s.chunk, -1, s.period),
    }
    shared = weights + stages * stage + 2 * _BARRIER_BYTES
    return Plan("input_gradient_hopper.cu", tuple(sorted((defines | chosen).items())), shared)


@lru_cache(maxsize=64)
def gradient_table(s: Structure, device: torch.device) -> torch.Tensor:
    """Index of each packed weight: (chunks, blocks of 64 columns, rows, 64)."""
    chunk = torch.arange(s.c_in // s.chunk).view(-1, 1, 1, 1)
    block = torch.arange(s.members * s.per_window // 64).view(1, -1, 1, 1)
    row = torch.arange(s.chunk).view(1, 1, -1, 1)
    place = torch.arange(64)
    column = 64 * block + ((place // 8) ^ (row % 8)) * 8 + place % 8
    member, k = column // s.per_window, column % s.per_window
    thread, fourth = k % 8 // 2, k % 16 // 8 * 2 + k % 2  # whose, and which of its four
    at_once = 8 // s.period  # outputs of a window in a unit
    q = k // 16 * 16 + (fourth // at_once * 4 + thread) * at_once + fourth % at_once
    inverse = pow(s.shift // s.chunk, -1, s.period)
    window = (chunk - member) % s.period * inverse % s.period
    channel = row // 32 * 32 + row % 8 // 2 * 8 + row % 32 // 8 * 2 + row % 2
    index = (s.period * q + window) * s.width + member * s.chunk + channel
    return index.reshape(-1).to(device, torch.int32)
