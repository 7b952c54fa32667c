"""The fast paths of sliding-channel convolution, as far as a CPU can tell."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from kernels.device import Device, detect
from kernels.errors import NasError
from kernels.jit import compile_cuda, read_source
from kernels.select import explain
from kernels.sliding_channel import fast, launch, plan
from kernels.sliding_channel.fused import FusedSlidingBlock, fuse
from kernels.sliding_channel.grouped import read_shift, sliding_channel_conv2d_grouped
from kernels.sliding_channel.implementations import sliding_channel_workload
from kernels.sliding_channel.module import SlidingChannelConv2d
from kernels.sliding_channel.packing import dense_matrix, pack, pack_forward, window_entries
from kernels.sliding_channel.plan import Plan, Structure
from kernels.sliding_channel.windows import period, window_starts

GRID = tuple(product((1, 2, 4, 8), (0, 0.25, 0.5, 0.75)))
HOPPER = Device("cuda", 0, "NVIDIA H200", (9, 0), 132, 141 << 30)
STRUCTURES = (
    Structure(64, 128, 16, 8),
    Structure(64, 64, 32, 16),
    Structure(128, 256, 64, 32),
    Structure(256, 256, 64, 48),  # windows do not rise with the output
    Structure(128, 128, 64, 64),  # no overlap
    Structure(64, 64, 64, 64),  # pointwise
    Structure(256, 256, 32, 16),
)
Product = Callable[..., torch.Tensor]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def starts_of(s: Structure) -> torch.Tensor:
    return torch.arange(s.c_out) * s.shift % s.c_in


def matrix_of(weight: torch.Tensor, s: Structure) -> torch.Tensor:
    """The dense matrix, entry by entry."""
    matrix = torch.zeros(s.c_out, s.c_in, dtype=weight.dtype)
    for o, j in product(range(s.c_out), range(s.width)):
        matrix[o, (o * s.shift + j) % s.c_in] += weight[o, j]
    return matrix


# Windows and what the kernels take


@settings(deadline=None, max_examples=60)
@given(
    width=st.integers(1, 40),
    cg=st.integers(1, 4),
    percent=st.integers(0, 99),
    rule=st.sampled_from(("floor", "shift")),
)
def test_a_whole_shift_says_where_windows_start(
    width: int, cg: int, percent: int, rule: Any
) -> None:
    c_in, co = width * cg, percent / 100
    shift = plan.whole_shift(c_in, cg, co, rule, "cyclic")
    starts = window_starts(c_in, 110, cg, co, rule)
    if shift is None:
        assert c_in == 1 or len({(b - a) % c_in for a, b in pairwise(starts)}) > 1
    else:
        assert list(starts) == [o * shift % c_in for o in range(110)]
        assert Structure(c_in, 50, width, shift).period == period(c_in, cg, co, rule)
    assert plan.whole_shift(c_in, cg, co, rule, "block") is None


@pytest.mark.parametrize(
    ("s", "reason"),
    [
        (Structure(48, 128, 24, 12), "multiple of 64 input channels, not 48"),
        (Structure(64, 128, 32, 4), "start at multiples of 8 channels"),
        (Structure(192, 192, 64, 64), "1, 2, 4, 8 or 16 outputs, not 3"),
        (Structure(512, 512, 16, 8), "1, 2, 4, 8 or 16 outputs, not 64"),
        (Structure(256, 80, 128, 64), "multiple of 32, not 80"),
        (Structure(1024, 1024, 512, 256), "1024 input channels do not fit"),
    ],
)
def test_shapes_without_a_kernel_say_why(s: Structure, reason: str) -> None:
    refusal = plan.refuses_structure(s)
    assert refusal is not None
    assert reason in refusal


def test_gradients_refuse_what_their_tiles_cannot_hold() -> None:
    assert plan.refuses_input_gradient(Structure(192, 256, 96, 48)) is not None
    assert plan.refuses_input_gradient(Structure(512, 1024, 256, 128)) is not None
    assert plan.refuses_weight_gradient(Structure(256, 96, 128, 64)) is not None
    assert plan.refuses_weight_gradient(Structure(256, 256, 128, 64)) is None


@pytest.mark.parametrize("s", STRUCTURES, ids=str)
@pytest.mark.parametrize("pixels", [1, 2048, 200704])
@pytest.mark.parametrize("capability", [(8, 0), (9, 0)])
def test_plans_fit_a_multiprocessor(s: Structure, pixels: int, capability: tuple[int, int]) -> None:
    made = [
        rule(s, pixels, sms=132, capability=capability)
        for rule in (plan.forward_plan, plan.input_gradient_plan, plan.weight_gradient_plan)
    ]
    for found in made:
        together = found.constant("BLOCKS_PER_SM") * (found.shared_bytes + 1024)
        assert together <= plan.shared_limit(capability)
        assert found.constant("PIXELS") % 16 == 0
        assert found.blocks(10**6, 132) * found.split <= 132 * found.constant("BLOCKS_PER_SM")
        assert found.blocks(1, 132) == 1


# Weights in fragment order, read as the tensor cores do (PTX: mma.m16n8k16, matrix B)


def _columns(packed: torch.Tensor) -> torch.Tensor:
    """Return B (.., 16, 8) of fragments (.., 32 lanes, 2 registers, 2 halves)."""
    b = packed.new_zeros(*packed.shape[:-3], 16, 8)
    for lane, register, half in product(range(32), range(2), range(2)):
        row = 2 * (lane % 4) + 8 * register + half
        b[..., row, lane // 4] = packed[..., lane, register, half]
    return b


@pytest.mark.parametrize("s", STRUCTURES, ids=str)
def test_forward_weights_give_the_product(s: Structure) -> None:
    x, weight = normal(5, s.c_in), normal(s.c_out, s.width, seed=1)
    steps = s.width // 16
    b = _columns(pack_forward(weight, s).view(-1, s.period, steps, 32, 2, 2))
    y = torch.full((5, s.c_out), float("nan"), dtype=torch.float64)
    for group, r in product(range(b.shape[0]), range(s.period)):
        channels = (torch.arange(s.width) + r * s.shift) % s.c_in
        sums = x[:, channels] @ b[group, r].reshape(s.width, 8)
        for thread, i in product(range(4), range(2)):
            # As each_run stores: 2t and 2t + 1 are q and q + 1, from 8 windows on q and q + 4.
            q = 2 * thread + i if s.period < 8 else thread + 4 * i
            y[:, s.period * (8 * group + q) + r] = sums[:, 2 * thread + i]
    torch.testing.assert_close(y, x @ matrix_of(weight, s).T)


@pytest.mark.parametrize("s", STRUCTURES, ids=str)
def test_input_gradient_weights_give_the_transposed_product(s: Structure) -> None:
    dy, weight = normal(5, s.c_out), normal(s.c_out, s.width, seed=1)
    parts = max(1, 32 // s.chunk)
    tiles, steps = 4 // parts, s.per_window // 16
    packed = pack(weight, s, ("input_gradient.cu",))[0]
    b = _columns(packed.view(-1, parts, s.members, steps, tiles, 32, 2, 2))
    sorted_dy = dy.view(5, s.per_window, s.period).transpose(1, 2)  # window-major
    starts = [r * s.shift % s.c_in for r in range(s.period)]
    dx = torch.full((5, s.c_in), float("nan"), dtype=torch.float64)
    for owner, part, tile in product(range(s.c_in // 32), range(parts), range(tiles)):
        chunk = 32 * owner // s.chunk + part
        sums = torch.zeros(5, 8, dtype=torch.float64)
        for member in range(s.members):
            window = starts.index((chunk - member) * s.chunk % s.c_in)
            sums += sorted_dy[:, window] @ b[owner, part, member, :, tile].reshape(-1, 8)
        for thread, i in product(range(4), range(2)):
            channel = 32 * owner + part * min(32, s.chunk) + 2 * tiles * thread + 2 * tile + i
            dx[:, channel] = sums[:, 2 * thread + i]
    torch.testing.assert_close(dx, dy @ matrix_of(weight, s))


def test_tables_of_both_and_of_the_dense_matrix() -> None:
    s = Structure(64, 128, 32, 16)
    weight = normal(128, 32)
    forward, matrix = pack(weight, s, ("forward.cu", "dense"))
    assert torch.equal(forward, pack_forward(weight, s))
    assert torch.equal(matrix, matrix_of(weight, s))
    assert torch.equal(dense_matrix(weight, s), matrix)
    assert torch.equal(window_entries(matrix_of(weight, s), s), weight)


# The CUDA sources compile and keep everything in registers


@pytest.mark.parametrize("target", ["sm_80", "sm_90a"])
@pytest.mark.parametrize(
    "name", ["forward", "input_gradient", "weight_gradient", "fused", "gather"]
)
def test_sources_compile_without_spills(name: str, target: str, tmp_path: Any) -> None:
    s, capability = Structure(256, 256, 128, 64), (8, 0) if target == "sm_80" else (9, 0)
    card: dict[str, Any] = {"sms": 132, "capability": capability}
    plans: dict[str, Plan | str] = {
        "forward": plan.forward_plan(s, 200704, **card),
        "input_gradient": plan.input_gradient_plan(s, 200704, **card),
        "weight_gradient": plan.weight_gradient_plan(s, 200704, **card),
        "fused": plan.fused_plan(s, 3, 1, "relu", "relu", capability=capability),
        "gather": Plan("gather.cu", (), 0),
    }
    found = plans[name]
    assert isinstance(found, Plan)
    options = [f"-D{key}={value}" for key, value in found.defines] + ["-std=c++17"]
    options += ["-DBFLOAT"] if target == "sm_80" else []
    source = read_source(launch.SOURCES / found.file)
    made = compile_cuda(source, name=name, arch=target, options=options, cache_dir=tmp_path)
    assert {f"sliding_{name}"} <= set(made.functions)
    assert all(used.spill_bytes == 0 for used in made.functions.values())


# The operator, on a CPU: the dense product behind the same rules


@pytest.mark.parametrize(("cg", "co"), GRID)
@pytest.mark.parametrize("run", [fast.sliding_channel_conv2d_cuda, sliding_channel_conv2d_grouped])
def test_equals_the_dense_matrix_forward_and_backward(run: Product, cg: int, co: float) -> None:
    c_in, c_out = 16, 21
    shift = plan.whole_shift(c_in, cg, co, "floor", "cyclic")
    if shift is None:
        with pytest.raises(NasError, match="whole number of channels"):
            run(normal(1, c_in, 1, 1), normal(c_out, c_in // cg), _starts(c_in, c_out, cg, co))
        return
    s = Structure(c_in, c_out, c_in // cg, shift)
    x, weight = normal(2, c_in, 3, 5).requires_grad_(), normal(c_out, s.width, seed=1)
    weight.requires_grad_()
    dy, bias = normal(2, c_out, 3, 5, seed=2), normal(c_out, seed=3).requires_grad_()
    y = run(x, weight, starts_of(s), bias)
    dx, dw, db = torch.autograd.grad(y, (x, weight, bias), dy)
    matrix = matrix_of(weight.detach(), s)
    expected = torch.einsum("oc,bchw->bohw", matrix, x) + bias[:, None, None]
    full = torch.einsum("bohw,bchw->oc", dy, x)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(dx, torch.einsum("oc,bohw->bchw", matrix, dy))
    channels = (starts_of(s)[:, None] + torch.arange(s.width)) % c_in
    torch.testing.assert_close(dw, full.gather(1, channels))
    torch.testing.assert_close(db, dy.sum((0, 2, 3)))


def _starts(*arguments: Any) -> torch.Tensor:
    return torch.tensor(window_starts(*arguments))


@pytest.mark.parametrize("run", [fast.sliding_channel_conv2d_cuda, sliding_channel_conv2d_grouped])
@pytest.mark.parametrize(
    "s",
    [
        Structure(8, 3, 4, 2),  # fewer outputs than windows
        Structure(8, 11, 4, 2),  # outputs no multiple of the windows
        Structure(4, 9, 1, 1),  # windows of one channel
        Structure(6, 5, 6, 3),  # the window is everything, rotated
        Structure(1, 3, 1, 1),
    ],
    ids=str,
)
def test_gradcheck_at_the_edges(run: Product, s: Structure) -> None:
    x, weight = normal(2, s.c_in, 1, 2).requires_grad_(), normal(s.c_out, s.width, seed=1)

    def here(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return run(x, weight, starts_of(s), shift=s.shift)

    assert torch.autograd.gradcheck(here, (x, weight.requires_grad_()))
    torch.testing.assert_close(
        here(x, weight), torch.einsum("oc,bchw->bohw", matrix_of(weight.detach(), s), x)
    )


@pytest.mark.parametrize("run", [fast.sliding_channel_conv2d_cuda, sliding_channel_conv2d_grouped])
def test_counter_example_of_the_authors_backward(run: Product) -> None:
    s = Structure(4, 4, 4, 1)  # theirs gives 2, 3, 3, 2
    x = torch.ones(1, 4, 1, 1).double().requires_grad_()
    y = run(x, torch.ones(4, 4).double(), starts_of(s), shift=1)
    y.backward(torch.ones_like(y))
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [4, 4, 4, 4]


@pytest.mark.parametrize("run", [fast.sliding_channel_conv2d_cuda, sliding_channel_conv2d_grouped])
def test_empty_batch(run: Product) -> None:
    x, weight = torch.zeros(0, 8, 3, 3, requires_grad=True), torch.ones(8, 4, requires_grad=True)
    y = run(x, weight, torch.arange(8) * 2 % 8, shift=2)
    assert y.shape == (0, 8, 3, 3)
    y.sum().backward()
    assert weight.grad is not None
    assert not weight.grad.any()


def test_many_pixels_take_another_route_to_the_same_gradient() -> None:
    s = Structure(4, 8, 2, 1)
    x, weight = normal(2, 4, 96, 96), normal(8, 2, seed=1).requires_grad_()
    assert x.shape[0] * 96 * 96 > plan.FEW_PIXELS
    y = fast.sliding_channel_conv2d_cuda(x, weight, starts_of(s), shift=1)
    dy = normal(*y.shape, seed=2)
    y.backward(dy)
    full = torch.einsum("bohw,bchw->oc", dy, x)
    channels = (starts_of(s)[:, None] + torch.arange(2)) % 4
    torch.testing.assert_close(weight.grad, full.gather(1, channels))


def test_opcheck() -> None:
    x = normal(2, 8, 3, 4).requires_grad_()
    weight, bias = normal(11, 4, seed=1).requires_grad_(), normal(11).requires_grad_()
    torch.library.opcheck(fast.sliding_channel, (x, weight, bias, 2))
    dy = normal(2, 11, 3, 4)
    torch.library.opcheck(fast.sliding_channel_backward, (dy, x.detach(), weight.detach(), 2))


def test_a_nan_outside_the_window_stays_there_in_the_grouped_product() -> None:
    x = normal(1, 8, 2, 2)
    x[:, 5] = float("nan")
    y = sliding_channel_conv2d_grouped(x, normal(8, 4), torch.arange(8) * 2 % 8)
    reads = [5 in {(2 * o + j) % 8 for j in range(4)} for o in range(8)]
    assert y.isnan().any((0, 2, 3)).tolist() == reads


def test_the_shift_is_read_from_the_starts() -> None:
    assert read_shift(torch.tensor([0, 3, 6, 1]), 8) == 3
    assert read_shift(torch.tensor([0, 0, 0]), 8) == 8
    assert read_shift(torch.tensor([0]), 8) == 8
    with pytest.raises(NasError, match="'dense'"):
        read_shift(torch.tensor([0, 2, 5]), 8)


# Dispatch


@pytest.mark.parametrize(
    ("device", "changes", "expected"),
    [
        (HOPPER, {}, "cuda"),
        (HOPPER, {"dtype": "bfloat16"}, "cuda"),
        (HOPPER, {"layout": "contiguous"}, "dense"),
        (HOPPER, {"co": 0.33}, "dense"),
        (HOPPER, {"order": "block"}, "dense"),
        (HOPPER, {"dtype": "float32", "layout": "contiguous"}, "grouped"),
        (Device("cuda", 0, "Tesla V100", (7, 0), 80, 1 << 34), {}, "dense"),
        (detect("cpu"), {}, "dense"),
        (detect("cpu"), {"dtype": "float32", "layout": "contiguous"}, "grouped"),
        (detect("cpu"), {"dtype": "float32", "layout": "contiguous", "cg": 8}, "dense"),
    ],
)
def test_who_is_chosen(device: Device, changes: dict[str, Any], expected: str) -> None:
    settings_ = {"cg": 2, "co": 0.5, "dtype": "float16", "layout": "channels_last", **changes}
    choices = explain(sliding_channel_workload((8, 128, 16, 16), 256, **settings_), device).choices
    chosen = [choice for choice in choices if choice.status == "chosen"]
    assert [choice.implementation.name for choice in chosen] == [expected]
    assert all(choice.reason for choice in choices)


# The fused block


def _layers(k: int, stride: int, cg: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(16, 16, k, stride, k // 2, groups=16, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        SlidingChannelConv2d(16, 24, cg, 0.5, bias=True),
        nn.BatchNorm2d(24),
        nn.Hardswish(),
    ).double()
    layers(normal(8, 16, 9, 9) * 2 + 1)  # statistics
    return layers.eval()


@pytest.mark.parametrize(("k", "stride"), list(product((3, 5, 7), (1, 2))))
@pytest.mark.parametrize("residual", [False, True])
def test_fusing_folds_the_norms(k: int, stride: int, residual: bool) -> None:
    layers = _layers(k, stride)
    block = fuse(
        *(layers[0], layers[3]),  # type: ignore[arg-type]
        first_norm=layers[1],  # type: ignore[arg-type]
        first="relu",
        norm=layers[4],  # type: ignore[arg-type]
        last="hardswish",
    )
    x = normal(2, 16, 11, 8, seed=1)
    before = layers[:5](x)
    added = normal(*before.shape, seed=2) if residual else None
    expected = F.hardswish(before if added is None else before + added)
    torch.testing.assert_close(block(x, added), expected, rtol=1e-5, atol=1e-5)
    assert "GPU" in str(block.plan_for(x))


@pytest.mark.parametrize(
    ("filters", "options", "message"),
    [
        ((16, 1, 4, 4), {}, "k 3, 5 or 7"),
        ((8, 1, 3, 3), {}, r"\(16, 1, k, k\)"),
        ((16, 1, 3, 3), {"stride": 3}, "1 or 2, not 3"),
        ((16, 1, 3, 3), {"last": "gelu"}, "Unknown activation 'gelu'"),
    ],
)
def test_blocks_that_cannot_be_fused(
    filters: tuple[int, ...], options: dict[str, Any], message: str
) -> None:
    sliding = SlidingChannelConv2d(16, 24, 2, 0.5)
    with pytest.raises(NasError, match=message):
        FusedSlidingBlock(
            sliding, torch.zeros(filters), torch.zeros(16), torch.zeros(24), **options
        )


@pytest.mark.parametrize(
    ("shape", "residual", "message"),
    [
        ((2, 8, 5, 5), None, r"input \(b, 16, h, w\)"),
        ((16, 5, 5), None, "input"),
        ((2, 16, 5, 5), (2, 24, 5, 4), r"residual \(2, 24, 5, 5\), got \(2, 24, 5, 4\)"),
    ],
)
def test_blocks_refuse_wrong_shapes(
    shape: tuple[int, ...], residual: tuple[int, ...] | None, message: str
) -> None:
    layers = _layers(3, 1)
    block = fuse(layers[0], layers[3])  # type: ignore[arg-type]
    with pytest.raises(NasError, match=message):
        block(torch.zeros(shape), None if residual is None else torch.zeros(residual))


def test_only_a_depthwise_convolution_is_fused() -> None:
    sliding = SlidingChannelConv2d(16, 24, 2, 0.5)
    for wrong in (nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, groups=16)):
        with pytest.raises(NasError, match="square depthwise"):
            fuse(wrong, sliding)
    norm = nn.BatchNorm2d(24, track_running_stats=False)
    with pytest.raises(NasError, match="running statistics"):
        fuse(nn.Conv2d(16, 16, 3, padding=1, groups=16), sliding, norm=norm)


def test_large_filters_say_how_much_memory_they_lack() -> None:
    refusal = plan.fused_plan(Structure(512, 512, 128, 64), 7, 2, "relu", "relu", capability=(9, 0))
    assert isinstance(refusal, str)
    assert "bytes of shared memory" in refusal
