"""Products of float32 matrices by the implementation that is chosen for them.

Each function is that of torch of the same name: same arguments, same result to within float32's
accuracy. Whatever is not float32, under autocast, or not on a CPU or GPU goes to torch.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch.nn import functional as F

from kernels.device import detect
from kernels.environment import forced_kernel
from kernels.extended_precision.implementations import OP, extended_precision_workload
from kernels.extended_precision.op import extended_product
from kernels.select import select

TORCH = "torch"
"""The implementation that leaves everything to torch."""

# Loaded with this module, because Dynamo cannot import while it traces.
import kernels.extended_precision.routes  # noqa: E402, F401


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return ``torch.matmul(a, b)``; vectors go to torch.

    Example:
        >>> matmul(torch.ones(3, 4), torch.ones(4, 2))[0]
        tensor([4., 4.])
    """
    name = implementation_of(a, b)
    if name == TORCH or a.dim() < 2 or b.dim() < 2:
        return torch.matmul(a, b)
    m, n = a.shape[-2], b.shape[-1]
    if b.dim() == 2:
        folded = a.flatten(0, -2)[None]
        y = extended_product(folded, b[None], None, 1.0, 1.0, name)
        return y.view(*a.shape[:-1], n)
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])  # type: ignore[no-untyped-call]
    y = extended_product(_batched(a, batch), _batched(b, batch), None, 1.0, 1.0, name)
    return y.view(*batch, m, n)


def _batched(x: torch.Tensor, batch: torch.Size) -> torch.Tensor:
    """Return x (.., r, c) with one batch dimension, of size 1 where all share one matrix."""
    if math.prod(x.shape[:-2]) == 1:
        return x.reshape(1, *x.shape[-2:])
    return x.expand(*batch, *x.shape[-2:]).flatten(0, -3)


def bmm(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return ``torch.bmm(a, b)``."""
    name = implementation_of(a, b)
    if name == TORCH:
        return torch.bmm(a, b)
    return extended_product(a, b, None, 1.0, 1.0, name)


def addmm(
    added: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    *,
    beta: float = 1.0,
    alpha: float = 1.0,
) -> torch.Tensor:
    """Return ``torch.addmm(added, a, b, beta=beta, alpha=alpha)``."""
    name = implementation_of(added, a, b)
    if name == TORCH:
        return torch.addmm(added, a, b, beta=beta, alpha=alpha)
    return baddbmm(added[None], a[None], b[None], beta=beta, alpha=alpha)[0]


def baddbmm(
    added: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    *,
    beta: float = 1.0,
    alpha: float = 1.0,
) -> torch.Tensor:
    """Return ``torch.baddbmm(added, a, b, beta=beta, alpha=alpha)``."""
    name = implementation_of(added, a, b)
    if name == TORCH:
        return torch.baddbmm(added, a, b, beta=beta, alpha=alpha)
    added = added[(None,) * (3 - added.dim())]
    # As torch has it: with beta 0, nan in what is added does not count.
    return extended_product(a, b, added if beta else None, alpha, beta, name)


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return ``F.linear(x, weight, bias)``: x (.., c_in), weight (c_out, c_in), bias (c_out,)."""
    name = implementation_of(x, weight, *([] if bias is None else [bias]))
    if name == TORCH or weight.dim() != 2 or x.dim() < 2:
        return F.linear(x, weight, bias)
    added = None if bias is None else bias[None, None]
    y = extended_product(x.flatten(0, -2)[None], weight.mT[None], added, 1.0, 1.0, name)
    return y.view(*x.shape[:-1], weight.shape[0])


def pointwise_conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: tuple[int, int] = (1, 1),
) -> torch.Tensor:
    """Return ``F.conv2d(x, weight, bias, stride)`` of a 1x1 convolution.

    Args:
        x: (b, c_in, h, w), contiguous or channels-last; the result is alike.
        weight: (c_out, c_in, 1, 1).
        bias: (c_out,).
        stride: in both directions.
    """
    name = implementation_of(x, weight, *([] if bias is None else [bias]))
    if name == TORCH or weight.shape[2:] != (1, 1) or x.dim() != 4:
        return F.conv2d(x, weight, bias, stride)
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    x = x[:, :, :: stride[0], :: stride[1]]
    batch, _, height, width = x.shape
    matrix = weight[:, :, 0, 0]
    if last:
        pixels = x.permute(0, 2, 3, 1)
        return linear(pixels, matrix, bias).permute(0, 3, 1, 2)
    added = None if bias is None else bias[None, :, None]
    y = extended_product(matrix[None], x.flatten(2), added, 1.0, 1.0, name)
    return y.view(batch, matrix.shape[0], height, width)


def implementation_of(*operands: torch.Tensor) -> str:
    """Return the implementation that multiplies such operands, ``"torch"`` for what is torch's."""
    device = operands[0].device
    if device.type not in ("cpu", "cuda") or torch.is_autocast_enabled(device.type):
        return TORCH
    if any(x.dtype != torch.float32 or x.device != device for x in operands):
        return TORCH
    if torch.compiler.is_compiling():
        name: str = _traced_name(str(device))
        return name
    return _chosen(str(device), forced_kernel(OP))


@lru_cache(maxsize=64)
def _chosen(device: str, forced: str | None) -> str:
    """Choose for a device; no implementation minds the shape."""
    workload = extended_precision_workload(1, 1, 1, 1)
    return select(workload, detect(device), force=forced).name


# The tracer runs this and sees only the name.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _traced_name(device: str) -> str:
    return _chosen(device, forced_kernel(OP))
