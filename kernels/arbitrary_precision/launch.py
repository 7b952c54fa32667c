"""The CUDA kernels' launches: arguments and constants from tensors, and their compiled text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from kernels.arbitrary_precision.encodings import combination
from kernels.arbitrary_precision.operands import Geometry, Weights
from kernels.arbitrary_precision.plan import TILE_BITS, Tile
from kernels.arbitrary_precision.plan_direct import PIXELS, THREADS, DirectTile, Window
from kernels.arbitrary_precision.wgmma import multiply_bits, multiply_window
from kernels.jit import CompiledKernel, Kernel, compile_cuda, load, read_source

SOURCES = Path(__file__).parent / "cuda"
"""Where the CUDA sources are."""

Argument = torch.Tensor | np.generic | None

_WHOLE, _REAL, _CODES = 1, 2, 4  # bits of OUT
_SMALL_SUMS = 1 << 22


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel's launch.

    Attributes:
        file: the source in ``cuda/``.
        function: the kernel.
        defines: its compile-time constants.
        grid: blocks.
        block: threads.
        shared_bytes: dynamic shared memory of a block.
        arguments: in the kernel's order.
        overlap: whether blocks may start before the kernel in front has ended.
    """

    file: str
    function: str
    defines: Mapping[str, int]
    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared_bytes: int
    arguments: Sequence[Argument]
    overlap: bool = False

    def run(self) -> None:
        """Launch on the current stream of the tensors' device."""
        device = next(item.device for item in self.arguments if isinstance(item, torch.Tensor))
        capability = torch.cuda.get_device_capability(device)
        kernel = _kernel(self.file, self.function, tuple(sorted(self.defines.items())), capability)
        settings = {"shared_bytes": self.shared_bytes, "overlap": self.overlap}
        kernel(self.grid, self.block, self.arguments, **settings)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Activations as kernels read them; see ``LowBit`` for planes and sums.

    Attributes:
        planes: (stored, q, bytes).
        sums: (stored,); None for kernels that count themselves.
        count: rows of the product: tokens, or output pixels.
        image: height and width of images, None for tokens.
    """

    planes: torch.Tensor
    sums: torch.Tensor | None
    count: int
    image: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """What a direct convolution writes: numbers, the codes that the next layer reads, or both.

    Attributes:
        out: (count, m): int32, float16 or bfloat16; None for codes alone.
        codes: (count, q', bytes), zeroed where m is no multiple of 64.
        step: () float32, what an integer of the codes is worth.
        zero: code of the real zero.
        residual: (count, m), added before ReLU; of the type of ``out``.
        relu: whether negative numbers become zero.
    """

    out: torch.Tensor | None = None
    codes: torch.Tensor | None = None
    step: torch.Tensor | None = None
    zero: int = 0
    residual: torch.Tensor | None = None
    relu: bool = False


def pack_launch(
    x: torch.Tensor,
    step: torch.Tensor,
    bits: int,
    zero: int,
    planes: torch.Tensor,
    sums: torch.Tensor,
) -> Launch:
    """Return the launch that rounds rows to codes.

    Args:
        x: (rows, k), contiguous: float32, float16 or bfloat16.
        step: () float32.
        bits: of the codes.
        zero: code of the real zero.
        planes: (rows, bits, bytes) to write.
        sums: (rows,) to write.
    """
    rows, k = x.shape
    lanes = 32
    while lanes > 8 and planes.shape[2] <= lanes // 2:
        lanes //= 2
    defines = {"Q": bits, "LANES": lanes, "INPUT": x.element_size(), **_type_of(x.dtype)}
    arguments: list[Argument] = [x, step, planes, sums, np.int64(rows)]
    arguments += [np.int32(k), np.int32(planes.shape[2]), np.int32(zero)]
    blocks = -(-rows * lanes // 256)
    return Launch("pack.cu", "low_bit_pack", defines, (blocks,), (256,), 0, arguments)


def product_launch(
    rows: Rows,
    weights: Weights,
    out: torch.Tensor,
    tile: Tile,
    *,
    geometry: Geometry | None = None,
    outside: torch.Tensor | None = None,
    sms: int = 132,
) -> Launch:
    """Return the launch of a product.

    Args:
        rows: activations.
        weights: packed; m is a multiple of 8.
        out: (count, m) to write: int32, float16 or bfloat16.
        tile: of the plan.
        geometry: of a convolution.
        outside: planes (q, bytes) of the code of zero, which lies outside images.
        sms: multiprocessors, for kernels whose blocks stay.
    """
    plane_bytes = rows.planes.shape[2]
    taps = 1 if geometry is None else geometry.taps
    across = -(-weights.outputs // tile.features)
    tiles = -(-rows.count // (tile.tokens * tile.cluster)) * across  # of a whole cluster
    walk = (tiles, across, -(-plane_bytes * taps * 8 // TILE_BITS))
    defines = {
        **tile.defines(weights.precision),
        **_finish_defines(weights, out, taps),
        "IMAGES": int(geometry is not None),
        "UNIT": 16 if plane_bytes % 16 == 0 else 8,
    }
    file = "product_sm90.cu" if tile.path == "wgmma" else "product_sm80.cu"
    resident = sms // tile.cluster
    blocks = tile.cluster * (min(tiles, resident) if tile.path == "wgmma" else tiles)
    arguments = _arguments(rows, weights, out, geometry, outside, walk)
    shared = tile.shared_bytes(weights.precision)
    block = (tile.threads,)
    return Launch(file, "low_bit_product", defines, (blocks,), block, shared, arguments)


def direct_launch(
    rows: Rows,
    weights: Weights,
    outputs: Outputs,
    tile: DirectTile,
    *,
    geometry: Geometry,
    outside: torch.Tensor,
    sms: int = 132,
) -> Launch:
    """Return the launch of a direct convolution, which may start before the one in front has ended.

    Args:
        rows: pixels.
        weights: packed; m is a multiple of 8.
        outputs: what to write.
        tile: of the plan.
        geometry: of the window.
        outside: planes (q, bytes) of the code of zero, which lies outside images.
        sms: multiprocessors.
    """
    window = window_of(rows, geometry)
    across = -(-weights.outputs // tile.features)
    tiles = -(-rows.count // PIXELS)
    down = min(tiles, max(1, sms * tile.blocks // across))
    kind = _finish_defines(weights, outputs.out, geometry.taps)
    codes, residual = outputs.codes, outputs.residual
    defines = {
        **tile.defines(weights.precision, window),
        **kind,
        "OUT": kind["OUT"] + (0 if codes is None else _CODES),
        "Q_OUT": 1 if codes is None else codes.shape[1],
        "IMAGES": 1,
        "RESIDUAL": int(residual is not None),
        "RELU": int(outputs.relu),
    }
    walk = (tiles, across, weights.image.shape[0])
    arguments = (
        *_arguments(rows, weights, outputs.out, geometry, outside, walk),
        *(residual, codes, outputs.step),
        *map(np.int32, (0 if codes is None else codes.shape[2], outputs.zero)),
    )
    shared = tile.shared_bytes(weights.precision, window)
    grid, file, function = (down * across,), "direct_sm90.cu", "low_bit_direct"
    return Launch(file, function, defines, grid, (THREADS,), shared, arguments, overlap=True)


def window_of(rows: Rows, geometry: Geometry) -> Window:
    """Return what the direct convolution's plan must know."""
    return Window(geometry.taps, geometry.kernel[1], rows.planes.shape[2])


def _arguments(
    rows: Rows,
    weights: Weights,
    out: torch.Tensor | None,
    geometry: Geometry | None,
    outside: torch.Tensor | None,
    walk: tuple[int, int, int],
) -> Sequence[Argument]:
    """Return the arguments of all products; ``walk`` has tiles, those across, and along k."""
    plane_bytes, taps = rows.planes.shape[2], 1 if geometry is None else geometry.taps
    c = combination(weights.precision.weights, weights.inputs, weights.features * taps)
    numbers = (
        *(rows.count, plane_bytes, plane_bytes * taps, weights.zero * weights.features),
        *(weights.image.shape[2], weights.outputs, c.y, c.sum_x),
        *walk,
        *_image_numbers(rows, geometry),
    )
    return (
        *(rows.planes, outside, rows.sums, weights.image, weights.factor, weights.shift),
        *(weights.constants, out),
        *map(np.int32, numbers),
    )


def _finish_defines(weights: Weights, out: torch.Tensor | None, taps: int) -> dict[str, int]:
    kind = 0 if out is None else _WHOLE if out.dtype == torch.int32 else _REAL
    defines = {"OUT": kind, **_type_of(torch.float16 if out is None else out.dtype)}
    encoding = weights.precision.weights
    largest = max(abs(encoding.lowest), encoding.highest) * (
        (1 << weights.precision.activation_bits) - 1
    )
    if weights.features * taps * 2 * largest < _SMALL_SUMS:
        defines["SMALL_SUMS"] = 1
    return defines


def _image_numbers(rows: Rows, g: Geometry | None) -> tuple[int, ...]:
    if g is None or rows.image is None:
        return (1,) * 12
    size = g.output_size(rows.image)
    return (*rows.image, *size, g.kernel[1], g.taps, *g.stride, *g.padding, *g.dilation)


def _type_of(dtype: torch.dtype) -> dict[str, int]:
    return {"BFLOAT": 1} if dtype == torch.bfloat16 else {}


@lru_cache(maxsize=512)
def _kernel(
    file: str, function: str, defines: tuple[tuple[str, int], ...], capability: tuple[int, int]
) -> Kernel:
    major, minor = capability
    arch = f"sm_{major}{minor}" + ("a" if capability == (9, 0) else "")
    return load(compiled(file, dict(defines), arch), function)


def compiled(file: str, defines: Mapping[str, int], arch: str) -> CompiledKernel:
    """Return a source compiled for an architecture; needs no GPU."""
    source = read_source(SOURCES / file)
    if "HOPPER" in defines:
        columns = defines["P"] * defines["FEATURES"]
        direct = file == "direct_sm90.cu"
        source += multiply_window(columns + defines["ONES"]) if direct else multiply_bits(columns)
    options = [*(f"-D{name}={value}" for name, value in sorted(defines.items())), "-std=c++17"]
    name = f"low_bit_{file.removesuffix('.cu')}"
    return compile_cuda(source, name=name, arch=arch, options=options)
