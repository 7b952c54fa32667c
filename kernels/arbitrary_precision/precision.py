"""How many bits a layer has, and its text form ``w1a2``; imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kernels.arbitrary_precision.encodings import MAX_BITS, Encoding, unsigned, weight_encoding
from kernels.errors import NasError

_TEXT = re.compile(r"w(\d+)a(\d+)")


@dataclass(frozen=True, slots=True)
class Precision:
    """Bits of weights and of activations.

    Attributes:
        weight_bits: 1 to 8; one bit stands for -1 and +1, more for signed integers.
        activation_bits: 1 to 8, for integers from minus the zero point on.

    Raises:
        NasError: a number of bits is out of range.

    Example:
        >>> str(Precision.parse("w1a2"))
        'w1a2'
    """

    weight_bits: int
    activation_bits: int

    def __post_init__(self) -> None:
        for what, bits in (("weight", self.weight_bits), ("activation", self.activation_bits)):
            if not 1 <= bits <= MAX_BITS:
                raise NasError(f"Expected 1 to {MAX_BITS} {what} bits, got {bits}.")

    @classmethod
    def parse(cls, text: str) -> Precision:
        """Read ``w{p}a{q}``.

        Raises:
            NasError: the text is another, or the bits are out of range.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise NasError(f"Cannot read the precision {text!r}; write it as w1a2.")
        return cls(int(match[1]), int(match[2]))

    @property
    def weights(self) -> Encoding:
        """How weights are encoded."""
        return weight_encoding(self.weight_bits)

    def activations(self, zero: int = 0) -> Encoding:
        """How activations are encoded.

        Raises:
            NasError: no code stands for the real zero.
        """
        if not 0 <= zero < 1 << self.activation_bits:
            raise NasError(
                f"The zero point {zero} is none of the {1 << self.activation_bits} codes."
            )
        return unsigned(self.activation_bits, zero)

    def __str__(self) -> str:
        return f"w{self.weight_bits}a{self.activation_bits}"
