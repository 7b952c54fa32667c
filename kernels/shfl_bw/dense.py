"""The same product with the dense matrix, zeros and all: where nothing faster is known to be right.

NaN and infinity in a column that a row does not keep reach that row: 0 times infinity is NaN.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from kernels.remembered import PerTensor
from kernels.shfl_bw.activation import FUNCTIONS
from kernels.shfl_bw.packed import dense_matrix
from kernels.shfl_bw.pattern import like_weight
from kernels.shfl_bw.window import Window

_MATRICES = PerTensor[torch.Tensor]()


def shfl_bw_dense(
    x: torch.Tensor,
    values: torch.Tensor,
    columns: torch.Tensor,
    offsets: torch.Tensor,
    rows: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    out_features: int,
    activation: str = "none",
    feature_major: bool = False,
) -> torch.Tensor:
    """See :func:`kernels.shfl_bw.reference.shfl_bw_reference`."""
    shape = (out_features, x.shape[0 if feature_major else 1])
    matrix = dense_of((values, columns, offsets, rows), shape)
    if feature_major:
        y = matrix @ x
        y = y if bias is None else y + bias.to(y.dtype)[:, None]
    else:
        y = F.linear(x, matrix, None if bias is None else bias.to(x.dtype))
    return FUNCTIONS[activation](y)


def shfl_bw_conv2d_dense(
    x: torch.Tensor,
    values: torch.Tensor,
    columns: torch.Tensor,
    offsets: torch.Tensor,
    rows: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    out_features: int,
    window: Window,
    activation: str = "none",
    feature_major: bool = False,
) -> torch.Tensor:
    """See :func:`kernels.shfl_bw.reference.shfl_bw_conv2d_reference`."""
    images = x.permute(3, 0, 1, 2) if feature_major else x
    channels = images.shape[1]
    shape = (out_features, window.taps * channels)
    matrix = dense_of((values, columns, offsets, rows), shape)
    filters = like_weight(matrix, (out_features, channels, *window.kernel))
    added = None if bias is None else bias.to(x.dtype)
    y = F.conv2d(images, filters, added, window.stride, window.padding, window.dilation)
    y = FUNCTIONS[activation](y)
    return y.permute(1, 2, 3, 0).contiguous() if feature_major else y


def dense_of(
    packed: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], shape: tuple[int, int]
) -> torch.Tensor:
    """Return the dense matrix of packed tensors, kept until the values change."""

    def make() -> torch.Tensor:
        with torch.no_grad():
            return dense_matrix(packed[0].detach(), *packed[1:], shape)

    return _MATRICES.get(packed[0], shape, make)
