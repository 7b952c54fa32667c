"""Bit planes: plane t of codes holds bit t of each, eight codes a byte, the first code lowest.

Read as little-endian words, the first code is the lowest bit of the first word. Elements beyond the
last are zero bits, which add nothing to any product of planes.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from kernels.arbitrary_precision.encodings import Encoding
from kernels.errors import NasError


def to_codes(numbers: torch.Tensor, encoding: Encoding) -> torch.Tensor:
    """Return the codes (uint8) that stand for integers of any shape.

    Raises:
        NasError: a number that no code stands for.
    """
    values = numbers.to(torch.int64) - encoding.start
    steps = values.div(encoding.step, rounding_mode="floor")
    codes = torch.where(steps < 0, steps + (1 << encoding.bits), steps)
    found = from_codes(codes.clamp(0, (1 << encoding.bits) - 1).to(torch.uint8), encoding)
    if not torch.equal(found, numbers.to(torch.int64)):
        raise NasError(
            f"Expected numbers {encoding.lowest} to {encoding.highest} in steps of {encoding.step}."
        )
    return codes.to(torch.uint8)


def from_codes(codes: torch.Tensor, encoding: Encoding) -> torch.Tensor:
    """Return the integers (int64) that codes of any shape stand for."""
    return code_values(codes, encoding) * encoding.step + encoding.start


def code_values(codes: torch.Tensor, encoding: Encoding) -> torch.Tensor:
    """Return codes as integers (int64), the top bit negative in two's complement."""
    values = codes.to(torch.int64)
    if encoding.signed:
        values = torch.where(
            values >= 1 << (encoding.bits - 1), values - (1 << encoding.bits), values
        )
    return values


def pack_planes(codes: torch.Tensor, bits: int, *, multiple: int = 8) -> torch.Tensor:
    """Return codes (..., k) as planes (..., bits, bytes), uint8.

    Args:
        codes: integers of ``bits`` bits; higher bits are left out.
        bits: planes.
        multiple: the planes' length is a multiple of so many bits; itself a multiple of 8.
    """
    k = codes.shape[-1]
    padded = F.pad(codes.to(torch.uint8), (0, -k % multiple))
    shifts = torch.arange(bits, dtype=torch.uint8, device=codes.device)
    planes = (padded.unsqueeze(-2) >> shifts.unsqueeze(-1)) & 1
    eights = planes.view(*planes.shape[:-1], -1, 8)
    places = torch.arange(8, dtype=torch.uint8, device=codes.device)
    packed: torch.Tensor = (eights << places).sum(-1, dtype=torch.uint8)
    return packed


def unpack_planes(planes: torch.Tensor, k: int) -> torch.Tensor:
    """Return planes (..., bits, bytes) as codes (..., k), uint8."""
    places = torch.arange(8, dtype=torch.uint8, device=planes.device)
    flat = ((planes.unsqueeze(-1) >> places) & 1).flatten(-2)[..., :k]
    shifts = torch.arange(planes.shape[-2], dtype=torch.uint8, device=planes.device)
    return (flat << shifts.unsqueeze(-1)).sum(-2, dtype=torch.uint8)
