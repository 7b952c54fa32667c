"""The window table: which input channels each output channel reads, in exact arithmetic.

One table serves forward, backward and every kernel. The definition is DSXplore's (arXiv
2101.00745); its released code rounds in three different ways, here the rule has a name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Literal, get_args

from kernels.errors import NasError, UnknownNameError

Rule = Literal["floor", "shift"]
"""``floor`` rounds each start down by itself; ``shift`` rounds the shift, once, to at least 1."""

Order = Literal["cyclic", "block"]
"""``cyclic`` gives neighbours the next window; ``block`` gives runs of neighbours one window."""


def window_starts(
    in_channels: int,
    out_channels: int,
    cg: int,
    co: float | str | Fraction,
    rule: Rule = "floor",
    order: Order = "cyclic",
) -> tuple[int, ...]:
    """Return the first input channel of each output channel's window.

    Output channel ``o`` reads the ``gw = in_channels / cg`` channels from ``starts[o]`` on, modulo
    ``in_channels``. With a shift of ``(1 - co) * gw`` channels:

    - cyclic, floor: ``floor(o * (1 - co) * gw)``, DSXplore's CUDA rule.
    - cyclic, shift: ``o * max(1, floor((1 - co) * gw))``.
    - block: ``n`` windows in steps of ``gw - floor(co * gw)``, listed until one repeats; each
      serves ``out_channels / n`` neighbours. The step is fixed, so ``rule`` changes nothing.

    Args:
        in_channels: input channels.
        out_channels: output channels.
        cg: number of channel groups; divides ``in_channels``.
        co: overlap of neighbouring windows, ``0 <= co < 1``, taken as the decimal it prints as.
        rule: how a shift that is no whole number is rounded.
        order: how windows are dealt to output channels.

    Returns:
        ``out_channels`` numbers in ``[0, in_channels)``.

    Raises:
        NasError: an argument is out of its range, or the block order does not come out even.

    Example:
        >>> window_starts(4, 7, cg=2, co=0.5)
        (0, 1, 2, 3, 0, 1, 2)
    """
    windows = period(in_channels, cg, co, rule, order)
    if out_channels < 1:
        raise NasError(f"out_channels must be at least 1, not {out_channels}.")
    if order == "block" and out_channels % windows:
        raise NasError(
            f"The block order deals {windows} windows (in_channels={in_channels}, cg={cg}, "
            f"co={co}) to equal blocks, so out_channels must be a multiple of {windows}, not "
            f"{out_channels}. Use such a number or the cyclic order."
        )
    return tuple(exact_starts(in_channels, out_channels, cg, co, rule, order))


def exact_starts(
    in_channels: int,
    out_channels: int,
    cg: int,
    co: float | str | Fraction,
    rule: str = "floor",
    order: str = "cyclic",
) -> list[int]:
    """First input channel of the window that each output channel reads."""
    width = in_channels // cg
    shift = (1 - Fraction(str(co))) * width
    if order == "block":
        step = math.ceil(shift)
        windows = in_channels // math.gcd(in_channels, step)
        block = out_channels // windows
        return [o // block * step % in_channels for o in range(out_channels)]
    if rule == "shift":
        shift = Fraction(max(1, math.floor(shift)))
    return [math.floor(o * shift) % in_channels for o in range(out_channels)]


def period(
    in_channels: int,
    cg: int,
    co: float | str | Fraction,
    rule: Rule = "floor",
    order: Order = "cyclic",
) -> int:
    """Return after how many windows the list of windows begins again.

    In cyclic order this is the smallest ``p`` with ``start(o + p) == start(o)`` for every ``o``;
    in block order the number of windows that are dealt. With a whole shift ``s`` it is
    ``in_channels / gcd(in_channels, s)``. Under the floor rule a list may hold a window more than
    once before it begins again.

    Raises:
        NasError: an argument is out of its range; see :func:`window_starts`.

    Example:
        >>> period(64, cg=2, co=0.5), period(64, cg=2, co=0.33)
        (4, 200)
    """
    overlap = _checked_overlap(in_channels, cg, co, rule, order)
    shift = (1 - overlap) * (in_channels // cg)
    if order == "block":
        shift = Fraction(math.ceil(shift))
    elif rule == "shift":
        shift = Fraction(max(1, math.floor(shift)))
    if in_channels == 1:
        return 1
    turn = shift.denominator * in_channels
    return turn // math.gcd(turn, shift.numerator)


def distinct_windows(starts: Iterable[int]) -> tuple[int, ...]:
    """Return each start once, in rising order."""
    return tuple(sorted(set(starts)))


def _checked_overlap(
    in_channels: int, cg: int, co: float | str | Fraction, rule: str, order: str
) -> Fraction:
    """Check all arguments but the output channels; return ``co`` exactly."""
    if in_channels < 1:
        raise NasError(f"in_channels must be at least 1, not {in_channels}.")
    if cg < 1 or in_channels % cg:
        raise NasError(
            f"cg must be a divisor of in_channels={in_channels}, not {cg}: each window has "
            "in_channels / cg channels."
        )
    if rule not in get_args(Rule):
        raise UnknownNameError("window rule", rule, get_args(Rule))
    if order not in get_args(Order):
        raise UnknownNameError("window order", order, get_args(Order))
    try:
        overlap = Fraction(str(co))
    except (ValueError, ZeroDivisionError):
        overlap = Fraction(-1)
    if not 0 <= overlap < 1:
        raise NasError(f"co must be a number with 0 <= co < 1, not {co!r}.")
    return overlap
