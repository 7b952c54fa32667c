"""A bit-exact model of how tensor cores add, and of the whole product as the kernels compute it.

A tensor core multiplies exactly. It then aligns a group of products and the accumulator to the
largest exponent among them, cuts each to so many fraction bits, adds, and cuts the sum to a
float32. Everything is cut toward zero, which biases long sums; the kernels keep them short.

The model of Hopper agrees with an H100 in all of ``PROBES``; the rest is from Khattak and Mikaitis,
"Accurate Models of NVIDIA Tensor Cores". Exponents of products are those of their factors added,
without normalising the product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy
import numpy.typing as npt

from kernels.errors import NasError
from kernels.extended_precision.plan import SCALE_EXPONENTS, SCALED_TOP, GemmPlan

Float32 = npt.NDArray[numpy.float32]
Float64 = npt.NDArray[numpy.float64]
Int64 = npt.NDArray[numpy.int64]

_NOTHING = -(1 << 20)
_FLOAT_BITS = 24
_LEAST_HALF = -14  # subnormal halves have the exponent of the least normal one


@dataclass(frozen=True, slots=True)
class TensorCore:
    """How one generation adds products of halves.

    Attributes:
        products: that are added at once.
        fraction_bits: kept of an addend, below the exponent of the largest.
    """

    products: int
    fraction_bits: int

    def accumulate(self, a: Float64, b: Float64, total: Float64) -> Float64:
        """Return total + a b as the hardware has it, in float64.

        Args:
            a: (m, k), values of float16.
            b: (k, n), values of float16.
            total: (m, n), values of float32.

        Non-finite inputs give what IEEE arithmetic gives.
        """
        exponents_a, exponents_b = (numpy.maximum(_exponents(x), _LEAST_HALF) for x in (a, b))
        for first in range(0, a.shape[1], self.products):
            group = slice(first, first + self.products)
            products = a[:, group].T[:, :, None] * b[group][:, None, :]
            exponents = exponents_a[:, group].T[:, :, None] + exponents_b[group][:, None, :]
            total = self._add(products, exponents, total)
        return total

    def _add(self, products: Float64, exponents: Int64, total: Float64) -> Float64:
        straight = products.sum(0) + total
        exponents = numpy.where(products == 0, _NOTHING, exponents)
        largest = numpy.maximum(exponents.max(0), _exponents(total))
        unit = numpy.ldexp(1.0, numpy.maximum(largest, -1000) - self.fraction_bits)
        kept = numpy.trunc(products / unit).sum(0) + numpy.trunc(total / unit)
        cut = numpy.ldexp(1.0, numpy.maximum(_exponents(kept), 0) - (_FLOAT_BITS - 1))
        added = numpy.trunc(kept / cut) * cut * unit
        total_after: Float64 = numpy.where(numpy.isfinite(straight), added, straight)
        return total_after


HOPPER = TensorCore(products=16, fraction_bits=25)
AMPERE = TensorCore(products=8, fraction_bits=24)
VOLTA = TensorCore(products=4, fraction_bits=23)


def _exponents(values: Float64) -> Int64:
    """Return floor(log2 |value|), and very little for zero."""
    finite = numpy.where(numpy.isfinite(values), values, 0.0)
    exponents: Int64 = numpy.frexp(finite)[1].astype(numpy.int64) - 1
    return numpy.where(finite == 0, _NOTHING, exponents)


def split(x: Float64, residual_bits: int = 0, *, truncate: bool = False) -> tuple[Float64, Float64]:
    """Return the upper half of each value and what it leaves, grown by ``2**residual_bits``.

    Args:
        x: finite values of float32.
        residual_bits: of the lower half's scale.
        truncate: cut instead of rounding to nearest, as Markidis et al. do.
    """
    upper = _to_half(x, truncate)
    return upper, _to_half((x - upper) * 2.0**residual_bits, truncate)


def _to_half(x: Float64, truncate: bool) -> Float64:
    with numpy.errstate(over="ignore"):
        half = x.astype(numpy.float16)
    if truncate:
        too_far = numpy.abs(half.astype(numpy.float64)) > numpy.abs(x)
        half = numpy.where(too_far, numpy.nextafter(half, numpy.float16(0)), half)
    return half.astype(numpy.float64)


def multiply(
    a: Float32,
    b: Float32,
    plan: GemmPlan,
    core: TensorCore = HOPPER,
    *,
    scale: bool = True,
    truncate: bool = False,
) -> Float32:
    """Return a b, bit by bit as the kernel of a plan computes it on such tensor cores.

    Args:
        a: (m, k), finite.
        b: (k, n), finite.
        plan: schedule, products, promotion and residual scale; tiles do not matter.
        core: the tensor cores.
        scale: rows of a and columns of b by powers of two, as the split kernel does.
        truncate: the halves instead of rounding them.
    """
    if a.shape[1] != b.shape[0]:
        raise NasError(f"Expected (m, k) and (k, n), got {a.shape} and {b.shape}.")
    wide_a, wide_b = a.astype(numpy.float64), b.astype(numpy.float64)
    down, across = (_scales(wide_a, 1), _scales(wide_b, 0)) if scale else (0, 0)
    left = split(numpy.ldexp(wide_a, down), plan.residual_bits, truncate=truncate)
    right = split(numpy.ldexp(wide_b, across), plan.residual_bits, truncate=truncate)
    total = _SCHEDULES[plan.schedule](left, right, plan, core)
    product: Float32 = numpy.ldexp(total, -(down + across)).astype(numpy.float32)
    return product


Halves = tuple[Float64, Float64]


def _scales(x: Float64, axis: int) -> Int64:
    exponents = _exponents(numpy.abs(x).max(axis, keepdims=True))
    scales: Int64 = numpy.clip(SCALED_TOP - exponents, *SCALE_EXPONENTS)
    return numpy.where(exponents == _NOTHING, 0, scales)


def _corrections(
    left: Halves, right: Halves, at: slice, plan: GemmPlan, core: TensorCore, total: Float64
) -> Float64:
    """Add the small products, in the kernel's order."""
    orders = [(1, 0), (0, 1)] if plan.products == 3 else [(1, 1), (1, 0), (0, 1)]
    for i, j in orders:
        total = core.accumulate(left[i][:, at], right[j][at], total)
    return total


def _steps(depth: int) -> list[slice]:
    return [slice(first, first + 32) for first in range(0, depth, 32)]


def _zeros(left: Halves, right: Halves) -> Float64:
    return numpy.zeros((left[0].shape[0], right[0].shape[1]))


def _rounded(x: Float64) -> Float64:
    return x.astype(numpy.float32).astype(numpy.float64)


def _shared(left: Halves, right: Halves, plan: GemmPlan, core: TensorCore) -> Float64:
    total, part = _zeros(left, right), _zeros(left, right)
    steps = _steps(left[0].shape[1])
    for number, at in enumerate(steps):
        part = _corrections(left, right, at, plan, core, part)
        part = core.accumulate(left[0][:, at], right[0][at], part)
        whole = plan.promote != 0 and (number + 1) % (plan.promote // 32) == 0
        if whole or number == len(steps) - 1:
            total, part = _rounded(total + part), _zeros(left, right)
    return total


def _separate(left: Halves, right: Halves, plan: GemmPlan, core: TensorCore) -> Float64:
    total, corrections = _zeros(left, right), _zeros(left, right)
    for at in _steps(left[0].shape[1]):
        part = core.accumulate(left[0][:, at], right[0][at], _zeros(left, right))
        corrections = _corrections(left, right, at, plan, core, corrections)
        total = _rounded(total + part)
    return _rounded(total + corrections * 2.0**-plan.residual_bits)


_SCHEDULES = {"shared": _shared, "separate": _separate}


@dataclass(frozen=True, slots=True)
class Probe:
    """One k16 product whose result tells models apart.

    Attributes:
        what: the question it answers.
        accumulator: what is added to.
        a: 16 values of float16.
        b: 16 values of float16.
    """

    what: str
    accumulator: float
    a: tuple[float, ...]
    b: tuple[float, ...]

    def expected(self, core: TensorCore = HOPPER) -> float:
        """Return what the model gives."""
        row = numpy.array(self.a)[None]
        column = numpy.array(self.b)[:, None]
        total = numpy.array([[self.accumulator]])
        return float(core.accumulate(row, column, total)[0, 0])


def _powers(exponent: int, sign: float = 1.0) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return factors of 16 products of ``sign * 2**exponent``."""
    half = exponent // 2
    return (sign * 2.0**half,) * 16, (2.0 ** (exponent - half),) * 16


def _probes() -> tuple[Probe, ...]:
    found = [
        Probe(f"1 plus 16 of {sign:+.0f} * 2^{-e}", 1.0, *_powers(-e, sign))
        for e in (22, 23, 24, 25, 26, 27)
        for sign in (1.0, -1.0)
    ]
    small = (2.0**-13,) * 15, (2.0**-12,) * 15
    found.append(
        Probe("are products normalised before they are aligned?", 0.0, (1.5, *small[0]),
              (1.5, *small[1]))
    )  # fmt: skip
    tiny = (2.0**-24, *(0.0,) * 15)
    found.append(Probe("are subnormal halves kept?", 0.0, tiny, (1.0, *(0.0,) * 15)))
    subnormal = (2.0**-15 + 2.0**-24, *(2.0**-20,) * 15)
    factors = (1.0, *(2.0**-20,) * 15)
    found.append(Probe("which exponent has a subnormal half?", 0.0, subnormal, factors))
    return tuple(found)


PROBES = _probes()
"""To be run on a GPU before anything else: they confirm or refute the model."""
