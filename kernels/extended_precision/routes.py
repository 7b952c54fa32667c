"""The implementations of the product: alpha a b + beta added, of float32 matrices in batches.

All take ``a`` (batch or 1, m, k), ``b`` (batch or 1, k, n) and ``added``, None or broadcastable to
the result (batch, m, n).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from kernels.extended_precision.launch import Added, run_gemm, run_split
from kernels.extended_precision.portable import run_portable_gemm, run_repair
from kernels.extended_precision.reference import split_product
from kernels.extended_precision.split import SplitMatrix

Product = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor | None, float, float],
    torch.Tensor,
]


def product_torch(
    a: torch.Tensor, b: torch.Tensor, added: torch.Tensor | None, alpha: float, beta: float
) -> torch.Tensor:
    """Return the product by torch, in the precision that torch is set to."""
    return _finished(torch.matmul(a, b), added, alpha, beta)


def product_reference(
    a: torch.Tensor, b: torch.Tensor, added: torch.Tensor | None, alpha: float, beta: float
) -> torch.Tensor:
    """Return the product of halves in plain PyTorch."""
    if _is_empty(a, b):
        return product_torch(a, b, added, alpha, beta)
    return _finished(split_product(a, b), added, alpha, beta)


def product_portable(
    a: torch.Tensor, b: torch.Tensor, added: torch.Tensor | None, alpha: float, beta: float
) -> torch.Tensor:
    """Return the product by the Triton kernels."""
    return _split_and_multiply(a, b, Added(added, alpha, beta), swizzled=False)


def product_hopper(
    a: torch.Tensor, b: torch.Tensor, added: torch.Tensor | None, alpha: float, beta: float
) -> torch.Tensor:
    """Return the product by the Hopper kernels."""
    return _split_and_multiply(a, b, Added(added, alpha, beta), swizzled=True)


PRODUCTS: dict[str, Product] = {
    "torch": product_torch,
    "reference": product_reference,
    "portable": product_portable,
    "hopper": product_hopper,
}
"""By the names of ``implementations``."""

SWIZZLED = {"hopper": True, "portable": False}
"""Implementations that multiply split operands, and how they want them."""


def multiply_split(
    a: SplitMatrix, b: SplitMatrix, added: torch.Tensor | None, alpha: float, beta: float
) -> torch.Tensor:
    """Return the product of split operands (batch, m, k) and (batch, n, k), repaired."""
    what = Added(added, alpha, beta)
    run = run_gemm if a.swizzled else run_portable_gemm
    return run_repair(a, b, run(a, b, what), what)


def _split_and_multiply(
    a: torch.Tensor, b: torch.Tensor, added: Added, *, swizzled: bool
) -> torch.Tensor:
    if _is_empty(a, b):
        return product_torch(a, b, *added)
    left, right = run_split(a, swizzled=swizzled), run_split(b.mT, swizzled=swizzled)
    return multiply_split(left, right, *added)


def _is_empty(a: torch.Tensor, b: torch.Tensor) -> bool:
    return 0 in (*a.shape, *b.shape)


def _finished(
    product: torch.Tensor, added: torch.Tensor | None, alpha: float, beta: float
) -> torch.Tensor:
    product = product if alpha == 1.0 else product * alpha
    return product if added is None else torch.add(product, added, alpha=beta)
