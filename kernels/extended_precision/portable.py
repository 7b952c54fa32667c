"""Launching the Triton kernels: the product on GPUs other than Hopper's, and the repair on all."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels.extended_precision.launch import NOTHING, Added, empty_result, result_shape
from kernels.extended_precision.plan import TINY, WIDE_SHARE
from kernels.extended_precision.split import SplitMatrix

_REPAIR_TILE = (64, 64, 16)
_REPAIR_BLOCKS = 4
"""A multiprocessor; all of them look at the rows' trouble, few have anything to compute."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One compiled Triton product.

    Attributes:
        rows: of the tile.
        columns: of the tile.
        warps: of a program.
        stages: of 32 columns of K in flight.
    """

    rows: int
    columns: int
    warps: int
    stages: int

    @property
    def shared_bytes(self) -> int:
        """Shared memory that the stages take at most."""
        return self.stages * (self.rows + self.columns) * 128


TILES = (Tile(128, 128, 8, 3), Tile(128, 64, 4, 4), Tile(64, 64, 4, 4))
"""The larger first. Three stages of 128 x 128 take 96 KiB, which every GPU since sm_80 has."""


def choose_tile(m: int, n: int, batch: int, *, sms: int) -> Tile:
    """Return the largest tile that gives every multiprocessor one, or the smallest."""
    for tile in TILES:
        if -(-m // tile.rows) * -(-n // tile.columns) * batch >= sms:
            return tile
    return TILES[-1]


def run_portable_gemm(
    a: SplitMatrix,
    b: SplitMatrix,
    added: Added = NOTHING,
    tile: Tile | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return alpha a b^T + beta added, (batch, m, n), float32.

    Rows in trouble are multiplied as they are: see ``run_repair``.

    Args:
        a: (batch or 1, m, k), not swizzled, without residual scale.
        b: (batch or 1, n, k), the same.
        added: what is added.
        tile: None takes the rule's.
        out: what to write and return, rows contiguous; None takes new memory.
    """
    from kernels.extended_precision import triton_kernels

    assert not a.swizzled
    assert a.residual_bits == 0
    batch, m, n = result_shape(a, b)
    out = empty_result(a, b) if out is None else out
    if out.numel() == 0:
        return out
    tile = tile or choose_tile(m, n, batch, sms=_multiprocessors(out.device))
    tiles = -(-m // tile.rows) * -(-n // tile.columns)
    triton_kernels.gemm[(tiles * batch,)](
        *_image(a, batch),
        *_image(b, batch),
        m,
        n,
        a.image.shape[1],
        out,
        out.stride(0),
        out.stride(1),
        *_added(added, out),
        ADDED=added.tensor is not None,
        BM=tile.rows,
        BN=tile.columns,
        GROUP=8,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return out


def run_repair(
    a: SplitMatrix, b: SplitMatrix, out: torch.Tensor, added: Added = NOTHING
) -> torch.Tensor:
    """Compute again, from float32, what halves cannot hold; the host is not asked.

    Tiles of which a row of either operand has inf or nan, or is too small to be scaled, are
    multiplied in float32, tiles with a row that is too wide in three products of tf32.

    Args:
        a: (batch or 1, m, k).
        b: (batch or 1, n, k).
        out: their product (batch, m, n), of which tiles are overwritten.
        added: what was added.
    """
    from kernels.extended_precision import triton_kernels

    batch, m, n = out.shape
    rows, columns, depth = _REPAIR_TILE
    tiles = -(-m // rows) * -(-n // columns) * batch
    if out.numel() == 0 or a.k == 0:
        return out
    blocks = min(tiles, _REPAIR_BLOCKS * _multiprocessors(out.device))
    triton_kernels.repair[(blocks,)](
        *_source(a, batch),
        *_source(b, batch),
        m,
        n,
        a.k,
        batch,
        a.k // WIDE_SHARE,
        out,
        out.stride(0),
        out.stride(1),
        *_added(added, out),
        ADDED=added.tensor is not None,
        BM=rows,
        BN=columns,
        BK=depth,
        PLAIN=TINY,
        num_warps=8,
        num_stages=2,
    )
    return out


def _image(x: SplitMatrix, batch: int) -> tuple[torch.Tensor | int, ...]:
    several = x.batch == batch
    lines = x.image.shape[1] * x.padded if several else 0
    return x.image, x.exponents, lines, x.padded if several else 0, x.padded


def _source(x: SplitMatrix, batch: int) -> tuple[torch.Tensor | int, ...]:
    several = x.batch == batch
    batch_stride, row_stride, k_stride = x.source.stride()
    return (
        x.source,
        batch_stride if several else 0,
        row_stride,
        k_stride,
        x.trouble,
        x.padded if several else 0,
    )


def _added(added: Added, out: torch.Tensor) -> tuple[torch.Tensor | int | float, ...]:
    batch, m, n = out.shape
    # A kernel without anything to add still has the parameter.
    tensor = out if added.tensor is None else added.tensor
    return tensor, *added.strides((batch, m, n)), added.alpha, added.beta


def _multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":  # Triton's interpreter
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count
