# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
"""The gather kernel in Triton; imported only where it is launched, as Triton need not be there."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def activate(v, KIND: tl.constexpr):
    """Apply the activation of a number in ``ACTIVATIONS``; NaN stays NaN."""
    if KIND == 1:
        v = tl.where(v < 0, 0.0, v)
    elif KIND == 2:
        v = tl.where(v < 0, 0.0, tl.where(v > 6, 6.0, v))
    elif KIND == 3:
        v = v / (1 + tl.exp(-v))
    elif KIND == 4:
        v = v * tl.where(v < -3, 0.0, tl.where(v > 3, 6.0, v + 3)) / 6
    elif KIND == 5:
        v = 0.5 * v * (1 + tl.erf(v * 0.7071067811865476))
    return v


@triton.jit
def gather_product(
    x, values, columns, shifts, offsets, order, rows, bias, y, tokens, pitch, height, width,
    out_width, stride_down, stride_across, pad_top, pad_left, V: tl.constexpr,
    TOKENS: tl.constexpr, DEPTH: tl.constexpr, KIND: tl.constexpr, BIASED: tl.constexpr,
    CONV: tl.constexpr,
):  # fmt: skip
    """One group times TOKENS columns of x, DEPTH kept columns at a time.

    x is (in, tokens), or images (c, h, w, b), of which columns are then offsets of pixels and
    shifts vertical << 16 | horizontal; order holds the groups, the longest first.
    """
    tiles = tl.cdiv(tokens, TOKENS)
    program = tl.program_id(0)
    group = tl.load(order + program // tiles)
    token = program % tiles * TOKENS + tl.arange(0, TOKENS)
    inside = token < tokens
    member = tl.arange(0, V)
    begin, end = tl.load(offsets + group), tl.load(offsets + group + 1)
    start = token.to(tl.int64)
    top = token
    left = token
    if CONV:
        pixel = token // pitch
        top = pixel // out_width * stride_down - pad_top
        left = pixel % out_width * stride_across - pad_left
        start = (top * width + left).to(tl.int64) * pitch + token % pitch
    sums = tl.zeros((V, TOKENS), tl.float32)
    for first in range(begin, end, DEPTH):
        vector = first + tl.arange(0, DEPTH)
        real = vector < end
        column = tl.load(columns + vector, mask=real, other=0).to(tl.int64)
        panel = tl.load(
            values + vector.to(tl.int64)[:, None] * V + member[None, :],
            mask=real[:, None],
            other=0.0,
        )
        read = real[:, None] & inside[None, :]
        if CONV:
            shift = tl.load(shifts + vector, mask=real, other=0)
            row = top[None, :] + (shift >> 16)[:, None]
            across = left[None, :] + (shift & 0xFFFF)[:, None]
            read = read & (row >= 0) & (row < height) & (across >= 0) & (across < width)
        gathered = tl.load(x + column[:, None] * pitch + start[None, :], mask=read, other=0.0)
        sums = tl.dot(tl.trans(panel), gathered, sums)
    row = tl.load(rows + group * V + member)
    if BIASED:
        sums += tl.load(bias + row, mask=row >= 0, other=0.0)[:, None]
    to = y + row.to(tl.int64)[:, None] * tokens + token[None, :]
    result = activate(sums, KIND).to(y.dtype.element_ty)
    tl.store(to, result, mask=(row >= 0)[:, None] & inside[None, :])
