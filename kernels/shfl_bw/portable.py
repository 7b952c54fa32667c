"""Products with packed weights by a gather kernel in Triton: sm_80 and later, any token count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from kernels.remembered import PerTensor
from kernels.shfl_bw.activation import ACTIVATIONS
from kernels.shfl_bw.images import taps_of
from kernels.shfl_bw.window import Window

_ORDERS = PerTensor[torch.Tensor]()


@dataclass(frozen=True, slots=True)
class Tile:
    """How the kernel is compiled.

    Attributes:
        tokens: columns of an output tile.
        depth: kept columns of a step.
        warps: of a program.
        stages: steps whose copies are under way.
    """

    tokens: int = 128
    depth: int = 32
    warps: int = 4
    stages: int = 3


def tile_for(v: int, tokens: int) -> Tile:
    """Return the tile for V rows and a number of tokens: 64 x 64 sums a warp at most."""
    width = 64 if tokens <= 64 else 128 if v >= 128 or tokens <= 1024 else 256
    warps = max(4, min(8, v * width // 2048))
    return Tile(width, 64 if v <= 64 else 32, warps, 3)


def tiles_of(v: int) -> tuple[Tile, ...]:
    """Return every tile worth timing for V."""
    return tuple(
        Tile(tokens, depth, warps, stages)
        for tokens in (64, 128, 256)
        for depth in (32, 64)
        for warps in (4, 8)
        for stages in (3, 4)
        if 1024 <= v * tokens // warps <= 4096 and (v + tokens) * depth * 2 * stages <= 160 << 10
    )


def shfl_bw_portable(
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
    tile: Tile | None = None,
) -> torch.Tensor:
    """See :func:`kernels.shfl_bw.reference.shfl_bw_reference`."""
    features = x if feature_major else x.T.contiguous()
    tokens = features.shape[1]
    y = torch.empty(out_features, tokens, dtype=x.dtype, device=x.device)
    if tokens:
        chosen = tile or tile_for(values.shape[1], tokens)
        packed = (values, columns, offsets, rows)
        _launch(features, packed, None, bias, y, chosen, activation, (tokens, 1, 1, 1, 1, 1, 0, 0))
    return y if feature_major else y.T.contiguous()


def shfl_bw_conv2d_portable(
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
    tile: Tile | None = None,
) -> torch.Tensor:
    """See :func:`kernels.shfl_bw.reference.shfl_bw_conv2d_reference`."""
    images = x if feature_major else x.permute(1, 2, 3, 0).contiguous()
    channels, height, width, batch = images.shape
    down, across = window.output(height, width)
    y = torch.empty(out_features, down, across, batch, dtype=x.dtype, device=x.device)
    if y.numel():
        chosen = tile or tile_for(values.shape[1], down * across * batch)
        places, shifts = taps_of(columns, window, channels, height, width)
        image = (batch, height, width, across, *window.stride, *window.padding)
        _launch(images, (values, places, offsets, rows), shifts, bias, y, chosen, activation, image)
    return y if feature_major else y.permute(3, 0, 1, 2).contiguous()


def _launch(
    x: torch.Tensor,
    packed: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
    shifts: torch.Tensor | None,
    bias: torch.Tensor | None,
    y: torch.Tensor,
    tile: Tile,
    activation: str,
    image: tuple[int, ...],
) -> None:
    from kernels.shfl_bw.triton_kernels import gather_product

    values, columns, offsets, rows = packed
    tokens = y[0].numel()
    groups = len(offsets) - 1
    order = _ORDERS.get(values, None, lambda: _longest_first(offsets))
    kernel: Any = gather_product
    kernel[(groups * -(-tokens // tile.tokens),)](
        x,
        values,
        columns,
        columns if shifts is None else shifts,
        offsets,
        order,
        rows,
        y if bias is None else bias.float(),
        y,
        tokens,
        *image,
        V=values.shape[1],
        TOKENS=tile.tokens,
        DEPTH=tile.depth,
        KIND=ACTIVATIONS.index(activation),
        BIASED=bias is not None,
        CONV=shifts is not None,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )


def _longest_first(offsets: torch.Tensor) -> torch.Tensor:
    counts = offsets[1:] - offsets[:-1]
    return counts.argsort(descending=True, stable=True).to(torch.int32)
