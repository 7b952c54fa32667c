"""Products on gathered features, several groups at a time: faster than dense on a CPU.

Groups of like length are filled up to the longest of them and multiplied by one batched product,
whose groups the threads divide among themselves: there is one meeting of all threads a chunk, not
one or two a group, which is what a busy machine makes slow. Features are gathered from a block of
tokens that stays in the cache, feature-major, so that a gather copies runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from kernels.remembered import PerTensor
from kernels.shfl_bw.activation import FUNCTIONS
from kernels.shfl_bw.window import Window

_CHUNK = 16  # groups of one product
_FEW = 8  # tokens up to which features are gathered token by token
_BLOCK = (64, 512)  # fewest and most tokens of a block
_BLOCK_FEATURES = 1 << 19  # of all its tokens together: 2 MB

_Columns = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class _Chunk:
    """Some groups, filled up to the longest.

    Attributes:
        panels: (groups, longest, v).
        columns: (groups, longest): rows of a block of features, its last one where filled up.
    """

    panels: torch.Tensor
    columns: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Chunks:
    """All groups.

    Attributes:
        parts: the longest groups first.
        order: (groups,): the groups in that order.
    """

    parts: tuple[_Chunk, ...]
    order: torch.Tensor


_KEPT = PerTensor[_Chunks]()


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
    tokens, features = (x.T if feature_major else x).shape
    shape = (out_features, tokens) if feature_major else (tokens, out_features)
    y = torch.empty(shape, dtype=x.dtype, device=x.device)
    chunks = _KEPT.get(
        values, features, lambda: _chunks(values, columns, offsets, features, lambda c: c)
    )
    place = _places(rows, chunks.order, out_features)
    if tokens <= _FEW:
        packed = _token_by_token(x.T if feature_major else x, chunks).index_select(1, place)
        y.copy_(packed.T if feature_major else packed)
    else:
        fewest, most = _BLOCK
        step = max(fewest, min(most, _BLOCK_FEATURES // max(1, features)))
        for begin in range(0, tokens, step):
            part = slice(begin, begin + step)
            block = _with_spare(x[:, part] if feature_major else x[part].T)
            packed = _product(block, chunks).index_select(0, place)
            if feature_major:
                y[:, part] = packed
            else:
                y[part] = packed.T
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

    def moved(kept: torch.Tensor) -> torch.Tensor:
        return window.unfolded_rows(kept, channels)

    made_for = (channels, window)
    unfolded = channels * window.taps
    chunks = _KEPT.get(values, made_for, lambda: _chunks(values, columns, offsets, unfolded, moved))
    place = _places(rows, chunks.order, out_features)
    for part in _image_blocks(batch, down * across):
        block = _with_spare(window.unfold(images[part].contiguous()))
        packed = _product(block, chunks).index_select(0, place)
        y[part] = packed.view(out_features, -1, down, across).transpose(0, 1)
    y = _finish(y, None if bias is None else bias[:, None, None], activation)
    return y.permute(1, 2, 3, 0).contiguous() if feature_major else y


def _image_blocks(batch: int, pixels: int) -> Iterator[slice]:
    step = max(1, _BLOCK[1] // max(1, pixels))
    return (slice(begin, begin + step) for begin in range(0, batch, step))


def _chunks(
    values: torch.Tensor,
    columns: torch.Tensor,
    offsets: torch.Tensor,
    features: int,
    moved: _Columns,
) -> _Chunks:
    """Put packed groups into chunks.

    Args:
        values: (vectors, v).
        columns: (vectors,).
        offsets: (groups + 1,).
        features: rows of a block of features but for the spare one.
        moved: gives the rows of a block that columns stand in.
    """
    lengths = offsets.diff().long()
    order = lengths.argsort(descending=True, stable=True)
    begins, counts = offsets.tolist(), lengths.tolist()
    parts = []
    for begin in range(0, len(order), _CHUNK):
        groups = order[begin : begin + _CHUNK].tolist()
        longest = max(1, counts[groups[0]])
        panels = values.new_zeros(len(groups), longest, values.shape[1])
        gathered = columns.new_full((len(groups), longest), features)
        for i, group in enumerate(groups):
            kept = slice(begins[group], begins[group + 1])
            panels[i, : counts[group]] = values[kept]
            gathered[i, : counts[group]] = moved(columns[kept])
        parts.append(_Chunk(panels, gathered))
    return _Chunks(tuple(parts), order)


def _with_spare(features: torch.Tensor) -> torch.Tensor:
    """Return (n, tokens) with a row of zeros below: what fillers read, never NaN."""
    block = features.new_empty(features.shape[0] + 1, features.shape[1])
    block[:-1] = features
    block[-1] = 0
    return block


def _product(block: torch.Tensor, chunks: _Chunks) -> torch.Tensor:
    """Return the product in packed order, (groups * v, tokens), of a block with a spare row."""
    v, tokens = chunks.parts[0].panels.shape[2], block.shape[1]
    packed = block.new_empty(len(chunks.order), v, tokens)
    for number, chunk in enumerate(chunks.parts):
        gathered = block.index_select(0, chunk.columns.flatten())
        out = packed[number * _CHUNK : (number + 1) * _CHUNK]
        torch.bmm(chunk.panels.mT, gathered.view(*chunk.columns.shape, tokens), out=out)
    return packed.flatten(0, 1)


def _token_by_token(x: torch.Tensor, chunks: _Chunks) -> torch.Tensor:
    """Return the same for few tokens (tokens, features): (tokens, groups * v)."""
    tokens = x.shape[0]
    row = torch.cat([x, x.new_zeros(tokens, 1)], 1)
    parts = []
    for chunk in chunks.parts:
        gathered = row.index_select(1, chunk.columns.flatten()).view(tokens, *chunk.columns.shape)
        parts.append(torch.bmm(gathered.transpose(0, 1), chunk.panels))
    return torch.cat(parts).transpose(0, 1).flatten(1)


def _places(rows: torch.Tensor, order: torch.Tensor, out_features: int) -> torch.Tensor:
    """Return the place of each row in a product whose groups stand in an order."""
    packed = rows.view(len(order), -1)[order].flatten().long()
    place = packed.new_empty(out_features + 1)
    place[packed] = torch.arange(len(packed), device=rows.device)
    return place[:-1]


def _finish(y: torch.Tensor, bias: torch.Tensor | None, activation: str) -> torch.Tensor:
    if bias is not None:
        y += bias.to(y.dtype)
    return FUNCTIONS[activation](y)
