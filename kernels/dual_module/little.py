"""The little module: an estimate of a layer's pre-activations from a projection of its input."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from kernels.dual_module.fit import LeastSquares, quantise
from kernels.dual_module.projection import pack_signs, ternary, unpack_signs
from kernels.dual_module.sizes import DEFAULT_EPSILON, projection_size

DEFAULT_BITS = 4
"""Of a little weight; the paper measured no loss against 8."""

INPUT_BITS = 8
"""Of an input, and of its projection."""


class Projection(nn.Module):
    """Signs that map d numbers to k and keep lengths: u = root(3 / k) P x.

    Numbers are first rounded to 8 bits with a scale for each vector: sums are whole numbers.

    Buffer ``signs`` (k, bytes), two bits a sign; see ``projection.pack_signs``.

    Args:
        inputs: d.
        outputs: k.
        seed: of the signs.
    """

    signs: torch.Tensor

    def __init__(self, inputs: int, outputs: int, seed: int) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.register_buffer("signs", pack_signs(ternary(outputs, inputs, seed)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x (..., d) to (..., k), float32, or float64 where x is."""
        work = x if x.dtype == torch.float64 else x.float()
        whole, scale = quantise(work, INPUT_BITS, per_row=True)
        signs = unpack_signs(self.signs, self.inputs).to(work.dtype)
        u: torch.Tensor = whole.to(work.dtype) @ signs.T * (scale * (3 / self.outputs) ** 0.5)
        return u

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{self.inputs} -> {self.outputs}"


class Estimator(nn.Module):
    """Weights of a few bits that map projected inputs, in parts, to estimates of n outputs.

    Each part is rounded to 8 bits with a scale of its own; the products are whole numbers.

    Buffers: ``codes`` (n, k of all parts) int8, ``scale`` (n,) float32, ``bias`` (n,) float32.

    Args:
        parts: k of each part.
        outputs: n.
        bits: of a weight, 2 to 8.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor

    def __init__(self, parts: Sequence[int], outputs: int, bits: int = DEFAULT_BITS) -> None:
        super().__init__()
        self.parts, self.bits = list(parts), bits
        self.register_buffer("codes", torch.zeros(outputs, sum(parts), dtype=torch.int8))
        self.register_buffer("scale", torch.ones(outputs))
        self.register_buffer("bias", torch.zeros(outputs))

    def forward(self, *parts: torch.Tensor) -> torch.Tensor:
        """Estimate (..., n), float32, from one tensor (..., k) for each part."""
        sums = torch.zeros((), device=self.codes.device)
        for u, codes in zip(parts, torch.split(self.codes, self.parts, 1), strict=True):
            whole, scale = quantise(u, INPUT_BITS, per_row=True)
            # Sums of k products of at most 127 * 127 are exact in float32 up to k = 1040.
            sums = sums + (whole.float() @ codes.float().T) * scale
        return sums * self.scale + self.bias

    def equations(self) -> LeastSquares:
        """Return empty least squares of this estimator's sizes."""
        return LeastSquares(self.codes.shape[1], len(self.codes), self.codes.device)

    def fit(self, equations: LeastSquares) -> None:
        """Take the weights that solve least squares, rounded to this estimator's bits."""
        weights, bias = equations.solve()
        codes, scale = quantise(weights, self.bits, per_row=True)
        self.codes.copy_(codes)
        self.scale.copy_(scale.squeeze(1))
        self.bias.copy_(bias)

    def extra_repr(self) -> str:
        """Return sizes and bits."""
        return f"{self.parts} -> {len(self.codes)}, {self.bits} bits"


class LittleModule(nn.Module):
    """Projections and an estimator; a layer's input may come in parts, as x and h of an LSTM.

    Args:
        parts: size of each part of the input.
        outputs: n.
        epsilon: distortion that sets k; see ``projection_size``.
        bits: of a little weight.
        seed: of the signs.
        projected: k of each part; None takes what ``epsilon`` gives.
    """

    def __init__(
        self,
        parts: Sequence[int],
        outputs: int,
        *,
        epsilon: float = DEFAULT_EPSILON,
        bits: int = DEFAULT_BITS,
        seed: int = 0,
        projected: int | None = None,
    ) -> None:
        super().__init__()
        sizes = [
            projection_size(outputs, size, epsilon) if projected is None else projected
            for size in parts
        ]
        self.projections = nn.ModuleList(
            Projection(size, k, seed + i)
            for i, (size, k) in enumerate(zip(parts, sizes, strict=True))
        )
        self.estimator = Estimator(sizes, outputs, bits)

    def forward(self, *parts: torch.Tensor) -> torch.Tensor:
        """Estimate (..., n), float32, from one tensor (..., size) for each part."""
        found: torch.Tensor = self.estimator(*self.project(*parts))
        return found

    def project(self, *parts: torch.Tensor) -> list[torch.Tensor]:
        """Return each part's projection."""
        return [p(x) for p, x in zip(self.projections, parts, strict=True)]

    @property
    def sizes(self) -> list[int]:
        """K of each part."""
        return self.estimator.parts

    @property
    def signs(self) -> list[torch.Tensor]:
        """Packed signs of each part."""
        return [projection.get_buffer("signs") for projection in self.projections]
