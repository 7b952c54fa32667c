"""The product as an operator: custom operator for tracing, autograd rules for both ways to call it.

Gradients are products of the same kind, so that they are differentiable in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from kernels.extended_precision.routes import PRODUCTS

Optional = torch.Tensor | None


def extended_product(
    a: torch.Tensor,
    b: torch.Tensor,
    added: Optional,
    alpha: float,
    beta: float,
    implementation: str,
) -> torch.Tensor:
    """Return alpha a b + beta added, differentiable.

    Args:
        a: (batch or 1, m, k), float32.
        b: (batch or 1, k, n), float32.
        added: None, or three dimensions that broadcast to (batch, m, n).
        alpha: factor of the product.
        beta: factor of what is added.
        implementation: its name, see ``routes.PRODUCTS``.
    """
    if torch.compiler.is_compiling():
        y: torch.Tensor = traced_product(a, b, added, alpha, beta, implementation)
        return y
    return _Eager.apply(a, b, added, alpha, beta, implementation)  # type: ignore[no-any-return]


@torch.library.custom_op("paretonas::extended_product", mutates_args=())
def traced_product(
    a: torch.Tensor,
    b: torch.Tensor,
    added: Optional,
    alpha: float,
    beta: float,
    implementation: str,
) -> torch.Tensor:
    """Return the product as an operator that tracing sees whole."""
    return PRODUCTS[implementation](a, b, added, alpha, beta).contiguous()


@traced_product.register_fake
def _(
    a: torch.Tensor,
    b: torch.Tensor,
    added: Optional,
    alpha: float,
    beta: float,
    implementation: str,
) -> torch.Tensor:
    batch = b.shape[0] if a.shape[0] == 1 else a.shape[0]
    return a.new_empty((batch, a.shape[1], b.shape[2]))


def _save(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    a, b, added, ctx.alpha, ctx.beta, ctx.implementation = inputs
    ctx.save_for_backward(a, b)
    ctx.added = None if added is None else added.shape


def _gradients(ctx: Any, dy: torch.Tensor, multiply: Callable[..., Any]) -> tuple[Any, ...]:
    a, b = ctx.saved_tensors
    da = db = dadded = None

    def product(x: torch.Tensor, y: torch.Tensor) -> Any:
        return multiply(x, y, None, ctx.alpha, 1.0, ctx.implementation)

    if ctx.needs_input_grad[0]:
        # Like its operand, so that a transposed view gets a gradient of its own layout.
        da = product(b, dy.mT).mT if _stands(a) else product(dy, b.mT)
        da = da.sum_to_size(a.shape)
    if ctx.needs_input_grad[1]:
        db = product(dy.mT, a).mT if _stands(b) else product(a.mT, dy)
        db = db.sum_to_size(b.shape)
    if ctx.needs_input_grad[2]:
        dadded = (dy * ctx.beta).sum_to_size(ctx.added)
    return da, db, dadded, None, None, None


def _traced_backward(ctx: Any, dy: torch.Tensor) -> tuple[Any, ...]:
    # Tracers run this without saying that they compile: it must not leave the operator.
    return _gradients(ctx, dy, traced_product)


traced_product.register_autograd(_traced_backward, setup_context=_save)


def _stands(x: torch.Tensor) -> bool:
    """Whether columns are contiguous and rows are not."""
    return x.stride(1) == 1 and x.stride(2) != 1


class _Eager(torch.autograd.Function):
    """The same without the dispatcher, which costs tens of microseconds a call."""

    @staticmethod
    def forward(
        ctx: Any,
        a: torch.Tensor,
        b: torch.Tensor,
        added: Optional,
        alpha: float,
        beta: float,
        implementation: str,
    ) -> torch.Tensor:
        y = PRODUCTS[implementation](a, b, added, alpha, beta)
        _save(ctx, (a, b, added, alpha, beta, implementation), y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[Any, ...]:
        return _gradients(ctx, dy, extended_product)
