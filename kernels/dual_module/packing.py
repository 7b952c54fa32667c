"""What the CUDA kernels read of a fitted layer: little weights, signs and big rows, padded."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

_PART_MULTIPLE = 32  # little weights of a part: whole words for every thread of a warp
_ROW_MULTIPLE = 64  # inputs of a part: 128 bytes
_TILE, _CHUNK = 16, 256  # signs that a tensor core takes at once


def pack_codes(codes: torch.Tensor, parts: Sequence[int], bits: int) -> torch.Tensor:
    """Return little weights (n, k of all parts), int8, as (n, bytes), uint8.

    Each part is padded to 32 with zeros. Of 4 bits, byte i of each 8 weights holds weight i low and
    weight i + 4 high.

    Args:
        codes: at most ``bits`` bits, signed.
        parts: k of each part.
        bits: 4 or 8; fewer bits are held by 4, others by 8.
    """
    padded = [
        F.pad(part, (0, -part.shape[1] % _PART_MULTIPLE))
        for part in torch.split(codes, list(parts), 1)
    ]
    whole = torch.cat(padded, 1)
    if bits > 4:
        return whole.view(torch.uint8)
    low, high = (whole.view(torch.uint8).view(len(whole), -1, 2, 4) & 15).unbind(2)
    packed: torch.Tensor = low | (high << 4)
    return packed.flatten(1).contiguous()


def pack_rows(weight: torch.Tensor, parts: Sequence[int]) -> torch.Tensor:
    """Return big rows (n, d of all parts), float16, each part padded to 64 with zeros."""
    padded = [
        F.pad(part, (0, -part.shape[1] % _ROW_MULTIPLE))
        for part in torch.split(weight, list(parts), 1)
    ]
    return torch.cat(padded, 1).half().contiguous()


def pack_signs(signs: torch.Tensor) -> torch.Tensor:
    """Return signs (k, d), int8, as tensor cores take them (tiles, chunks, 2, 32, 4), int32.

    A tile is 16 rows, a chunk 256 inputs; the bits that are +1 come before those that are -1. Of 32
    threads, thread l holds bits ``32 (l % 4)`` on of row ``l / 4`` and of eight rows further, then
    both 128 bits further.
    """
    k, d = signs.shape
    padded = F.pad(signs, (0, -d % _CHUNK, 0, -k % _TILE))
    halves = torch.stack([padded > 0, padded < 0]).to(torch.int64)
    # sign, tile, eight of rows, row, chunk, half of a chunk, word, bit
    bits = halves.view(2, len(padded) // _TILE, 2, 8, -1, 2, 4, 32)
    words = (bits << torch.arange(32, device=signs.device)).sum(-1)
    packed = words.permute(1, 4, 0, 3, 6, 5, 2).reshape(len(padded) // _TILE, -1, 2, 32, 4)
    wrapped: torch.Tensor = torch.where(packed >= 1 << 31, packed - (1 << 32), packed)
    return wrapped.to(torch.int32).contiguous()


def share_signs(parts: Sequence[torch.Tensor], shares: int, groups: int, run: int) -> torch.Tensor:
    """Return packed signs as the shares of a cluster's blocks (shares, tiles, runs, run, 2, 32, 4).

    Shares are of a group of chunks, within it of a part, within that of a group of tiles; where
    one has fewer than others, no sign follows.

    Args:
        parts: of each part of the input, :func:`pack_signs`.
        shares: a multiple of the parts and of ``groups`` together.
        groups: runs into which a part's chunks are divided.
        run: chunks that a warp takes at once, at most.
    """
    across = shares // (len(parts) * groups)
    tiles = -(-max(len(part) for part in parts) // across)
    chunks = -(-max(part.shape[1] for part in parts) // groups)
    run = min(run, chunks)
    runs = -(-chunks // run)
    found = []
    for part in parts:
        room = part.new_zeros(across * tiles, groups * chunks, *part.shape[2:])
        room[: len(part), : part.shape[1]] = part
        each = room.view(across, tiles, groups, chunks, *part.shape[2:]).movedim(2, 0)
        found.append(F.pad(each, (0, 0) * 3 + (0, runs * run - chunks)))
    shape = (shares, tiles, runs, run, *parts[0].shape[2:])
    return torch.stack(found, 1).reshape(shape).contiguous()
