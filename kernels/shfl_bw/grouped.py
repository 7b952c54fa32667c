"""One product a group on gathered features: faster than dense on a CPU.

Features are gathered from a block of tokens that stays in the cache, feature-major, so that a
gather copies runs. A few tokens take one batched product of all groups instead, of panels filled up
with zeros to one length.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch

from kernels.shfl_bw.activation import FUNCTIONS
from kernels.shfl_bw.remembered import PerTensor
from kernels.shfl_bw.window import Window

_FEW = 64  # tokens up to which calls cost more than zeros
_BLOCK = 512  # tokens of a block, as measured: 1.0 against 1.2 (128) and 1.5 (64), 4096x4096, V=64
_PADDED = PerTensor[tuple[torch.Tensor, torch.Tensor]]()


def shfl_bw_grouped(
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
    tokens = x.shape[1 if feature_major else 0]
    shape = (out_features, tokens) if feature_major else (tokens, out_features)
    y = torch.empty(shape, dtype=x.dtype, device=x.device)
    turned = y if feature_major else y.T
    place = _places(rows, out_features)
    if tokens <= _FEW:
        features = x if feature_major else x.T
        packed = _batched(features, values, columns, offsets)
        turned.copy_(packed.index_select(0, place))
    else:
        bounds = offsets.tolist()
        for begin in range(0, tokens, _BLOCK):
            part = slice(begin, begin + _BLOCK)
            block = (x[:, part] if feature_major else x[part].T).contiguous()
            packed = _by_group(block, values, columns, bounds)
            turned[:, part] = packed.index_select(0, place)
    return _finish(y, bias if bias is None or not feature_major else bias[:, None], activation)


def shfl_bw_conv2d_grouped(
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
    batch, channels, height, width = images.shape
    down, across = window.output(height, width)
    y = torch.empty(batch, out_features, down, across, dtype=x.dtype, device=x.device)
    moved = window.unfolded_rows(columns, channels)
    bounds, place = offsets.tolist(), _places(rows, out_features)
    for part in _image_blocks(batch, down * across):
        block = window.unfold(images[part].contiguous())
        packed = _by_group(block, values, moved, bounds).index_select(0, place)
        y[part] = packed.view(out_features, -1, down, across).transpose(0, 1)
    y = _finish(y, None if bias is None else bias[:, None, None], activation)
    return y.permute(1, 2, 3, 0).contiguous() if feature_major else y


def _image_blocks(batch: int, pixels: int) -> Iterator[slice]:
    step = max(1, _BLOCK // max(1, pixels))
    return (slice(begin, begin + step) for begin in range(0, batch, step))


def _by_group(
    block: torch.Tensor, values: torch.Tensor, columns: torch.Tensor, bounds: list[int]
) -> torch.Tensor:
    """Return the product in packed order, (groups * v, tokens), of features (in, tokens)."""
    v = values.shape[1]
    packed = block.new_empty((len(bounds) - 1) * v, block.shape[1])
    for group in range(len(bounds) - 1):
        kept = slice(bounds[group], bounds[group + 1])
        gathered = block.index_select(0, columns[kept])
        torch.mm(values[kept].T, gathered, out=packed[group * v : (group + 1) * v])
    return packed


def _batched(
    features: torch.Tensor, values: torch.Tensor, columns: torch.Tensor, offsets: torch.Tensor
) -> torch.Tensor:
    """Return the same for few tokens, by one batched product."""
    panels, gathered = _padded(values, columns, offsets, features.shape[0])
    spare = features.new_zeros(1, features.shape[1])  # what padding reads: never NaN
    block = torch.cat([features, spare]).index_select(0, gathered.flatten())
    return torch.bmm(panels, block.view(*gathered.shape, -1)).flatten(0, 1)


def _padded(
    values: torch.Tensor, columns: torch.Tensor, offsets: torch.Tensor, features: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return panels (groups, v, longest) and their columns (groups, longest); kept."""

    def make() -> tuple[torch.Tensor, torch.Tensor]:
        bounds = offsets.tolist()
        longest = max(1, *(end - begin for begin, end in pairwise(bounds)))
        panels = values.new_zeros(len(bounds) - 1, values.shape[1], longest)
        gathered = columns.new_full((len(bounds) - 1, longest), features)
        for group, (begin, end) in enumerate(pairwise(bounds)):
            panels[group, :, : end - begin] = values[begin:end].T
            gathered[group, : end - begin] = columns[begin:end]
        return panels, gathered

    return _PADDED.get(values, features, make)


def _places(rows: torch.Tensor, out_features: int) -> torch.Tensor:
    """Return the packed place of each row."""
    place = rows.new_empty(out_features + 1)
    place[rows.long()] = torch.arange(len(rows), dtype=rows.dtype, device=rows.device)
    return place[:-1]


def _finish(y: torch.Tensor, bias: torch.Tensor | None, activation: str) -> torch.Tensor:
    if bias is not None:
        y += bias.to(y.dtype)
    return FUNCTIONS[activation](y)
