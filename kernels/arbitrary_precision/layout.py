"""How weights lie in memory: canonical planes for files, and the image that kernels copy.

Canonical: planes (m, p, bytes) of rows in the order taps, channels, the channels of each tap
padded to 64. Image: for 1024 bits of every row and each plane, 128 bytes a row in the order in
which tensor cores read shared memory (16-byte chunk c of row r at chunk c XOR r mod 8), rows padded
to 32. Within 32 rows, row 8a + 2t + e holds output 8t + 2a + e: a thread of a product then holds 8
neighbouring outputs, which it stores at once.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from kernels.arbitrary_precision.packed import CHANNEL_MULTIPLE
from kernels.arbitrary_precision.planes import pack_planes, unpack_planes

TILE_BYTES = 128
"""Of a row and plane in one tile: 1024 bits."""

ROW_MULTIPLE = 32
"""Rows of an image are padded to so many."""


def padded(channels: int) -> int:
    """Return channels rounded up to whole units of planes."""
    return -(-channels // CHANNEL_MULTIPLE) * CHANNEL_MULTIPLE


def weight_planes(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Return weight codes (m, c, taps), uint8, as canonical planes (m, bits, bytes)."""
    rows = F.pad(codes.transpose(1, 2), (0, padded(codes.shape[1]) - codes.shape[1]))
    return pack_planes(rows.flatten(1), bits)


def weight_codes(planes: torch.Tensor, channels: int) -> torch.Tensor:
    """Return canonical planes as codes (m, c, taps), uint8."""
    rows = unpack_planes(planes, planes.shape[2] * 8)
    return rows.view(len(planes), -1, padded(channels))[..., :channels].transpose(1, 2)


def output_order(rows: int) -> torch.Tensor:
    """Return which output each row of an image holds, int64; ``rows`` is a multiple of 32."""
    row = torch.arange(rows)
    a, t, e = row // 8 % 4, row // 2 % 4, row % 2
    return row // 32 * 32 + 8 * t + 2 * a + e


def weight_image(planes: torch.Tensor) -> torch.Tensor:
    """Return canonical planes (m, p, bytes) as an image (tiles, p, rows, 128), uint8."""
    m, _, length = planes.shape
    grown = F.pad(planes, (0, -length % TILE_BYTES, 0, 0, 0, -m % ROW_MULTIPLE))
    grown = grown[output_order(len(grown)).to(planes.device)]
    tiles = grown.view(*grown.shape[:2], -1, 8, 16).permute(
        2, 1, 0, 3, 4
    )  # tile, plane, row, chunk, 16
    rows = torch.arange(tiles.shape[2], device=planes.device)
    chunk = torch.arange(8, device=planes.device)[None] ^ (rows[:, None] & 7)
    swizzled = torch.gather(tiles, 3, chunk[None, None, :, :, None].expand_as(tiles))
    return swizzled.flatten(3).contiguous()
