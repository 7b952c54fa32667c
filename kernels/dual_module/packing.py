"""What the CUDA kernels read of a fitted layer: little weights, signs and big rows, padded."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

_PART_MULTIPLE = 32  # little weights of a part: whole words for every thread of a warp
_ROW_MULTIPLE = 64  # inputs of a part: whole words of signs


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
