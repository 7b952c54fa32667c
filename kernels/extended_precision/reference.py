"""The definition of the product, and the product of halves, in plain PyTorch."""

from __future__ import annotations

import torch

from kernels.extended_precision.plan import STEP
from kernels.extended_precision.split import (
    is_wide,
    scale_exponents,
    scale_rows,
    split_halves,
    trouble_of,
    unscale,
)

Operands = tuple[torch.Tensor, torch.Tensor]


def matmul_reference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return ``a @ b`` summed in float64: what all paths are compared with."""
    return torch.matmul(a.double(), b.double())


def split_product(
    a: torch.Tensor,
    b: torch.Tensor,
    *,
    products: int = 3,
    residual_bits: int = 11,
    truncate: bool = False,
    interval: int = STEP,
) -> torch.Tensor:
    """Return ``a @ b`` of matrices whose numbers are split in halves, in float32.

    Rows of a and columns of b are scaled by powers of two first. Products of halves are exact;
    each is summed over ``interval`` columns by itself, and the sums are added up in order. What
    tensor cores do within an interval is rounded differently, see ``tensor_core.multiply``.

    Args:
        a: (batch, m, k), float32.
        b: (batch, k, n), float32; batches as torch broadcasts them.
        products: 3, or 4 with the product of both lower halves.
        residual_bits: lower halves are grown by 2 to this power.
        truncate: cut the halves instead of rounding them.
        interval: columns of K that are summed at once.

    Rows of a or columns of b that have inf or nan, or that halves cannot hold (see ``is_wide``),
    are multiplied in float32 as they are.
    """
    rows, columns = a, b.mT
    down, across = scale_exponents(rows), scale_exponents(columns)
    left = split_halves(scale_rows(rows, down), residual_bits, truncate=truncate)
    right = split_halves(scale_rows(columns, across), residual_bits, truncate=truncate)
    total = _summed(left, right, products, residual_bits, interval)
    product = unscale(total, down[..., :, None] + across[..., None, :])
    k = rows.shape[-1]
    plain = is_wide(trouble_of(rows, residual_bits), k)[..., :, None]
    plain = plain | is_wide(trouble_of(columns, residual_bits), k)[..., None, :]
    return torch.where(plain, torch.matmul(a, b), product)


def _summed(
    left: Operands, right: Operands, products: int, residual_bits: int, interval: int
) -> torch.Tensor:
    """Return the sum of the products of halves, small ones first within an interval."""
    orders = [(1, 0), (0, 1), (0, 0)] if products == 3 else [(1, 1), (1, 0), (0, 1), (0, 0)]
    total = torch.zeros((), device=left[0].device)
    for first in range(0, left[0].shape[-1], interval):
        for i, j in orders:
            part = left[i][..., first : first + interval].float()
            other = right[j][..., first : first + interval].float()
            total = total + torch.matmul(part, other.mT) * 2.0 ** (-residual_bits * (i + j))
    return total
