"""The path of convolutions on Hopper: windows of bit planes straight from memory."""

from __future__ import annotations

import torch

from kernels.arbitrary_precision import launch, plan_direct
from kernels.arbitrary_precision.layout import padded
from kernels.arbitrary_precision.operands import Geometry, Weights
from kernels.arbitrary_precision.packed import LowBit
from kernels.arbitrary_precision.plan_direct import DirectTile
from kernels.arbitrary_precision.planes_path import (
    codes_of,
    multiprocessors,
    outside,
    real_type,
)
from kernels.errors import NasError


def conv2d(x: torch.Tensor | LowBit, weights: Weights, geometry: Geometry) -> torch.Tensor:
    """Return the layer's output (b, m, h, w), float16 or bfloat16, channels-last."""
    codes = codes_of(x, weights)
    count, size = _outputs(codes, geometry)
    out = codes.planes.new_empty(count, weights.outputs, dtype=real_type(x))
    _run(codes, weights, geometry, launch.Outputs(out), count, None)
    return out.view(codes.shape[0], *size, weights.outputs).permute(0, 3, 1, 2)


def conv2d_fused(
    x: LowBit,
    weights: Weights,
    geometry: Geometry,
    *,
    reads: Weights | None = None,
    real: bool = False,
    residual: torch.Tensor | None = None,
    relu: bool = True,
    tile: DirectTile | None = None,
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
        tile: None takes the plan's.

    Returns:
        the codes and the real map (float16, channels-last), each None if not asked for.

    Raises:
        NasError: codes or a residual do not fit the layer, neither codes nor the real map are asked
            for, or no tile has room for the bits.
    """
    m, (count, size) = weights.outputs, _outputs(x, geometry)
    shape = (x.shape[0], m, *size)
    if x.features != weights.features:
        raise NasError(f"Expected codes of {weights.features} channels, got {x.features}.")
    if reads is None and not real:
        raise NasError("A fused convolution has to write codes (`reads`) or numbers (`real`).")
    if residual is not None and (residual.shape != shape or residual.dtype != torch.float16):
        came = f"{residual.dtype} {tuple(residual.shape)}"
        raise NasError(f"Expected a residual of torch.float16 {shape}, got {came}.")
    out = codes = step = None
    if real:
        out = x.planes.new_empty(count, m, dtype=torch.float16)
    if reads is not None:
        bits, step = reads.precision.activation_bits, reads.step
        fill = torch.empty if m % 64 == 0 else torch.zeros
        codes = fill(count, bits, padded(m) // 8, dtype=torch.uint8, device=x.planes.device)
    flat = None if residual is None else residual.permute(0, 2, 3, 1).reshape(count, m)
    zero = 0 if reads is None else reads.zero
    outputs = launch.Outputs(out, codes, step, zero, flat, relu)
    _run(codes_of(x, weights), weights, geometry, outputs, count, tile)
    made = None
    if reads is not None and codes is not None:
        made = LowBit(codes, None, shape, m, reads.inputs, reads.step)
    return made, None if out is None else out.view(x.shape[0], *size, m).permute(0, 3, 1, 2)


def _outputs(codes: LowBit, geometry: Geometry) -> tuple[int, tuple[int, int]]:
    """Return pixels of the output in all, and its height and width."""
    b, _, height, width = codes.shape
    size = geometry.output_size((height, width))
    return b * size[0] * size[1], size


def _run(
    codes: LowBit,
    weights: Weights,
    geometry: Geometry,
    outputs: launch.Outputs,
    count: int,
    tile: DirectTile | None,
) -> None:
    if not count:
        return
    device, precision = codes.planes.device, weights.precision
    rows = launch.Rows(codes.planes, None, count, (codes.shape[2], codes.shape[3]))
    sms, window = multiprocessors(device), launch.window_of(rows, geometry)
    tile = tile or plan_direct.choose(precision, window, count, weights.outputs, sms)
    if tile is None:
        raise NasError(f"The direct convolution has no room for {precision} and this window.")
    launch.direct_launch(
        *(rows, weights, outputs, tile),
        geometry=geometry,
        outside=outside(weights, device),
        sms=sms,
    ).run()
