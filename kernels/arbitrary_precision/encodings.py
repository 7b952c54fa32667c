"""What codes of a few bits stand for, and products of numbers from products of their codes.

Source of the formulas: Feng et al., "APNN-TC", SC'21, arXiv 2106.12169. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from kernels.errors import NasError

MAX_BITS = 8
"""Most bits of a weight or an activation."""

INT32_LIMIT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Encoding:
    """Codes of ``bits`` bits; the number a code stands for is ``step * value(code) + start``.

    Attributes:
        bits: 1 to 8.
        step: difference of neighbouring numbers, before any real scale.
        start: number of the code 0.
        signed: whether the top bit counts negative (two's complement).

    Raises:
        NasError: the number of bits is out of range.
    """

    bits: int
    step: int = 1
    start: int = 0
    signed: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= MAX_BITS:
            raise NasError(f"Expected 1 to {MAX_BITS} bits, got {self.bits}.")

    @property
    def plane_values(self) -> tuple[int, ...]:
        """What the bit of each plane counts, the lowest first."""
        top = -1 if self.signed else 1
        return (*(1 << s for s in range(self.bits - 1)), top << (self.bits - 1))

    @property
    def lowest(self) -> int:
        """The smallest number."""
        value = -(1 << (self.bits - 1)) if self.signed else 0
        return min(self.step * value, self.step * self._highest_value) + self.start

    @property
    def highest(self) -> int:
        """The largest number."""
        value = -(1 << (self.bits - 1)) if self.signed else 0
        return max(self.step * value, self.step * self._highest_value) + self.start

    @property
    def _highest_value(self) -> int:
        return (1 << (self.bits - self.signed)) - 1


def unsigned(bits: int, zero: int = 0) -> Encoding:
    """Return codes that stand for 0, 1, 2, ... less a zero point: quantised activations."""
    return Encoding(bits, start=-zero)


def plus_minus_one() -> Encoding:
    """Return the one bit that stands for -1 and +1: binary weights."""
    return Encoding(1, step=2, start=-1)


def twos_complement(bits: int) -> Encoding:
    """Return signed integers: quantised weights of two bits and more."""
    return Encoding(bits, signed=True)


def bipolar(bits: int) -> Encoding:
    """Return odd integers, each bit of which is -1 or +1."""
    return Encoding(bits, step=2, start=-((1 << bits) - 1))


def weight_encoding(bits: int) -> Encoding:
    """Return how weights are encoded: -1 and +1 at one bit, signed integers from two on."""
    return plus_minus_one() if bits == 1 else twos_complement(bits)


@dataclass(frozen=True, slots=True)
class Combination:
    """A product of numbers from what kernels count.

    With Y = sum over planes of plane values times popcount(W_s AND X_t), and SW, SX the sums of
    the operands' code values over the true K, the product is
    ``y * Y + sum_w * SW + sum_x * SX + constant``.
    """

    y: int
    sum_w: int
    sum_x: int
    constant: int


def combination(w: Encoding, x: Encoding, k: int) -> Combination:
    """Return how a product over ``k`` elements follows from counts; zero padding adds nothing.

    Example:
        >>> combination(plus_minus_one(), plus_minus_one(), 8)
        Combination(y=4, sum_w=-2, sum_x=-2, constant=8)
    """
    return Combination(w.step * x.step, w.step * x.start, w.start * x.step, k * w.start * x.start)


def longest_sum(w: Encoding, x: Encoding) -> int:
    """Return how many products add up to what surely fits 32 bits, as codes and as integers."""
    largest = max(abs(w.lowest), abs(w.highest), (1 << w.bits) - 1)
    return INT32_LIMIT // (largest * max(abs(x.lowest), abs(x.highest), (1 << x.bits) - 1))


def check_sums(w: Encoding, x: Encoding, k: int) -> None:
    """Refuse a product of bit planes whose sums may not fit 32 bits.

    Raises:
        NasError: names the longest sum that fits.
    """
    if k > (longest := longest_sum(w, x)):
        raise NasError(
            f"Sums of {k} products of {w.bits} by {x.bits} bits may not fit 32 bits; "
            f"{longest} do. Split the sum."
        )
