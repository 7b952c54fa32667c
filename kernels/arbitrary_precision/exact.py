"""Integer products on a CPU through floating-point matrix products that round nothing.

Every partial sum of whole numbers below 2^24 is exact in float32, below 2^53 in float64, in any
order of addition. So the library's fastest products serve, and results are integers.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from kernels.arbitrary_precision.encodings import Encoding

_EXACT_FLOAT32 = 2**24
_PATCH_BYTES = 64 << 20


def working_dtype(w: Encoding, x: Encoding, k: int) -> torch.dtype:
    """Return the smallest floating type in which a sum of ``k`` products is exact."""
    largest = max(abs(w.lowest), abs(w.highest)) * max(abs(x.lowest), abs(x.highest))
    return torch.float32 if k * largest < _EXACT_FLOAT32 else torch.float64


def linear(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Return the product (..., m) of whole numbers x (..., k) and w (m, k) of one working type."""
    return F.linear(x, w)


def conv2d(
    x: torch.Tensor,
    w: torch.Tensor,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
) -> torch.Tensor:
    """Return the convolution of whole numbers x (b, c, h, w) and w (m, c, r, s); pads with 0.

    By patches and a matrix product, some images at a time: a library's convolution may go through
    a transform (Winograd), which rounds.
    """
    size = (w.shape[2], w.shape[3])
    height, width = output_size((x.shape[2], x.shape[3]), size, stride, padding, dilation)
    y = x.new_empty(x.shape[0], w.shape[0], height * width)
    image_bytes = x.shape[1] * size[0] * size[1] * height * width * x.element_size()
    some = max(1, _PATCH_BYTES // max(image_bytes, 1))
    matrix = w.flatten(1)
    for first in range(0, x.shape[0], some):
        patches = F.unfold(x[first : first + some], size, dilation, padding, stride)
        torch.matmul(matrix, patches, out=y[first : first + some])
    return y.view(x.shape[0], w.shape[0], height, width)


def output_size(
    image: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[int, int]:
    """Return height and width of a convolution's output."""
    sizes = [
        (length + 2 * pad - far * (taps - 1) - 1) // step + 1
        for length, taps, step, pad, far in zip(
            image, kernel, stride, padding, dilation, strict=True
        )
    ]
    return sizes[0], sizes[1]
