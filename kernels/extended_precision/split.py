"""Matrices as two halves, and the image in which tensor cores read them; plain PyTorch.

This is the definition of what ``cuda/split.cu`` writes, bit by bit, and what runs on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from kernels.extended_precision.plan import (
    NOT_FINITE,
    ROW_MULTIPLE,
    SCALE_EXPONENTS,
    SCALED_TOP,
    STEP,
    TINY,
    WIDE_SHARE,
)

_UNITS = 8
"""Units of 8 halves in a row of the image: 4 upper, 4 lower."""


@dataclass(frozen=True, slots=True)
class SplitMatrix:
    """Matrices whose rows are split for a product over K.

    Attributes:
        source: (batch, rows, k), float32: what was split.
        image: (batch, ceil(k / 32), padded rows, 64), float16: see ``pack_image``.
        exponents: (batch, padded rows), int32: rows are scaled by two to these powers.
        trouble: (batch, padded rows), int32: elements that are held less exactly than to 22 bits;
            ``NOT_FINITE`` and ``TINY`` are added for rows that have inf or nan, or are too small
            to be scaled.
        residual_bits: lower halves are grown by 2 to this power.
        swizzled: whether the image is for Hopper's tensor cores to read as it is.
    """

    source: torch.Tensor
    image: torch.Tensor
    exponents: torch.Tensor
    trouble: torch.Tensor
    residual_bits: int
    swizzled: bool

    @property
    def batch(self) -> int:
        """Matrices; one may serve a whole batch of the other operand's."""
        return self.source.shape[0]

    @property
    def rows(self) -> int:
        """Rows without padding."""
        return self.source.shape[1]

    @property
    def k(self) -> int:
        """Columns without padding."""
        return self.source.shape[2]

    @property
    def padded(self) -> int:
        """Rows of the image."""
        return self.image.shape[2]


def to_half(x: torch.Tensor, *, truncate: bool = False) -> torch.Tensor:
    """Return float16 of float32, to nearest or cut toward zero."""
    half = x.half()
    if not truncate:
        return half
    too_far = half.float().abs() > x.abs()  # inf too: it steps back to the largest half
    return (half.view(torch.int16) - too_far.to(torch.int16)).view(torch.float16)


def split_halves(
    x: torch.Tensor, residual_bits: int = 0, *, truncate: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each number's upper half, and the half of what it leaves times ``2**residual_bits``.

    Args:
        x: float32. Beyond 65504 the upper half is inf; inf and nan leave nothing.
        residual_bits: of the lower half's scale.
        truncate: cut instead of rounding to nearest.
    """
    upper = to_half(x, truncate=truncate)
    rest = torch.where(torch.isfinite(x), (x - upper.float()) * 2.0**residual_bits, 0.0)
    return upper, to_half(rest, truncate=truncate)


def scale_exponents(x: torch.Tensor) -> torch.Tensor:
    """Return the power of two that puts each row's largest finite magnitude into [2^14, 2^15).

    Args:
        x: (.., rows, k), float32.

    Returns:
        (.., rows), int32, within ``SCALE_EXPONENTS``; 0 for rows of zeros.
    """
    largest = _largest(x)
    exponents = SCALED_TOP - (torch.frexp(largest)[1] - 1)
    return torch.where(largest == 0, 0, exponents.clamp(*SCALE_EXPONENTS)).int()


def _largest(x: torch.Tensor) -> torch.Tensor:
    return torch.where(torch.isfinite(x), x.abs(), 0.0).amax(-1)


def scale_rows(x: torch.Tensor, exponents: torch.Tensor) -> torch.Tensor:
    """Return rows of x (.., rows, k) times two to the power of their exponents (.., rows)."""
    return x * power_of_two(exponents)[..., None]


def power_of_two(exponents: torch.Tensor) -> torch.Tensor:
    """Return two to integer powers between -126 and 127, as float32, exactly."""
    return ((exponents.int() + 127) << 23).view(torch.float32)


def unscale(product: torch.Tensor, exponents: torch.Tensor) -> torch.Tensor:
    """Return a product times two to the power of minus its exponents, rounded once."""
    half = -exponents >> 1
    return product * power_of_two(half) * power_of_two(-exponents - half)


def trouble_of(x: torch.Tensor, residual_bits: int) -> torch.Tensor:
    """Return what is wrong with each row of x (.., rows, k), as ``SplitMatrix.trouble``."""
    scaled = scale_rows(x, scale_exponents(x)).abs()
    poor = ((scaled != 0) & (scaled < 2.0 ** (-3 - residual_bits))).sum(-1)
    largest = _largest(x)
    tiny = (largest != 0) & (largest < 2.0 ** (SCALED_TOP - SCALE_EXPONENTS[1]))
    infinite = ~torch.isfinite(x).all(-1)
    return (poor + tiny * TINY + infinite * NOT_FINITE).int()


def is_wide(trouble: torch.Tensor, k: int) -> torch.Tensor:
    """Return which rows two halves cannot hold to float32's accuracy, by their trouble."""
    return trouble > k // WIDE_SHARE


def split_matrix(
    x: torch.Tensor, residual_bits: int = 0, *, truncate: bool = False, swizzled: bool = True
) -> SplitMatrix:
    """Return x (batch, rows, k) split, by PyTorch operations."""
    rows, k = x.shape[1:]
    padding = (0, -k % STEP, 0, -rows % ROW_MULTIPLE)
    padded = F.pad(x, padding)
    exponents = scale_exponents(padded)
    upper, lower = split_halves(scale_rows(padded, exponents), residual_bits, truncate=truncate)
    trouble = trouble_of(padded, residual_bits)
    image = pack_image(upper, lower, swizzled=swizzled)
    return SplitMatrix(x, image, exponents, trouble, residual_bits, swizzled)


def pack_image(upper: torch.Tensor, lower: torch.Tensor, *, swizzled: bool = True) -> torch.Tensor:
    """Return both halves (batch, rows, k) as tensor cores read them.

    Per 32 columns of K the image holds, for all rows, 64 halves in units of 8: first the upper
    halves, then the lower ones; swizzled, unit u of row r lies at place u XOR (r mod 8). Any 8 rows
    are then the 128-byte swizzle of shared memory, and tiles are copied as they are.

    Args:
        upper: float16, rows a multiple of 8 and k of 32.
        lower: the same.
        swizzled: as above.
    """
    batch, rows, k = upper.shape
    units = torch.stack((upper, lower), 2).view(batch, rows, 2, k // STEP, 4, 8)
    units = units.permute(0, 3, 1, 2, 4, 5).reshape(batch, k // STEP, rows, _UNITS, 8)
    return (units.gather(3, _places(units)) if swizzled else units).flatten(3)


def unpack_image(
    image: torch.Tensor, *, swizzled: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the upper and lower halves (batch, rows, k) of an image."""
    batch, steps, rows, _ = image.shape
    units = image.view(batch, steps, rows, _UNITS, 8)
    units = units.gather(3, _places(units)) if swizzled else units
    units = units.view(batch, steps, rows, 2, 4 * 8)
    upper, lower = units.permute(3, 0, 2, 1, 4).reshape(2, batch, rows, steps * STEP)
    return upper, lower


def _places(units: torch.Tensor) -> torch.Tensor:
    """Return for each place the unit that lies there; the swizzle is its own inverse."""
    rows = torch.arange(units.shape[2], device=units.device)[:, None, None] % _UNITS
    return (torch.arange(_UNITS, device=units.device)[:, None] ^ rows).expand(units.shape)
