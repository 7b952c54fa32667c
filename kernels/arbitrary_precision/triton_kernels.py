# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
"""Bytes in Triton: rounding, and products; imported only where they are launched."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def round_to_bytes(
    x, step, y, pixels, plane, channels, depth, image_pitch, channel_pitch, pixel_pitch, low,
    high, centre, PIXELS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Real numbers as the nearest multiples of a step, less ``centre``: (pixels, depth) bytes.

    An image has ``plane`` pixels; rows of a matrix are images of one. NaN becomes the lowest.
    Channels beyond ``channels`` are zeros.
    """
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * DEPTH + tl.arange(0, DEPTH)
    start = (pixel // plane).to(tl.int64) * image_pitch + pixel % plane * pixel_pitch
    real = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    at = start[:, None] + channel.to(tl.int64)[None, :] * channel_pitch
    v = tl.load(x + at, mask=real, other=0.0).to(tl.float32) * tl.div_rn(1.0, tl.load(step))
    v = tl.where(v != v, low, v)
    v = tl.minimum(tl.maximum(v, low), high)
    whole = (v + 12582912.0) - 12582912.0  # to the nearest, ties to even: 1.5 * 2**23
    kept = (pixel < pixels)[:, None] & (channel < depth)[None, :]
    to = pixel.to(tl.int64)[:, None] * depth + channel[None, :]
    tl.store(y + to, tl.where(real, whole - centre, 0.0).to(tl.int8), mask=kept)


@triton.jit
def byte_product(
    x, w, sums, factor, offset, y, pixels, outputs, depth, taps, centre, fill, height, width,
    out_height, out_width, kernel_width, stride_down, stride_across, pad_top, pad_left, apart_down,
    apart_across, PIXELS: tl.constexpr, OUTPUTS: tl.constexpr, DEPTH: tl.constexpr,
    EVEN: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """Pixels (pixels, depth) times weights (outputs, taps, depth), scaled: (pixels, outputs).

    Bytes of x are integers less ``centre``, which the weights' sums make good. With WINDOW each tap
    reads another pixel of an image (height, width), ``fill`` outside of it.
    """
    down, across = tl.cdiv(pixels, PIXELS), tl.cdiv(outputs, OUTPUTS)
    # Eight rows of tiles at a time: what they read of both stays in the cache.
    program = tl.program_id(0)
    first = program // (8 * across) * 8
    rows = tl.minimum(down - first, 8)
    pixel = (first + program % (8 * across) % rows) * PIXELS + tl.arange(0, PIXELS)
    output = program % (8 * across) // rows * OUTPUTS + tl.arange(0, OUTPUTS)
    source = tl.minimum(pixel, pixels - 1)
    row = tl.minimum(output, outputs - 1)
    top = source
    left = source
    image = source
    if WINDOW:
        image = source // (out_height * out_width) * height
        top = source // out_width % out_height * stride_down - pad_top
        left = source % out_width * stride_across - pad_left
    channel = tl.arange(0, DEPTH)
    acc = tl.zeros((PIXELS, OUTPUTS), tl.int32)
    steps = tl.cdiv(depth, DEPTH)
    for step in range(taps * steps):
        tap = step // steps
        here = step % steps * DEPTH + channel
        weights = w + row.to(tl.int64)[None, :] * (taps * depth) + (tap * depth + here)[:, None]
        b = tl.load(weights) if EVEN else tl.load(weights, mask=(here < depth)[:, None], other=0)
        if WINDOW:
            y_at = top + tap // kernel_width * apart_down
            x_at = left + tap % kernel_width * apart_across
            inside = (y_at >= 0) & (y_at < height) & (x_at >= 0) & (x_at < width)
            start = ((image + y_at) * width + x_at).to(tl.int64) * depth
            read = inside[:, None]
            if not EVEN:
                read = read & (here < depth)[None, :]
            a = tl.load(x + start[:, None] + here[None, :], mask=read, other=fill)
        elif EVEN:
            a = tl.load(x + source.to(tl.int64)[:, None] * depth + here[None, :])
        else:
            at = x + source.to(tl.int64)[:, None] * depth + here[None, :]
            a = tl.load(at, mask=(here < depth)[None, :], other=0)
        acc = tl.dot(a, b, acc, out_dtype=tl.int32)
    whole = acc + centre * tl.load(sums + row)[None, :]
    real = whole.to(tl.float32) * tl.load(factor + row)[None, :] + tl.load(offset + row)[None, :]
    kept = (pixel < pixels)[:, None] & (output < outputs)[None, :]
    to = y + pixel.to(tl.int64)[:, None] * outputs + output[None, :]
    tl.store(to, real.to(y.dtype.element_ty), mask=kept)
