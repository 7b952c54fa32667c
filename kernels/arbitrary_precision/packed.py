"""Low-bit maps as kernels exchange them: planes beside the sums of codes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels.arbitrary_precision.encodings import Encoding
from kernels.arbitrary_precision.planes import code_values, pack_planes, unpack_planes

CHANNEL_MULTIPLE = 64
"""Planes of a row are padded to so many bits: units of 8 bytes, as kernels copy them."""


@dataclass(frozen=True, slots=True)
class LowBit:
    """Rows of codes: tokens, or the pixels of images in channels-last order.

    Attributes:
        planes: (rows, bits, bytes), uint8, contiguous, padded to 64 bits with zeros.
        sums: (rows,), int32, of a row's codes. None where nobody wrote them; see :meth:`counted`.
        shape: of the map: (..., k), or (b, c, h, w) for images.
        features: k, or c.
        encoding: what the codes stand for.
        step: () float32, what an integer is worth: the step of the layer that reads them.
    """

    planes: torch.Tensor
    sums: torch.Tensor | None
    shape: tuple[int, ...]
    features: int
    encoding: Encoding
    step: torch.Tensor

    def counted(self) -> torch.Tensor:
        """Return the sums, counted from the planes where nobody wrote them."""
        if self.sums is not None:
            return self.sums
        return unpack_planes(self.planes, self.features).sum(1, dtype=torch.int32)

    def integers(self) -> torch.Tensor:
        """Return the map's integers, of its shape, int64."""
        codes = unpack_planes(self.planes, self.features)
        values = code_values(codes, self.encoding) * self.encoding.step + self.encoding.start
        if len(self.shape) == 4:
            b, c, h, w = self.shape
            return values.view(b, h, w, c).permute(0, 3, 1, 2)
        return values.view(self.shape)

    def numbers(self) -> torch.Tensor:
        """Return the map's real numbers, of its shape, float32."""
        return self.integers().float() * self.step


def pack_rows(codes: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return codes (rows, k) as planes (rows, bits, bytes) and their sums (rows,)."""
    planes = pack_planes(codes, bits, multiple=CHANNEL_MULTIPLE)
    return planes, codes.sum(1, dtype=torch.int32)
