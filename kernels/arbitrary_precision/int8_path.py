"""The path through 8-bit tensor cores: codes as signed bytes, one product, no bit planes."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from kernels.arbitrary_precision.encodings import Encoding, longest_sum
from kernels.arbitrary_precision.operands import Geometry, Weights, input_integers, real
from kernels.arbitrary_precision.packed import LowBit

_SMALLEST_ROWS = 17  # torch._int_mm takes more than 16 rows on a GPU
_MULTIPLE = 8


def linear(x: torch.Tensor | LowBit, weights: Weights) -> torch.Tensor:
    """Return the layer's output (..., m), float32."""
    values = input_integers(x, weights, torch.float32)
    rows = values.reshape(-1, weights.features)
    matrix = weights.matrix(torch.int8).squeeze(2)
    product = _product(rows, matrix, weights.inputs, weights.precision.weights)
    return real(product, weights, -1).float().view(*values.shape[:-1], -1)


def conv2d(x: torch.Tensor | LowBit, weights: Weights, geometry: Geometry) -> torch.Tensor:
    """Return the layer's output (b, m, h, w), float32, by patches."""
    values = input_integers(x, weights, torch.float16)
    g = geometry
    patches = F.unfold(values, g.kernel, g.dilation, g.padding, g.stride).transpose(1, 2)
    matrix = weights.matrix(torch.int8).flatten(1)
    rows = patches.reshape(-1, matrix.shape[1])
    product = _product(rows, matrix, weights.inputs, weights.precision.weights)
    size = g.output_size((values.shape[2], values.shape[3]))
    found = real(product, weights, -1).float()
    return found.view(len(values), *size, -1).permute(0, 3, 1, 2)


def _centre(inputs: Encoding) -> int:
    """Return what to subtract from an input's integers so that they fit signed bytes."""
    fits = inputs.lowest >= -128 and inputs.highest <= 127
    return 0 if fits else inputs.lowest + 128


def _product(rows: torch.Tensor, matrix: torch.Tensor, x: Encoding, w: Encoding) -> torch.Tensor:
    """Return whole numbers rows (n, k) times matrix (m, k): int32, or float64 where k is split."""
    longest, centre = longest_sum(w, x), _centre(x)
    pairs = zip(torch.split(rows, longest, 1), torch.split(matrix, longest, 1), strict=True)
    parts = [_part(some, part, centre=centre) for some, part in pairs]
    return parts[0] if len(parts) == 1 else torch.stack(parts).double().sum(0)


def _part(rows: torch.Tensor, matrix: torch.Tensor, *, centre: int) -> torch.Tensor:
    """Return whole numbers rows (n, k) times matrix (m, k), int32; bytes hold rows less centre."""
    n, m = len(rows), len(matrix)
    if centre:
        rows = rows - centre
    k = matrix.shape[1]
    grown = F.pad(rows, (0, -k % _MULTIPLE, 0, max(_SMALLEST_ROWS, n + -n % _MULTIPLE) - n))
    other = F.pad(matrix, (0, -k % _MULTIPLE, 0, -m % _MULTIPLE))
    product: torch.Tensor = torch._int_mm(grown.to(torch.int8), other.t())
    product = product[:n, :m]
    if centre:
        product = product + centre * matrix.sum(1, dtype=torch.int32)
    return product
