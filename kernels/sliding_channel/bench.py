"""The cases of record of sliding-channel convolution, each beside what a user would pick instead.

Weights are packed and matrices built outside; scratch memory is inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product

import torch
from torch.nn import functional as F

from kernels.bench import POLICY, Case, Comparison, measure, relative_error
from kernels.sliding_channel.bench_network import training_steps
from kernels.sliding_channel.fused import FusedSlidingBlock
from kernels.sliding_channel.grouped import sliding_channel_conv2d_grouped
from kernels.sliding_channel.module import SlidingChannelConv2d
from kernels.sliding_channel.packing import dense_matrix, window_entries
from kernels.sliding_channel.plan import Structure
from kernels.sliding_channel.routes import gradients, prepare
from kernels.sliding_channel.routes import product as sliding_product
from kernels.timing import Call, JsonValue, TimingPolicy, cold_sets

SYSTEM = "sliding_channel"
_SHAPES = (
    (64, 256, 256, 56),
    (64, 512, 512, 28),
    (256, 128, 256, 28),
    (128, 64, 128, 32),
    (128, 256, 256, 8),
    (128, 512, 512, 4),
)
_HALF = torch.float16


def bench(only: str = "", *, commit: str = "", policy: TimingPolicy = POLICY) -> list[JsonValue]:
    """Measure the cases of record; see :func:`kernels.bench.measure`."""
    return measure(SYSTEM, _cases(), only=only, commit=commit, policy=policy)


def case_names() -> list[str]:
    """Return the names of the cases of record."""
    return [name for name, _ in _cases()]


def _cases() -> Iterator[Case]:
    for shape, cg in product(_SHAPES, (2, 4)):
        batch, c_in, c_out, size = shape
        text = f"B{batch} {c_in}->{c_out} {size}x{size} cg{cg} co0.5 fp16 channels-last"
        yield f"forward {text}", partial(_forward, f"forward {text}", shape, cg)
        yield f"backward {text}", partial(_backward, f"backward {text}", shape, cg)
    nchw = "forward B64 256->256 56x56 cg2 co0.5 fp32 nchw"
    yield nchw, partial(_single, nchw)
    fused = "fused DW3x3+bias+ReLU+SCC+bias+ReLU B64 256->256 56x56 cg2 co0.5 fp16 channels-last"
    yield fused, partial(_fused, fused)
    step = "train step MobileNet CIFAR B128 bf16 channels-last, SCC cg2 co0.5"
    yield step, partial(_training, step)


def _forward(case: str, shape: tuple[int, int, int, int], cg: int) -> Comparison:
    batch, c_in, c_out, size = shape
    s = _structure(c_in, c_out, cg)
    moved = 2 * batch * size * size * (c_in + c_out)
    xs = [_images(batch, c_in, size) for _ in range(cold_sets(moved))]
    weight = _weights(c_out, s.width)
    prepared, _ = prepare(weight, s, xs[0], training=False)
    dense = _last(_weights(c_out, c_in)[:, :, None, None])

    def error() -> float:
        expected = F.conv2d(xs[0][:8].double(), dense_matrix(weight, s).double()[:, :, None, None])
        return relative_error(sliding_product(xs[0][:8], prepared, None, s), expected)

    return Comparison(
        case,
        "cuDNN pointwise fp16 channels-last",
        [partial(sliding_product, x, prepared, None, s) for x in xs],
        _both_ways([partial(F.conv2d, x, dense) for x in xs]),
        moved,
        error,
    )


def _backward(case: str, shape: tuple[int, int, int, int], cg: int) -> Comparison:
    batch, c_in, c_out, size = shape
    s = _structure(c_in, c_out, cg)
    moved = 2 * batch * size * size * (2 * c_in + c_out)
    sets = [
        (_images(batch, c_out, size), _images(batch, c_in, size)) for _ in range(cold_sets(moved))
    ]
    weight = _weights(c_out, s.width)
    _, packed = prepare(weight, s, sets[0][1], training=True)
    assert packed is not None
    dense = _last(_weights(c_out, c_in)[:, :, None, None])

    def pointwise(dy: torch.Tensor, x: torch.Tensor) -> object:
        one, zero = [1, 1], [0, 0]
        return torch.ops.aten.convolution_backward(
            dy, x, dense, None, one, zero, one, False, zero, 1, [True, True, False]
        )

    def error() -> float:
        dy, x = sets[0]
        dx, dw = gradients(dy, x, packed, s)
        matrix = dense_matrix(weight, s).double()
        expected = F.conv2d(dy[:8].double(), matrix.T[:, :, None, None])
        rows, columns = (t.permute(0, 2, 3, 1).flatten(0, 2) for t in (dy, x))
        full = torch.zeros(s.c_out, s.c_in, device=x.device, dtype=torch.float64)
        for first in range(0, len(rows), 1 << 16):
            part = slice(first, first + (1 << 16))
            full += rows[part].double().T @ columns[part].double()
        assert dx is not None
        assert dw is not None
        return max(relative_error(dx[:8], expected), relative_error(dw, window_entries(full, s)))

    return Comparison(
        case,
        "cuDNN pointwise backward (dX and dW)",
        [partial(gradients, dy, x, packed, s) for dy, x in sets],
        _both_ways([partial(pointwise, dy, x) for dy, x in sets]),
        moved,
        error,
    )


def _single(case: str) -> Comparison:
    s = _structure(256, 256, 2)
    xs = [torch.randn(64, 256, 56, 56, device="cuda") for _ in range(2)]
    weight, dense = torch.randn(256, 128, device="cuda"), torch.randn(256, 256, device="cuda")
    starts = torch.arange(256, device="cuda") * s.shift % 256

    def ours(x: torch.Tensor) -> torch.Tensor:
        return sliding_channel_conv2d_grouped(x, weight, starts, shift=s.shift)

    def error() -> float:
        matrix = dense_matrix(weight.double(), s)[:, :, None, None]
        return relative_error(ours(xs[0][:8]), F.conv2d(xs[0][:8].double(), matrix))

    matrix, flat = dense[:, :, None, None], [x.flatten(2) for x in xs]
    return Comparison(
        case,
        "cuDNN pointwise fp32, TF32 off",
        [partial(ours, x) for x in xs],
        {
            "conv2d": [partial(F.conv2d, x, matrix) for x in xs],
            "matmul": [partial(torch.matmul, dense, x) for x in flat],
        },
        4 * 64 * 56 * 56 * 512,
        error,
    )


def _fused(case: str) -> Comparison:
    moved = 2 * 64 * 56 * 56 * 512
    xs = [_images(64, 256, 56) for _ in range(cold_sets(moved))]
    sliding = SlidingChannelConv2d(256, 256, 2, 0.5).to("cuda", _HALF)
    filters, first, last = _weights(256, 9).view(256, 1, 3, 3), _weights(256), _weights(256)
    block = FusedSlidingBlock(sliding, filters, first, last).to("cuda")
    dense, taps = _last(_weights(256, 256)[:, :, None, None]), _last(filters)

    def eager(x: torch.Tensor) -> torch.Tensor:
        y = F.relu_(F.conv2d(x, taps, first, padding=1, groups=256))
        return F.relu_(F.conv2d(y, dense, last))

    compiled = torch.compile(eager)
    compiled(xs[0])

    reference = FusedSlidingBlock(sliding, filters, first, last).double()
    return Comparison(
        case,
        "cuDNN DW+bias+ReLU+PW+bias+ReLU",
        [partial(block, x) for x in xs],
        {
            "eager": [partial(eager, x) for x in xs],
            "compile": [partial(compiled, x) for x in xs],
        },
        moved,
        lambda: relative_error(block(xs[0][:8]), reference(xs[0][:8].double())),
    )


def _training(case: str) -> Comparison:
    ours, theirs = training_steps()
    return Comparison(
        case, "same network with DW+PW", [ours], {"step": [theirs]}, 0, None, cold=False
    )


def _both_ways(calls: Sequence[Call]) -> dict[str, Sequence[Call]]:
    """Return the calls with cuDNN's measured choice of algorithm and with its guess.

    The measured one is now and then half as fast as the guess: whatever ran beside it counts.
    """

    def guessed(call: Call) -> object:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=False):
            return call()

    return {"measured": calls, "guessed": [partial(guessed, call) for call in calls]}


def _structure(c_in: int, c_out: int, cg: int) -> Structure:
    return Structure(c_in, c_out, c_in // cg, c_in // cg // 2)


def _images(batch: int, channels: int, size: int) -> torch.Tensor:
    return _last(torch.randn(batch, channels, size, size, device="cuda", dtype=_HALF))


def _weights(*shape: int) -> torch.Tensor:
    scale = shape[1] ** -0.5 if len(shape) > 1 else 1.0
    return (torch.randn(*shape, device="cuda") * scale).to(_HALF)


def _last(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)
