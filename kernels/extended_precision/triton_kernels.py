# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
"""Triton kernels: the product for other GPUs than Hopper's, and the repair of difficult rows.

Imported only where they are launched, as Triton need not be installed.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _halves(image, rows, valid, LOWER: tl.constexpr):
    """Load the upper or lower halves (rows, 32) of one step of an image that is not swizzled."""
    k = tl.arange(0, 32) + 32 * LOWER
    offsets = rows[:, None].to(tl.int64) * 64 + k[None, :]
    return tl.load(image + offsets, mask=valid[:, None], other=0.0)


@triton.jit
def _power_of_two(exponents):
    return ((exponents + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def _finish(
    total, out, added, i, j, m, n, row_stride, added_row_stride, added_column_stride, alpha, beta,
    ADDED: tl.constexpr,
):  # fmt: skip
    """Store alpha * total + beta * added."""
    inside = (i < m)[:, None] & (j < n)[None, :]
    total = total * alpha
    if ADDED:
        at = i[:, None].to(tl.int64) * added_row_stride + j[None, :] * added_column_stride
        total += beta * tl.load(added + at, mask=inside, other=0.0)
    at = i[:, None].to(tl.int64) * row_stride + j[None, :]
    tl.store(out + at, total, mask=inside)


@triton.jit
def gemm(
    a_image, a_exponents, a_batch_lines, a_batch_rows, a_rows,
    b_image, b_exponents, b_batch_lines, b_batch_rows, b_rows,
    m, n, steps, out, out_batch_stride, row_stride,
    added, added_batch_stride, added_row_stride, added_column_stride, alpha, beta,
    ADDED: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Multiply two images that are not swizzled, see ``split.pack_image``; one program a tile."""
    across = tl.cdiv(n, BN)
    tiles = tl.cdiv(m, BM) * across
    batch = (tl.program_id(0) // tiles).to(tl.int64)
    item = tl.program_id(0) % tiles
    band = item // (GROUP * across) * GROUP
    height = tl.minimum(GROUP, tl.cdiv(m, BM) - band)
    offset = item - band * across
    i = (band + offset % height) * BM + tl.arange(0, BM)
    j = offset // height * BN + tl.arange(0, BN)
    a = a_image + batch * a_batch_lines * 64
    b = b_image + batch * b_batch_lines * 64
    total = tl.zeros((BM, BN), tl.float32)
    for _ in range(steps):
        upper_a = _halves(a, i, i < a_rows, False)
        lower_a = _halves(a, i, i < a_rows, True)
        upper_b = _halves(b, j, j < b_rows, False).T
        lower_b = _halves(b, j, j < b_rows, True).T
        a += a_rows * 64
        b += b_rows * 64
        # The small products first; the sum of 32 columns is then added in ordinary arithmetic.
        part = tl.dot(lower_a, upper_b)
        part = tl.dot(upper_a, lower_b, part)
        part = tl.dot(upper_a, upper_b, part)
        total += part
    down = tl.load(a_exponents + batch * a_batch_rows + i, mask=i < m, other=0)
    right = tl.load(b_exponents + batch * b_batch_rows + j, mask=j < n, other=0)
    exponents = -(down[:, None] + right[None, :])
    half = exponents >> 1
    total = total * _power_of_two(half) * _power_of_two(exponents - half)
    _finish(
        total, out + batch * out_batch_stride, added + batch * added_batch_stride, i, j, m, n,
        row_stride, added_row_stride, added_column_stride, alpha, beta, ADDED,
    )  # fmt: skip


@triton.jit
def _to_tf32(x):
    """Round to 10 fraction bits; inf and nan never come here."""
    bits = x.to(tl.int32, bitcast=True)
    return ((bits + 0x1000) & -0x2000).to(tl.float32, bitcast=True)


@triton.jit
def _worst(trouble, rows, count):
    return tl.max(tl.load(trouble + rows, mask=rows < count, other=0))


@triton.jit
def _worst_of(trouble, first, end):
    """The largest of a range, some at a time."""
    worst = tl.zeros((), tl.int32)
    for start in range(first, end, 1024):
        at = start + tl.arange(0, 1024)
        worst = tl.maximum(worst, tl.max(tl.load(trouble + at, mask=at < end, other=0)))
    return worst


@triton.jit
def _worst_of_tiles(a_trouble, a_batch_rows, b_trouble, b_batch_rows, m, n, across, tiles, first,
                    last, BM: tl.constexpr):  # fmt: skip
    """The largest trouble of all rows that the tiles from first to last meet, and some more."""
    matrix, last_matrix = first // tiles, last // tiles
    several = last_matrix > matrix
    above = tl.where(several, 0, first % tiles // across * BM)
    below = tl.where(several, m, tl.minimum(m, last % tiles // across * BM + BM))
    return tl.maximum(
        _worst_of(a_trouble, matrix * a_batch_rows + above, last_matrix * a_batch_rows + below),
        _worst_of(b_trouble, matrix * b_batch_rows, last_matrix * b_batch_rows + n),
    )


@triton.jit
def repair(
    a, a_batch_stride, a_row_stride, a_k_stride, a_trouble, a_batch_rows,
    b, b_batch_stride, b_row_stride, b_k_stride, b_trouble, b_batch_rows,
    m, n, k, batch, limit, out, out_batch_stride, row_stride,
    added, added_batch_stride, added_row_stride, added_column_stride, alpha, beta,
    ADDED: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    PLAIN: tl.constexpr,
):  # fmt: skip
    """Compute again the tiles whose rows have more than ``limit`` of trouble, from float32.

    Wide ranges take three products of tf32, which has float32's exponents; trouble of ``PLAIN``
    takes float32's own arithmetic. A program whose tiles meet no trouble is done at once.
    """
    across = tl.cdiv(n, BN)
    tiles = tl.cdiv(m, BM) * across
    share = tl.cdiv(tiles * batch, tl.num_programs(0))
    first = tl.program_id(0) * share
    end = tl.minimum(first + share, tiles * batch)
    if first < end:
        worst = _worst_of_tiles(
            a_trouble, a_batch_rows, b_trouble, b_batch_rows, m, n, across, tiles, first, end - 1,
            BM,
        )  # fmt: skip
        end = tl.where(worst <= limit, first, end)
    for item in range(first, end):
        number = (item // tiles).to(tl.int64)
        i = item % tiles // across * BM + tl.arange(0, BM)
        j = item % tiles % across * BN + tl.arange(0, BN)
        trouble = tl.maximum(
            _worst(a_trouble + number * a_batch_rows, i, m),
            _worst(b_trouble + number * b_batch_rows, j, n),
        )
        if trouble > limit:
            total = tl.zeros((BM, BN), tl.float32)
            a_rows = a + number * a_batch_stride + i[:, None].to(tl.int64) * a_row_stride
            b_rows = b + number * b_batch_stride + j[None, :].to(tl.int64) * b_row_stride
            for start in range(0, k, BK):
                at = start + tl.arange(0, BK)
                x = tl.load(
                    a_rows + at[None, :].to(tl.int64) * a_k_stride,
                    mask=(i < m)[:, None] & (at < k)[None, :], other=0.0,
                )  # fmt: skip
                y = tl.load(
                    b_rows + at[:, None].to(tl.int64) * b_k_stride,
                    mask=(j < n)[None, :] & (at < k)[:, None], other=0.0,
                )  # fmt: skip
                if trouble >= PLAIN:
                    total = tl.dot(x, y, total, input_precision="ieee")
                else:
                    upper_x, upper_y = _to_tf32(x), _to_tf32(y)
                    part = tl.dot(_to_tf32(x - upper_x), upper_y, input_precision="tf32")
                    part = tl.dot(upper_x, _to_tf32(y - upper_y), part, input_precision="tf32")
                    part = tl.dot(upper_x, upper_y, part, input_precision="tf32")
                    total += part
            _finish(
                total, out + number * out_batch_stride, added + number * added_batch_stride,
                i, j, m, n, row_stride, added_row_stride, added_column_stride, alpha, beta, ADDED,
            )  # fmt: skip
