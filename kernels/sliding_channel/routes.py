"""Which product runs: the kernels of this folder, or one dense matrix where those lose or refuse.

All images are channels-last, so that their pixels are the rows of a matrix.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch.nn import functional as F

from kernels.sliding_channel import launch, plan_hopper
from kernels.sliding_channel.packing import DENSE, pack, window_entries
from kernels.sliding_channel.plan import (
    FEW_PIXELS,
    Structure,
    loses_to_dense,
    refuses_input_gradient,
    refuses_structure,
    refuses_weight_gradient,
)


class Route(NamedTuple):
    """Which kernels run a layer: CUDA sources, or ``packing.DENSE``."""

    forward: str
    input_gradient: str
    weight_gradient: str


class Packed(NamedTuple):
    """Weights as a kernel reads them."""

    kernel: str
    weights: torch.Tensor


@lru_cache(maxsize=1024)
def route(s: Structure, capability: tuple[int, int] | None, few: bool) -> Route:
    """Return which kernels run a layer.

    Args:
        s: the windows.
        capability: of a GPU that runs halves; None for anything else.
        few: whether there are :data:`FEW_PIXELS` or fewer: too little work for Hopper's kernels,
            which first bring all weights into shared memory.
    """
    if capability is None:
        return Route(DENSE, DENSE, DENSE)
    found = Route("forward.cu", "input_gradient.cu", "weight_gradient.cu")
    if refuses_structure(s) or refuses_weight_gradient(s) or (few and loses_to_dense(s)):
        found = found._replace(weight_gradient=DENSE)
    if refuses_structure(s) or refuses_input_gradient(s):
        found = found._replace(forward=DENSE, input_gradient=DENSE)
    elif loses_to_dense(s):  # the input's gradient only alone, not beside that of the weights
        found = found._replace(forward=DENSE, input_gradient="input_gradient.cu" if few else DENSE)
    if capability == plan_hopper.CAPABILITY and not few:
        if plan_hopper.refuses_forward(s) is None:
            found = found._replace(forward="forward_hopper.cu")
        if plan_hopper.refuses_input_gradient(s) is None:
            found = found._replace(input_gradient="input_gradient_hopper.cu")
    return found


def prepare(
    weight: torch.Tensor, s: Structure, x: torch.Tensor, *, training: bool
) -> tuple[Packed, Packed | None]:
    """Return the weights as ``product`` and as ``gradients`` take them.

    Args:
        weight: (c_out, gw).
        s: the windows.
        x: the input (b, c_in, h, w), of which only type, device and size matter.
        training: whether gradients will be asked for; without them the second is None.
    """
    chosen = _route(x, s)
    kernels = chosen[: 2 if training else 1]
    different = tuple(dict.fromkeys(kernels))
    found = dict(zip(different, pack(weight, s, different), strict=True))
    forward, *backward = (Packed(kernel, found[kernel]) for kernel in kernels)
    return forward, backward[0] if training else None


def product(
    x: torch.Tensor, prepared: Packed, bias: torch.Tensor | None, s: Structure
) -> torch.Tensor:
    """Return the product of x (b, c_in, h, w) with prepared weights, channels-last."""
    x = aligned(x)
    if prepared.kernel == DENSE:
        return F.linear(_rows(x), prepared.weights, bias).permute(0, 3, 1, 2)
    added = None if bias is None else bias.float()
    with torch.cuda.device(x.device):
        return launch.run_forward(x, prepared.weights, added, s, prepared.kernel)


def gradients(
    dy: torch.Tensor,
    x: torch.Tensor,
    prepared: Packed,
    s: Structure,
    wants: tuple[bool, bool] = (True, True),
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return the gradients of the input and of the weights; None for one that is not wanted.

    Args:
        dy: gradient of the output, (b, c_out, h, w).
        x: the input, (b, c_in, h, w).
        prepared: the second of ``prepare``.
        s: the windows.
        wants: whether the input's gradient is wanted, and the weights'.
    """
    dy, x = aligned(dy), aligned(x)
    dx = launch.empty_images(dy, s.c_in) if wants[0] else None
    if dx is None or not wants[1] or not dy.is_cuda:
        if dx is not None:
            _input_gradient(dy, prepared, s, dx)
        return dx, _weight_gradient(x, dy, s) if wants[1] else None
    # Side by side, so that what both read comes from memory once. The weights' first: a block of
    # theirs often leaves room on a multiprocessor for others; the input's would fill it.
    with torch.cuda.device(dy.device):
        current, side = torch.cuda.current_stream(), _side_stream(dy.device)
        side.wait_stream(current)
        dw = _weight_gradient(x, dy, s)
        with torch.cuda.stream(side):
            _input_gradient(dy, prepared, s, dx)
        current.wait_stream(side)
    return dx, dw


def _route(images: torch.Tensor, s: Structure) -> Route:
    """Return the route of a layer whose images (b, channels, h, w) are like these."""
    return route(s, _capability(images), _is_few(images))


def _is_few(images: torch.Tensor) -> bool:
    return images.shape[0] * images.shape[2] * images.shape[3] <= FEW_PIXELS


def _capability(tensor: torch.Tensor) -> tuple[int, int] | None:
    """Return the compute capability of the device, None where it or the type has no kernels."""
    if not tensor.is_cuda or tensor.dtype not in (torch.float16, torch.bfloat16):
        return None
    found = torch.cuda.get_device_capability(tensor.device)
    return found if found >= (8, 0) else None


def aligned(images: torch.Tensor) -> torch.Tensor:
    """Return the images channels-last, from an address that 16 bytes divide."""
    images = images.contiguous(memory_format=torch.channels_last)
    if images.is_cuda and images.data_ptr() % 16:
        return images.clone(memory_format=torch.channels_last)
    return images


def _input_gradient(dy: torch.Tensor, prepared: Packed, s: Structure, out: torch.Tensor) -> None:
    if prepared.kernel == DENSE:
        torch.mm(_rows(dy).flatten(0, 2), prepared.weights, out=_rows(out).flatten(0, 2))
        return
    with torch.cuda.device(dy.device):
        launch.run_input_gradient(dy, prepared.weights, s, prepared.kernel, out=out)


def _weight_gradient(x: torch.Tensor, dy: torch.Tensor, s: Structure) -> torch.Tensor:
    if _route(x, s).weight_gradient == DENSE:
        dense = _few_pixels_gradient if _is_few(x) else _many_pixels_gradient
        return window_entries(dense(x, dy), s)
    with torch.cuda.device(x.device):
        return launch.run_weight_gradient(x, dy, s)


def _few_pixels_gradient(x: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
    return _rows(dy).flatten(0, 2).T @ _rows(x).flatten(0, 2)


def _many_pixels_gradient(x: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
    """Return the gradient by cuDNN, which shares many pixels out better than cuBLAS."""
    one, zero = [1, 1], [0, 0]
    shape = x.new_empty(1).expand(dy.shape[1], x.shape[1], 1, 1)
    _, dw, _ = torch.ops.aten.convolution_backward(
        dy, x, shape, None, one, zero, one, False, zero, 1, [False, True, False]
    )
    gradient: torch.Tensor = dw.view(shape.shape[:2])
    return gradient


def _rows(images: torch.Tensor) -> torch.Tensor:
    """Return channels-last images as (b, h, w, c), without a copy."""
    return images.permute(0, 2, 3, 1)


@lru_cache(maxsize=16)
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
