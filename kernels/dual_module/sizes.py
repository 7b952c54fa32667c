"""How large the little module is, and what is read and computed; imports no torch.

Source of the formulas: Liu et al., "Boosting deep neural network efficiency with dual-module
inference", ICML 2020.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from kernels.errors import NasError

DEFAULT_EPSILON = 0.5
"""Distortion of distances that a projection may have: sets its size."""


def projection_size(outputs: int, inputs: int, epsilon: float = DEFAULT_EPSILON) -> int:
    """Return k, the outputs of the random projection of a layer.

    The larger of the bound of Johnson and Lindenstrauss for ``outputs`` points, at most half the
    inputs, and 1.

    Args:
        outputs: rows of the layer; all four gates of an LSTM together.
        inputs: columns of the layer.
        epsilon: in (0, 1).

    Raises:
        NasError: a size or the distortion is out of range.

    Example:
        >>> [projection_size(6000, 10**6, epsilon) for epsilon in (0.3, 0.5, 0.7)]
        [966, 417, 266]
    """
    if outputs < 1 or inputs < 1:
        raise NasError(f"Expected at least one output and input, got {outputs} and {inputs}.")
    if not 0 < epsilon < 1:
        raise NasError(f"Expected a distortion between 0 and 1, got {epsilon}.")
    bound = 4 * math.log(outputs) / (epsilon**2 / 2 - epsilon**3 / 3)
    return max(1, min(math.floor(bound), inputs // 2))


@dataclass(frozen=True, slots=True)
class Cost:
    """What a layer reads and computes with a little module, for one input vector.

    Attributes:
        outputs: n, rows of the big weights.
        inputs: d, columns.
        projected: k, outputs of the projection.
        bits: of a little weight.
        ratio: share of rows that keep the estimate.
        element_bytes: of a big weight.
        signs: entries of the projection; None where it maps all d inputs to all k outputs.
        turns: how often it is applied for one input vector: for a convolution, which projects each
            pixel's channels once, pixels for one output pixel.
    """

    outputs: int
    inputs: int
    projected: int
    bits: int
    ratio: float
    element_bytes: int = 4
    signs: int | None = None
    turns: int = 1

    @property
    def big_bytes(self) -> float:
        """Big weights that are read."""
        return (1 - self.ratio) * self.outputs * self.inputs * self.element_bytes

    @property
    def little_bytes(self) -> float:
        """Little weights."""
        return self.outputs * self.projected * self.bits / 8

    @property
    def projection_bytes(self) -> float:
        """The projection's signs, two bits each."""
        return self._signs / 4

    @property
    def _signs(self) -> int:
        return self.projected * self.inputs if self.signs is None else self.signs

    @property
    def memory_ratio(self) -> float:
        """Bytes read over those of the dense layer, the projection left out as the paper does."""
        dense = self.outputs * self.inputs * self.element_bytes
        return (self.big_bytes + self.little_bytes) / dense

    @property
    def full_memory_ratio(self) -> float:
        """The same with the projection."""
        dense = self.outputs * self.inputs * self.element_bytes
        return (self.big_bytes + self.little_bytes + self.projection_bytes) / dense

    def operation_ratio(self, rule: str = "full") -> float:
        """Return operations over the dense layer's multiply-accumulates.

        Args:
            rule: what an operation of the little module counts: ``"free"`` nothing, ``"weighted"``
                its bits over 32 (additions of the projection nothing), ``"full"`` one each, a
                third of the projection's entries being additions.

        Raises:
            NasError: there is no such rule.
        """
        product = self.projected / self.inputs
        adds = self.turns * self._signs / (3 * self.outputs * self.inputs)
        extra = {"free": 0.0, "weighted": product * self.bits / 32, "full": product + adds}
        if rule not in extra:
            raise NasError(f"Unknown counting rule {rule!r}. Known: {', '.join(extra)}.")
        return 1 - self.ratio + extra[rule]
