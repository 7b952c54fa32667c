"""What an implementation of a low-bit product is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from kernels.arbitrary_precision.encodings import Encoding
from kernels.arbitrary_precision.exact import output_size
from kernels.arbitrary_precision.layout import weight_codes
from kernels.arbitrary_precision.packed import LowBit
from kernels.arbitrary_precision.planes import from_codes
from kernels.arbitrary_precision.precision import Precision
from kernels.arbitrary_precision.quantise import integers
from kernels.errors import NasError

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Packed weights and what their products are worth.

    Attributes:
        planes: canonical planes (m, p, bytes), uint8.
        image: the same as kernels copy them; see ``layout``.
        factor: (m,) float32, what an integer product is worth.
        offset: (m,) float32, added to the real output.
        constants: (m,) int32, added to what planes count, which gives the integer product.
        shift: (m,) float32: the offset with the constants' worth in it.
        step: () float32, what an integer of the input is worth.
        precision: bits of both operands.
        zero: code of the input's real zero.
        features: k, or input channels.
        matrix: the integers (m, c, taps) in a floating type, where that is kept; else they are
            unpacked.
    """

    planes: torch.Tensor
    image: torch.Tensor
    factor: torch.Tensor
    offset: torch.Tensor
    constants: torch.Tensor
    shift: torch.Tensor
    step: torch.Tensor
    precision: Precision
    zero: int
    features: int
    matrix: Callable[[torch.dtype], torch.Tensor]

    @classmethod
    def of(cls, tensors: Sequence[torch.Tensor], numbers: Sequence[int]) -> Weights:
        """Make weights of :attr:`tensors` and :attr:`numbers`, as operators have them."""
        planes, image, factor, offset, constants, shift, step = tensors
        weight_bits, activation_bits, zero, features = numbers
        precision = Precision(weight_bits, activation_bits)

        def matrix(dtype: torch.dtype) -> torch.Tensor:
            return from_codes(weight_codes(planes, features), precision.weights).to(dtype)

        parts = (planes, image, factor, offset, constants, shift, step)
        return cls(*parts, precision, zero, features, matrix)

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Planes, image, factor, offset, constants, shift and step."""
        products = [self.factor, self.offset, self.constants, self.shift]
        return [self.planes, self.image, *products, self.step]

    @property
    def numbers(self) -> list[int]:
        """Weight bits, activation bits, zero point and features."""
        bits = self.precision
        return [bits.weight_bits, bits.activation_bits, self.zero, self.features]

    @property
    def outputs(self) -> int:
        """Rows of the weights."""
        return len(self.planes)

    @property
    def inputs(self) -> Encoding:
        """How activations are encoded."""
        return self.precision.activations(self.zero)


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a convolution's window moves."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair

    @classmethod
    def of(cls, places: Sequence[int]) -> Geometry:
        """Make a geometry of :attr:`places`."""
        pairs = [(places[i], places[i + 1]) for i in range(0, 8, 2)]
        return cls(*pairs)

    @property
    def places(self) -> list[int]:
        """Kernel, stride, padding and dilation, two numbers each."""
        return [*self.kernel, *self.stride, *self.padding, *self.dilation]

    def output_size(self, image: Pair) -> Pair:
        """Return height and width of the output of an image."""
        return output_size(image, self.kernel, self.stride, self.padding, self.dilation)

    @property
    def taps(self) -> int:
        """Elements of the window."""
        return self.kernel[0] * self.kernel[1]


def input_integers(x: torch.Tensor | LowBit, weights: Weights, dtype: torch.dtype) -> torch.Tensor:
    """Return the input's integers in a floating type.

    Raises:
        NasError: codes of another encoding than the layer's.
    """
    if not isinstance(x, LowBit):
        return integers(x, weights.step, weights.inputs).to(dtype)
    check_encoding(x, weights)
    return x.integers().to(dtype)


def check_encoding(x: LowBit, weights: Weights) -> None:
    """Refuse codes of another encoding than the layer's.

    Raises:
        NasError: says what was expected and what came.
    """
    if x.encoding != weights.inputs:
        raise NasError(f"Expected codes of {weights.inputs}, got codes of {x.encoding}.")


def real(product: torch.Tensor, weights: Weights, axis: int) -> torch.Tensor:
    """Return integer products as real outputs, float32 or the products' own floating type.

    Args:
        product: whole numbers with the outputs along ``axis``.
        weights: whose factor and offset are taken.
        axis: of the outputs.
    """
    shape = [1] * product.dim()
    shape[axis] = -1
    return product * weights.factor.view(shape) + weights.offset.view(shape)
