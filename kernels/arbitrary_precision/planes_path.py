"""The paths through 1-bit tensor cores: products of bit planes by the CUDA kernels."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial
from typing import Literal

import torch

from kernels.arbitrary_precision import launch, plan, plan_direct
from kernels.arbitrary_precision.layout import padded
from kernels.arbitrary_precision.operands import Geometry, Weights, check_encoding
from kernels.arbitrary_precision.packed import LowBit
from kernels.arbitrary_precision.plan import Tile
from kernels.arbitrary_precision.plan_direct import DirectTile
from kernels.arbitrary_precision.planes import pack_planes
from kernels.arbitrary_precision.precision import Precision
from kernels.errors import NasError

_READ = (torch.float32, torch.float16, torch.bfloat16)
_ALIGNMENT = 16  # bytes that are read at once
ConvPath = plan.Path | Literal["direct"]
_KINDS = {(True, True): "both", (True, False): "real", (False, True): "codes"}


def pack(x: torch.Tensor, weights: Weights) -> LowBit:
    """Round activations on a GPU to the codes that a layer reads.

    Args:
        x: (..., k), or images (b, c, h, w), which are read channels-last.
        weights: of the layer.
    """
    images = x.dim() == 4 and x.shape[1] == weights.features
    rows = x.permute(0, 2, 3, 1) if images else x
    rows = rows.to(rows.dtype if rows.dtype in _READ else torch.float32)
    flat = rows.reshape(-1, weights.features).contiguous()
    flat = flat.clone() if flat.data_ptr() % _ALIGNMENT else flat
    bits = weights.precision.activation_bits
    planes = flat.new_empty(len(flat), bits, padded(weights.features) // 8, dtype=torch.uint8)
    sums = flat.new_empty(1, len(flat), dtype=torch.int32)
    if len(flat):
        launch.pack_launch(flat, weights.step, bits, weights.zero, planes, sums).run()
    shape = tuple(x.shape)
    return LowBit(planes, sums, shape, weights.features, weights.inputs, weights.step)


def linear(x: torch.Tensor | LowBit, weights: Weights, *, path: plan.Path) -> torch.Tensor:
    """Return the layer's output (..., m), float16 or bfloat16."""
    codes = _codes(x, weights)
    rows = launch.Rows(codes.planes, codes.counted(), len(codes.planes))
    out = _real(x, codes, len(codes.planes), weights.outputs)
    if len(out):
        _launch(rows, weights, launch.Outputs("real", out), None, _tile(rows, weights, path, None))
    return out.view(*codes.shape[:-1], weights.outputs)


def conv2d(
    x: torch.Tensor | LowBit, weights: Weights, geometry: Geometry, *, path: ConvPath
) -> torch.Tensor:
    """Return the layer's output (b, m, h, w), float16 or bfloat16, channels-last."""
    codes = _codes(x, weights)
    b, _, height, width = codes.shape
    size = geometry.output_size((height, width))
    out = _real(x, codes, b * size[0] * size[1], weights.outputs)
    if len(out):
        rows = _pixels(codes, len(out), path)
        _launch(
            rows,
            weights,
            launch.Outputs("real", out),
            geometry,
            _tile(rows, weights, path, geometry),
        )
    return out.view(b, *size, weights.outputs).permute(0, 3, 1, 2)


linear_wgmma = partial(linear, path="wgmma")
linear_mma = partial(linear, path="mma")
conv2d_wgmma = partial(conv2d, path="wgmma")
conv2d_mma = partial(conv2d, path="mma")
conv2d_direct = partial(conv2d, path="direct")


def conv2d_fused(
    x: LowBit,
    weights: Weights,
    geometry: Geometry,
    *,
    reads: Weights | None = None,
    real: bool = False,
    residual: torch.Tensor | None = None,
    relu: bool = True,
    path: ConvPath = "wgmma",
    tile: Tile | DirectTile | None = None,
    overlap: bool = False,
) -> tuple[LowBit | None, torch.Tensor | None]:
    """Convolve codes, add a residual, apply ReLU, and round to the codes that the next layer reads.

    Args:
        x: codes of images.
        weights: of the layer; batch norm is folded into its factor and shift.
        geometry: of the layer.
        reads: the next layer, whose codes to make; None: none.
        real: whether to write the real map too.
        residual: (b, m, h, w), float16 channels-last.
        relu: whether negative numbers become zero.
        path: instructions.
        tile: of the path; None takes the plan's.
        overlap: whether the launch may start before the kernel in front has ended (``"direct"``).

    Returns:
        the codes and the real map (float16, channels-last), each None if not asked for.
    """
    b, _, height, width = x.shape
    size = geometry.output_size((height, width))
    count, m = b * size[0] * size[1], weights.outputs
    rows = _pixels(x, count, path)
    tile = tile or _tile(rows, weights, path, geometry, residual=residual is not None)
    out = codes = sums = None
    if real:
        out = x.planes.new_empty(count, m, dtype=torch.float16)
    flat = None if residual is None else residual.permute(0, 2, 3, 1).reshape(count, m)
    outputs = launch.Outputs(_KINDS[real, reads is not None], out, residual=flat, relu=relu)
    if reads is not None:
        bits = reads.precision.activation_bits
        fill = torch.empty if m % 64 == 0 else torch.zeros
        codes = fill(count, bits, padded(m) // 8, dtype=torch.uint8, device=x.planes.device)
        if isinstance(tile, Tile):
            sums = x.planes.new_empty(launch.sum_parts(m, tile), count, dtype=torch.int32)
        outputs = replace(
            outputs,
            codes=codes,
            code_sums=sums,
            code_bits=bits,
            code_step=reads.step,
            code_zero=reads.zero,
        )
    _launch(rows, weights, outputs, geometry, tile, overlap=overlap)
    made = None
    if reads is not None and codes is not None:
        made = LowBit(codes, sums, (b, m, *size), m, reads.inputs, reads.step)
    whole = None if out is None else out.view(b, *size, m).permute(0, 3, 1, 2)
    return made, whole


def _codes(x: torch.Tensor | LowBit, weights: Weights) -> LowBit:
    if not isinstance(x, LowBit):
        return pack(x, weights)
    check_encoding(x, weights)
    return x


def _real(x: torch.Tensor | LowBit, codes: LowBit, count: int, outputs: int) -> torch.Tensor:
    half = torch.bfloat16 if getattr(x, "dtype", None) == torch.bfloat16 else torch.float16
    return codes.planes.new_empty(count, outputs, dtype=half)


def _pixels(codes: LowBit, count: int, path: ConvPath) -> launch.Rows:
    sums = None if path == "direct" else codes.counted()
    return launch.Rows(codes.planes, sums, count, (codes.shape[2], codes.shape[3]))


def _launch(
    rows: launch.Rows,
    weights: Weights,
    outputs: launch.Outputs,
    geometry: Geometry | None,
    tile: Tile | DirectTile,
    *,
    overlap: bool = False,
) -> None:
    device = rows.planes.device
    sms, bits, zero = _sms(device), weights.precision.activation_bits, weights.zero
    if geometry is None:
        assert isinstance(tile, Tile)
        launch.product_launch(rows, weights, outputs, tile, sms=sms).run()
        return
    outside = _outside(weights.features, bits, zero, device)
    if isinstance(tile, DirectTile):
        launch.direct_launch(
            *(rows, weights, outputs, tile),
            geometry=geometry,
            outside=outside,
            sms=sms,
            overlap=overlap,
        ).run()
        return
    launch.product_launch(
        rows, weights, outputs, tile, geometry=geometry, outside=outside, sms=sms
    ).run()


def _tile(
    rows: launch.Rows,
    weights: Weights,
    path: ConvPath,
    geometry: Geometry | None,
    *,
    residual: bool = False,
) -> Tile | DirectTile:
    device, precision = rows.planes.device, weights.precision
    tile: Tile | DirectTile | None
    if path == "direct":
        assert geometry is not None
        window = launch.window_of(rows, geometry, residual=residual)
        tile = plan_direct.choose(precision, window, rows.count, weights.outputs, _sms(device))
    else:
        taps = 1 if geometry is None else geometry.taps
        depth = -(-rows.planes.shape[2] * taps * 8 // plan.TILE_BITS)
        tile = _chosen(precision, rows.count, weights.outputs, depth, device, path)
    if tile is None:
        raise NasError(f"No tile of {path} runs {precision} on {device}.")
    return tile


@lru_cache(maxsize=4096)
def _chosen(
    precision: Precision,
    count: int,
    outputs: int,
    depth: int,
    device: torch.device,
    path: plan.Path,
) -> Tile | None:
    capability = torch.cuda.get_device_capability(device)
    sms = _sms(device)
    return plan.choose(precision, count, outputs, depth, sms=sms, capability=capability, path=path)


@lru_cache(maxsize=256)
def _outside(features: int, bits: int, zero: int, device: torch.device) -> torch.Tensor:
    """Return planes of the code of the real zero, which stands for what lies outside images."""
    return pack_planes(torch.full((1, features), zero), bits, multiple=64)[0].to(device)


@lru_cache
def _sms(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count
