"""Products of signed bytes by Triton: one launch rounds, the next multiplies and scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from kernels.arbitrary_precision.encodings import Encoding
from kernels.arbitrary_precision.operands import Geometry, Weights
from kernels.remembered import PerTensor

_UNIT = 16  # bytes of a copy, of which a pixel's channels are a multiple
_MULTIPROCESSORS = 132
_HELD = PerTensor[tuple[torch.Tensor, torch.Tensor]]()


@dataclass(frozen=True, slots=True)
class Tile:
    """How the product is compiled.

    Attributes:
        pixels: rows of an output tile; tokens in a linear layer.
        outputs: its columns.
        depth: channels of a step.
        warps: of a program.
        stages: steps whose copies are under way.
    """

    pixels: int
    outputs: int
    depth: int
    warps: int
    stages: int


def tile_for(pixels: int, outputs: int, *, window: bool = False) -> Tile:
    """Return the tile for so many pixels and outputs, as 15 sweeps on an H200 have it."""
    if pixels <= 32:
        return Tile(16, 32, 256, 4, 4)
    if pixels <= 128 or (window and pixels * outputs <= 1 << 18):
        return Tile(64, 32, 256, 4, 4)
    if window:
        if outputs <= 64:
            return Tile(128, 64, 128, 4, 4)
        return Tile(64, 128, 128, 4, 4) if outputs <= 128 else Tile(64, 256, 128, 4, 3)
    fills = -(-pixels // 128) * -(-outputs // 128) >= _MULTIPROCESSORS
    return Tile(128, 128, 64, 4, 4) if fills else Tile(64, 64, 128, 4, 4)


def linear(x: torch.Tensor, weights: Weights, *, tile: Tile | None = None) -> torch.Tensor:
    """Return the layer's output (..., m), of the input's type."""
    rows = x.reshape(-1, weights.features).contiguous()
    found = _product(rows[:, :, None, None], weights, None, tile)
    return found.view(*x.shape[:-1], weights.outputs)


def conv2d(
    x: torch.Tensor, weights: Weights, geometry: Geometry, *, tile: Tile | None = None
) -> torch.Tensor:
    """Return the layer's output (b, m, h, w), of the input's type, channels last."""
    dense = x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
    return _product(x if dense else x.contiguous(), weights, geometry, tile)


def _centre(inputs: Encoding) -> int:
    """Return what to subtract from an input's integers so that they fit signed bytes."""
    fits = inputs.lowest >= -128 and inputs.highest <= 127
    return 0 if fits else inputs.lowest + 128


def _rounded(x: torch.Tensor, weights: Weights, depth: int) -> torch.Tensor:
    """Return images (b, c, h, w) as bytes (b, h, w, depth)."""
    from kernels.arbitrary_precision.triton_kernels import round_to_bytes

    batch, channels, height, width = x.shape
    bytes_ = torch.empty(batch, height, width, depth, dtype=torch.int8, device=x.device)
    pixels, inputs = batch * height * width, weights.inputs
    tile = (64, 64) if height * width > 1 and x.stride(1) != 1 else (8, 256)
    if pixels:
        kernel: Any = round_to_bytes
        grid = (-(-pixels // tile[0]), -(-depth // tile[1]))
        sizes = (pixels, height * width, channels, depth)
        pitches = (x.stride(0), x.stride(1), x.stride(3) if height * width > 1 else 1)
        ends = (float(inputs.lowest), float(inputs.highest), float(_centre(inputs)))
        kernel[grid](x, weights.step, bytes_, *sizes, *pitches, *ends, *tile)
    return bytes_


def _held(weights: Weights, depth: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weights as bytes (m, taps, depth), and the sum of each row, (m,) int32."""

    def make() -> tuple[torch.Tensor, torch.Tensor]:
        rows = weights.matrix(torch.int8).transpose(1, 2)
        sums = rows.sum((1, 2), dtype=torch.int32)
        return F.pad(rows, (0, depth - weights.features)).contiguous(), sums

    return _HELD.get(weights.planes, depth, make)


def _product(
    x: torch.Tensor, weights: Weights, geometry: Geometry | None, tile: Tile | None
) -> torch.Tensor:
    """Return outputs (b, m, h, w), channels last, of images (b, c, h, w)."""
    from kernels.arbitrary_precision.triton_kernels import byte_product

    batch, _, height, width = x.shape
    g = geometry or Geometry((1, 1), (1, 1), (0, 0), (1, 1))
    down, across = g.output_size((height, width))
    pixels, outputs = batch * down * across, weights.outputs
    depth = weights.features + -weights.features % _UNIT
    held, sums = _held(weights, depth)
    y = torch.empty(batch, down, across, outputs, dtype=x.dtype, device=x.device)
    if y.numel():
        windowed = (height, width) != (down, across) or g.taps > 1
        t = tile or tile_for(pixels, outputs, window=windowed)
        centre = _centre(weights.inputs)
        grid = (-(-pixels // t.pixels) * -(-outputs // t.outputs),)
        window = (height, width, down, across, g.kernel[1], *g.stride, *g.padding, *g.dilation)
        step = min(t.depth, max(32, 1 << (depth - 1).bit_length()))
        kernel: Any = byte_product
        kernel[grid](
            _rounded(x, weights, depth),
            held,
            sums,
            weights.factor,
            weights.offset,
            y,
            pixels,
            outputs,
            depth,
            g.taps,
            centre,
            -centre,
            *window,
            PIXELS=t.pixels,
            OUTPUTS=t.outputs,
            DEPTH=step,
            EVEN=depth % step == 0,
            WINDOW=windowed,
            num_warps=t.warps,
            num_stages=t.stages,
        )
    return y.permute(0, 3, 1, 2)
