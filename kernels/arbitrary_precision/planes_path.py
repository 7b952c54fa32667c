"""The paths through 1-bit tensor cores: products of bit planes by the CUDA kernels."""

from __future__ import annotations

from functools import lru_cache, partial

import torch

from kernels.arbitrary_precision import launch, plan
from kernels.arbitrary_precision.layout import padded
from kernels.arbitrary_precision.operands import Geometry, Weights, check_encoding
from kernels.arbitrary_precision.packed import LowBit
from kernels.arbitrary_precision.plan import Tile
from kernels.arbitrary_precision.planes import pack_planes
from kernels.errors import NasError

_READ = (torch.float32, torch.float16, torch.bfloat16)
_ALIGNMENT = 16  # bytes that are read at once


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
    sums = flat.new_empty(len(flat), dtype=torch.int32)
    if len(flat):
        launch.pack_launch(flat, weights.step, bits, weights.zero, planes, sums).run()
    shape = tuple(x.shape)
    return LowBit(planes, sums, shape, weights.features, weights.inputs, weights.step)


def linear(x: torch.Tensor | LowBit, weights: Weights, *, path: plan.Path) -> torch.Tensor:
    """Return the layer's output (..., m), float16 or bfloat16."""
    codes = codes_of(x, weights)
    rows = launch.Rows(codes.planes, codes.counted(), len(codes.planes))
    out = codes.planes.new_empty(len(codes.planes), weights.outputs, dtype=real_type(x))
    if len(out):
        tile = _tile(rows, weights, path, 1)
        sms = multiprocessors(out.device)
        launch.product_launch(rows, weights, out, tile, sms=sms).run()
    return out.view(*codes.shape[:-1], weights.outputs)


def conv2d(
    x: torch.Tensor | LowBit, weights: Weights, geometry: Geometry, *, path: plan.Path
) -> torch.Tensor:
    """Return the layer's output (b, m, h, w), float16 or bfloat16, channels-last."""
    codes = codes_of(x, weights)
    b, _, height, width = codes.shape
    size = geometry.output_size((height, width))
    count = b * size[0] * size[1]
    out = codes.planes.new_empty(count, weights.outputs, dtype=real_type(x))
    if count:
        rows = launch.Rows(codes.planes, codes.counted(), count, (height, width))
        launch.product_launch(
            *(rows, weights, out, _tile(rows, weights, path, geometry.taps)),
            geometry=geometry,
            outside=outside(weights, out.device),
            sms=multiprocessors(out.device),
        ).run()
    return out.view(b, *size, weights.outputs).permute(0, 3, 1, 2)


linear_wgmma = partial(linear, path="wgmma")
linear_mma = partial(linear, path="mma")
conv2d_wgmma = partial(conv2d, path="wgmma")
conv2d_mma = partial(conv2d, path="mma")


def codes_of(x: torch.Tensor | LowBit, weights: Weights) -> LowBit:
    """Return the codes that a layer reads.

    Raises:
        NasError: codes of another encoding than the layer's.
    """
    if not isinstance(x, LowBit):
        return pack(x, weights)
    check_encoding(x, weights)
    return x


def real_type(x: torch.Tensor | LowBit) -> torch.dtype:
    """Return the type of a layer's real outputs: bfloat16 for such an input, else float16."""
    return torch.bfloat16 if getattr(x, "dtype", None) == torch.bfloat16 else torch.float16


def _tile(rows: launch.Rows, weights: Weights, path: plan.Path, taps: int) -> Tile:
    device, precision = rows.planes.device, weights.precision
    tile = plan.choose(
        precision,
        rows.count,
        weights.outputs,
        -(-rows.planes.shape[2] * taps * 8 // plan.TILE_BITS),
        sms=multiprocessors(device),
        capability=torch.cuda.get_device_capability(device),
        path=path,
    )
    if tile is None:
        raise NasError(f"No tile of {path} runs {precision} on {device}.")
    return tile


def outside(weights: Weights, device: torch.device) -> torch.Tensor:
    """Return planes of the code of the real zero, which stands for what lies outside images."""
    return _outside(weights.features, weights.precision.activation_bits, weights.zero, device)


@lru_cache(maxsize=256)
def _outside(features: int, bits: int, zero: int, device: torch.device) -> torch.Tensor:
    return pack_planes(torch.full((1, features), zero), bits, multiple=64)[0].to(device)


@lru_cache
def multiprocessors(device: torch.device) -> int:
    """Return how many a device has."""
    return torch.cuda.get_device_properties(device).multi_processor_count
