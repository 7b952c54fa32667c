"""Packed weights as the Hopper kernel reads them: tiles that are images of shared memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels.shfl_bw.bundle import bundled
from kernels.shfl_bw.plan import DEPTH
from kernels.shfl_bw.window import Window

_UNIT = 8  # elements of 16 bytes


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """A packed weight in tiles of 64 kept columns.

    Attributes:
        panels: (tiles, v, 64): the vectors as columns, filled up to a multiple of 64 columns with
            zeros; the 16-byte units of row r are permuted by XOR r % 8.
        columns: (tiles * 64,), int32: the column of each, -1 where filled up.
        tiles: (groups + 1,), int32: where each group's tiles begin.
        order: (groups,), int32: groups, the longest first.
        rows: (groups * v,), int32: packed place to row, -1 for padding.
        v: rows of a group, 64 or 128; groups of fewer rows are bundled.
        vectors: kept columns of all groups together.
        lengths: tiles of each group, known to the host.
    """

    panels: torch.Tensor
    columns: torch.Tensor
    tiles: torch.Tensor
    order: torch.Tensor
    rows: torch.Tensor
    v: int
    vectors: int
    lengths: tuple[int, ...]

    @property
    def groups(self) -> int:
        """Number of groups."""
        return len(self.order)


def images_of(
    values: torch.Tensor, columns: torch.Tensor, offsets: torch.Tensor, rows: torch.Tensor
) -> Images:
    """Return packed tensors as images; see :class:`kernels.shfl_bw.packed.Packed`."""
    values, columns, offsets, rows = bundled(values, columns, offsets, rows)
    v = values.shape[1]
    counts = (offsets[1:] - offsets[:-1]).long()
    lengths = -(-counts // DEPTH)
    tiles = torch.cat([counts.new_zeros(1), lengths.cumsum(0)])
    total = int(tiles[-1])
    groups = torch.arange(len(counts), device=values.device)
    group = groups.repeat_interleave(counts, output_size=len(columns))
    place = tiles[group] * DEPTH + torch.arange(len(columns), device=values.device) - offsets[group]
    filled = columns.new_full((total * DEPTH,), -1)
    filled[place] = columns
    vectors = values.new_zeros(total * DEPTH, v)
    vectors[place] = values
    return Images(
        _swizzled(vectors.view(total, DEPTH, v).transpose(1, 2)),
        filled,
        tiles.to(torch.int32),
        counts.argsort(descending=True, stable=True).to(torch.int32),
        rows,
        v,
        len(columns),
        tuple(lengths.tolist()),
    )


def _swizzled(panels: torch.Tensor) -> torch.Tensor:
    """Permute the 16-byte units of each row of (tiles, rows, 64)."""
    tiles, height, _ = panels.shape
    units = panels.reshape(tiles, height, DEPTH // _UNIT, _UNIT)
    row = torch.arange(height, device=panels.device)[:, None] % _UNIT
    place = torch.arange(DEPTH // _UNIT, device=panels.device) ^ row
    return torch.take_along_dim(units, place[None, :, :, None], 2).flatten(2)


def taps_of(
    columns: torch.Tensor, window: Window, channels: int, height: int, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where each packed column of a convolution reads (c, h, w, b) images.

    Args:
        columns: (tiles * 64,), int32: (tap, channel) with the channel fastest, -1 where filled up.
        window: of the convolution.
        channels: of the images.
        height: of the images.
        width: of the images.

    Returns:
        Offsets in pixels, -1 where filled up, and shifts: vertical << 16 | horizontal.
    """
    real = columns >= 0
    tap = torch.div(columns, channels, rounding_mode="floor")
    down = torch.div(tap, window.kernel[1], rounding_mode="floor") * window.dilation[0]
    across = tap % window.kernel[1] * window.dilation[1]
    pixel = (columns % channels * height + down) * width + across
    return (
        torch.where(real, pixel, -1).to(torch.int32),
        torch.where(real, down << 16 | across, 0).to(torch.int32),
    )
