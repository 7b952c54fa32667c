"""Products with packed weights by the Hopper kernels (wgmma), token-major or feature-major.

Token-major input is transposed on the way in and the output on the way out.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from kernels.remembered import PerTensor
from kernels.shfl_bw.images import Images, images_of
from kernels.shfl_bw.launch import run_convolution, run_spmm, run_transpose
from kernels.shfl_bw.window import Window

_IMAGES = PerTensor[Images]()
_BIASES = PerTensor[torch.Tensor]()


def shfl_bw_hopper(
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
    images = _images(values, columns, offsets, rows)
    added = _float(bias)
    tokens = x.shape[1 if feature_major else 0]
    with torch.cuda.device(x.device):
        features = _usable(x) if feature_major else run_transpose(_usable(x))
        y = run_spmm(features, images, added, out_features=out_features, activation=activation)
        if feature_major:
            return y if y.shape[1] == tokens else y[:, :tokens].contiguous()
        turned = run_transpose(y, leaves=True)[:tokens]
    return turned if turned.shape[1] == out_features else turned[:, :out_features].contiguous()


def shfl_bw_conv2d_hopper(
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
    images = _images(values, columns, offsets, rows)
    added = _float(bias)
    with torch.cuda.device(x.device):
        y = run_convolution(
            _feature_major(x, feature_major),
            images,
            added,
            window,
            out_features=out_features,
            activation=activation,
        )
        if not feature_major:
            return _batch_major(y, x.shape[0])
    return y if y.shape[3] == x.shape[3] else y[..., : x.shape[3]].contiguous()


def _feature_major(x: torch.Tensor, already: bool) -> torch.Tensor:
    """Return images as (c, h, w, b), b filled up to a multiple of 8 with zeros."""
    if already:
        return _usable(x)
    batch, *shape = x.shape
    flat = x.flatten(1)  # copies channels-last images
    if flat.shape[1] % 8:
        return F.pad(x.permute(1, 2, 3, 0), (0, -batch % 8)).contiguous()
    return run_transpose(_usable(flat)).view(*shape, -1)


def _batch_major(y: torch.Tensor, batch: int) -> torch.Tensor:
    """Undo it: return (b, c, h, w) without what was filled up."""
    *shape, filled = y.shape
    if y[0].numel() and y.numel() // filled % 8 == 0:
        return run_transpose(y.view(-1, filled), leaves=True)[:batch].view(batch, *shape)
    return y[..., :batch].permute(3, 0, 1, 2).contiguous()


def _images(
    values: torch.Tensor, columns: torch.Tensor, offsets: torch.Tensor, rows: torch.Tensor
) -> Images:
    def make() -> Images:
        with torch.no_grad():
            return images_of(values.detach(), columns, offsets, rows)

    return _IMAGES.get(values, None, make)


def _float(bias: torch.Tensor | None) -> torch.Tensor | None:
    if bias is None or bias.dtype == torch.float32:
        return bias
    with torch.no_grad():
        return _BIASES.get(bias, None, lambda: bias.detach().float())


def _usable(x: torch.Tensor) -> torch.Tensor:
    """Return it with a last axis filled up to a multiple of 8 with zeros, 16-byte aligned."""
    if x.shape[-1] % 8:
        return F.pad(x, (0, -x.shape[-1] % 8))
    return x if x.data_ptr() % 16 == 0 else x.clone()
