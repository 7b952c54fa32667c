"""Real numbers to integers of a few bits: rules, steps, and their gradients for training.

Rounding is to the nearest, ties to even. Gradients pass straight through the rounding and stop
outside the range; steps learn by the rule of Esser et al., "Learned step size quantization",
ICLR 2020. Binary weights are a sign times the mean size of their row (Rastegari et al., 2016).
"""

from __future__ import annotations

from typing import Any

import torch

from kernels.arbitrary_precision.encodings import Encoding

_SEARCHED = 40  # clipping points tried for a step


def integers(x: torch.Tensor, step: torch.Tensor, encoding: Encoding) -> torch.Tensor:
    """Return real numbers as the nearest multiples of a step that the encoding has.

    Args:
        x: any shape, any floating type; worked on in float32 (float64 stays).
        step: positive, broadcast against ``x``.
        encoding: of a step of 1; plus and minus one are taken by sign, 0 as +1.

    Returns:
        whole numbers in the working type. NaN becomes the lowest one, an infinity the nearest end.
    """
    x = x if x.dtype == torch.float64 else x.float()
    if encoding.step == 2:
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)
    scaled = x * (1 / step.to(x.dtype))
    low, high = float(encoding.lowest), float(encoding.highest)
    return torch.nan_to_num(scaled, nan=low, posinf=high, neginf=low).round().clamp(low, high)


class _Fake(torch.autograd.Function):
    """Quantise and back, with the gradients of learned step sizes."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, step: torch.Tensor, low: float, high: float, scale: float
    ) -> torch.Tensor:
        ratio = x / step
        whole = ratio.round().clamp(low, high)
        ctx.save_for_backward(ratio, whole, step)
        ctx.ends, ctx.scale = (low, high), scale
        return whole * step

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        ratio, whole, step = ctx.saved_tensors
        low, high = ctx.ends
        inside = (ratio >= low) & (ratio <= high)
        slope = torch.where(inside, whole - ratio, whole) * dy * ctx.scale
        reduced = [i for i in range(dy.dim()) if _stretched(step, dy, i)]
        dstep = slope.sum(reduced, keepdim=True) if reduced else slope
        return dy * inside, dstep.reshape(step.shape), None, None, None


def _stretched(step: torch.Tensor, dy: torch.Tensor, axis: int) -> bool:
    """Tell whether the step is one number along an axis of the output."""
    own = axis - dy.dim() + step.dim()
    return own < 0 or (step.shape[own] == 1 and dy.shape[axis] >= 1)


def fake_quantise(x: torch.Tensor, step: torch.Tensor, encoding: Encoding) -> torch.Tensor:
    """Return x as the encoding and step have it, differentiable in both.

    Args:
        x: any shape.
        step: positive; one number, or one a row as (rows, 1, ...).
        encoding: of a step of 1.
    """
    low, high = float(encoding.lowest), float(encoding.highest)
    count = x.numel() / step.numel()
    scale = (max(high, -low) * count) ** -0.5
    return _Fake.apply(x, step, low, high, scale)  # type: ignore[no-any-return]


class _Sign(torch.autograd.Function):
    """Sign, with a gradient where |x| is at most one."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        passed: torch.Tensor = dy * (x.abs() <= 1)
        return passed


def fake_binary(weight: torch.Tensor) -> torch.Tensor:
    """Return sign times the mean size of each row of (rows, ...), differentiable in both."""
    rows = tuple(range(1, weight.dim()))
    size = weight.abs().mean(rows, keepdim=True)
    signs: torch.Tensor = _Sign.apply(weight)
    return signs * size


def weight_steps(weight: torch.Tensor, encoding: Encoding) -> torch.Tensor:
    """Return for each row of (rows, ...) the step of least squared error among clipping points.

    Rows of zeros get a step of 1. For plus and minus one it is the mean size.
    """
    flat = weight.detach().flatten(1)
    if encoding.step == 2:
        return _positive(flat.abs().mean(1))
    return _positive(_best_step(flat, flat.abs().amax(1), encoding))


def activation_step(x: torch.Tensor, encoding: Encoding) -> torch.Tensor:
    """Return the one step of least squared error for activations; 1 where all are zero."""
    flat = x.detach().float().flatten()[None]
    if encoding.step == 2:
        return _positive(flat.abs().mean(1))[0]
    return _positive(_best_step(flat, flat.abs().amax(1), encoding))[0]


def _best_step(rows: torch.Tensor, largest: torch.Tensor, encoding: Encoding) -> torch.Tensor:
    best = torch.ones_like(largest)
    least = torch.full_like(largest, torch.inf)
    levels = max(encoding.highest, -encoding.start, 1)  # on the longer side of zero
    for i in range(1, _SEARCHED + 1):
        step = _positive(largest * i / (_SEARCHED * levels))
        error = (integers(rows, step[:, None], encoding) * step[:, None] - rows).square().sum(1)
        better = error < least
        best, least = torch.where(better, step, best), torch.where(better, error, least)
    return best


def _positive(step: torch.Tensor) -> torch.Tensor:
    return torch.where(step > 0, step, torch.ones_like(step))
