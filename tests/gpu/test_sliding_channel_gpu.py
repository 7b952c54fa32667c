"""The sliding-channel kernels on a GPU, against float64."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kernels.device import detect
from kernels.select import explain
from kernels.sliding_channel import fast, fused, launch, plan
from kernels.sliding_channel.implementations import sliding_channel_workload
from kernels.sliding_channel.module import SlidingChannelConv2d
from kernels.sliding_channel.packing import DENSE, TABLES, dense_matrix, pack, pack_forward
from kernels.sliding_channel.plan import Structure

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

GRID = tuple(product((1, 2, 4, 8), (0, 0.25, 0.33, 0.5, 0.75)))
TOLERANCE = {torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float32: 1e-5}
STRUCTURES = (
    Structure(64, 128, 16, 8),
    Structure(64, 128, 32, 16),
    Structure(128, 64, 64, 32),
    Structure(128, 512, 32, 16),
    Structure(256, 256, 128, 64),
    Structure(256, 256, 64, 48),  # co 0.25: windows do not rise with the output
    Structure(256, 256, 64, 64),  # no overlap
    Structure(128, 128, 128, 64),  # one group
    Structure(128, 128, 128, 128),  # pointwise
    Structure(512, 512, 128, 64),
    Structure(512, 512, 256, 128),
    Structure(192, 192, 96, 48),
)


@pytest.fixture(autouse=True)
def exact_float32() -> Iterator[None]:
    """cuDNN takes tf32 by default."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def normal(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator("cuda").manual_seed(seed)
    made = torch.randn(*shape, generator=generator, device="cuda", dtype=torch.float64).to(dtype)
    return made.contiguous(memory_format=torch.channels_last) if made.dim() == 4 else made


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.detach().double() - expected.detach()).norm() / expected.detach().norm())


def poison() -> None:
    """Leave NaN in the memory that the next allocations get."""
    blocks = [torch.full((1 << size,), float("nan"), device="cuda") for size in range(8, 24)]
    del blocks


def starts_of(s: Structure) -> torch.Tensor:
    return torch.arange(s.c_out, device="cuda") * s.shift % s.c_in


def truth(
    x: torch.Tensor,
    weight: torch.Tensor,
    dy: torch.Tensor,
    matrix: torch.Tensor,
    mask: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Forward and both gradients in float64 from the dense matrix and the windows' places."""
    y = torch.einsum("oc,bchw->bohw", matrix, x.double())
    dx = torch.einsum("oc,bohw->bchw", matrix, dy.double())
    full = torch.einsum("bohw,bchw->oc", dy.double(), x.double())
    return y, dx, full.gather(1, mask)


def channels_of(starts: torch.Tensor, width: int, c_in: int) -> torch.Tensor:
    return (starts[:, None] + torch.arange(width, device=starts.device)) % c_in


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("s", STRUCTURES, ids=str)
@pytest.mark.parametrize("shape", [(3, 13, 7), (2, 1, 1), (129, 8, 16)])
def test_kernels_equal_float64(
    s: Structure, shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    batch, height, width = shape
    x, dy = (
        normal(batch, s.c_in, height, width, dtype=dtype),
        normal(batch, s.c_out, height, width, dtype=dtype, seed=1),
    )
    weight = normal(s.c_out, s.width, dtype=dtype, seed=2) / s.width**0.5
    channels = channels_of(starts_of(s), s.width, s.c_in)
    matrix = torch.zeros(s.c_out, s.c_in, device="cuda", dtype=torch.float64)
    matrix.scatter_(1, channels, weight.double())
    x.requires_grad_()
    weight.requires_grad_()
    results = []
    for _ in range(2):
        poison()
        y = fast.sliding_channel_conv2d_cuda(x, weight, starts_of(s), shift=s.shift)
        results.append((y.detach(), *torch.autograd.grad(y, (x, weight), dy)))
    expected = truth(x.detach(), weight.detach(), dy, matrix, channels)
    for ours, again, exact in zip(*results, expected, strict=True):
        assert ours.dtype == dtype
        assert torch.equal(ours, again)
        assert error(ours, exact) < TOLERANCE[dtype]
    assert results[0][0].is_contiguous(memory_format=torch.channels_last)


def test_the_structures_have_kernels() -> None:
    taken = [s for s in STRUCTURES if plan.refuses_structure(s) is None]
    assert len(taken) >= 10
    both = (plan.refuses_input_gradient, plan.refuses_weight_gradient)
    assert sum(all(refuses(s) is None for refuses in both) for s in taken) >= 9


@pytest.mark.parametrize(("cg", "co"), GRID)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("last", [False, True])
def test_the_module_equals_float64_for_every_window(
    cg: int, co: float, dtype: torch.dtype, last: bool
) -> None:
    layer = SlidingChannelConv2d(128, 192, cg, co, bias=True).to("cuda", dtype)
    x = normal(3, 128, 9, 11, dtype=dtype)
    x = x if last else x.contiguous()
    dy = normal(3, 192, 9, 11, dtype=dtype, seed=1)
    x.requires_grad_()
    y = layer(x)
    y.backward(dy)
    channels = channels_of(layer.starts, 128 // cg, 128)
    matrix = torch.zeros(192, 128, device="cuda", dtype=torch.float64)
    matrix.scatter_(1, channels, layer.weight.detach().double())
    expected = truth(x.detach(), layer.weight.detach(), dy, matrix, channels)
    assert layer.bias is not None
    assert x.grad is not None
    assert layer.weight.grad is not None
    assert layer.bias.grad is not None
    assert error(y, expected[0] + layer.bias.detach().double()[:, None, None]) < TOLERANCE[dtype]
    assert error(x.grad, expected[1]) < TOLERANCE[dtype]
    assert error(layer.weight.grad, expected[2]) < TOLERANCE[dtype]
    assert error(layer.bias.grad, dy.double().sum((0, 2, 3))) < TOLERANCE[dtype]


def test_dispatch_takes_the_kernels_for_channels_last_halves() -> None:
    def chosen(dtype: str, layout: str, co: float) -> str:
        work = sliding_channel_workload(
            (8, 128, 16, 16), 256, cg=2, co=co, dtype=dtype, layout=layout
        )
        choices = explain(work, detect("cuda")).choices
        return next(c.implementation.name for c in choices if c.status == "chosen")

    assert chosen("float16", "channels_last", 0.5) == "cuda"
    assert chosen("float16", "channels_last", 0.33) == "dense"
    assert chosen("float32", "contiguous", 0.5) == "grouped"


def test_empty_batch_unaligned_storage_and_expanded_gradients() -> None:
    layer = SlidingChannelConv2d(64, 128, 2, 0.5).to("cuda", torch.float16)
    empty = torch.empty(0, 64, 4, 4, device="cuda", dtype=torch.float16, requires_grad=True)
    empty = empty.contiguous(memory_format=torch.channels_last)
    layer(empty).sum().backward()
    assert layer.weight.grad is not None
    assert not layer.weight.grad.any()
    storage = torch.randn(2 * 64 * 9 + 1, device="cuda", dtype=torch.float16)
    shifted = storage[1:].view(2, 3, 3, 64).permute(0, 3, 1, 2)
    assert shifted.data_ptr() % 16
    torch.testing.assert_close(layer(shifted), layer(shifted.clone()), rtol=0, atol=0)
    x = normal(2, 64, 3, 3, dtype=torch.float16).requires_grad_()
    layer(x).sum().backward()
    once = x.grad
    x.grad = None
    layer(x).backward(torch.ones(2, 128, 3, 3, device="cuda", dtype=torch.float16))
    assert once is not None
    assert torch.equal(once, x.grad)


def test_a_nan_outside_the_window_stays_there() -> None:
    s = Structure(256, 256, 128, 64)
    x = normal(1, 256, 4, 4, dtype=torch.float16)
    x[:, 130] = float("nan")
    y = fast.sliding_channel_conv2d_cuda(
        x, normal(256, 128, dtype=torch.float16), starts_of(s), shift=64
    )
    reads = (channels_of(starts_of(s), 128, 256) == 130).any(1)
    assert torch.equal(y.isnan().all((0, 2, 3)), reads)
    assert torch.equal(y.isnan().any((0, 2, 3)), reads)


def test_autocast_compile_and_graph_agree_with_eager() -> None:
    layer = SlidingChannelConv2d(64, 128, 2, 0.5, bias=True).to("cuda")
    x = normal(4, 64, 8, 8, dtype=torch.float32)
    with torch.autocast("cuda", torch.float16):
        cast = layer(x)
    assert cast.dtype == torch.float16
    half = SlidingChannelConv2d(64, 128, 2, 0.5, bias=True).to("cuda", torch.float16)
    half.load_state_dict(layer.state_dict())
    images = x.half()
    eager = half(images)
    assert torch.equal(cast, eager)
    torch._dynamo.reset()
    compiled = torch.compile(half, fullgraph=True)
    torch.testing.assert_close(compiled(images), eager, rtol=0, atol=0)
    compiled(images).sum().backward()
    gradient = half.weight.grad
    half.weight.grad = None
    half(images).sum().backward()
    torch.testing.assert_close(gradient, half.weight.grad, rtol=0, atol=0)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        captured = half(images)
    captured.fill_(float("nan"))
    graph.replay()
    assert torch.equal(captured, eager)


def test_opcheck() -> None:
    x = normal(2, 64, 4, 4, dtype=torch.float16).requires_grad_()
    weight = normal(128, 32, dtype=torch.float16, seed=1).requires_grad_()
    torch.library.opcheck(fast.sliding_channel, (x, weight, None, 16))
    dy = normal(2, 128, 4, 4, dtype=torch.float16)
    torch.library.opcheck(fast.sliding_channel_backward, (dy, x.detach(), weight.detach(), 16))


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("c_in", "cg"), [(256, 2), (128, 4), (64, 4)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_fused_block_equals_its_layers_in_float64(
    kernel: int, stride: int, residual: bool, c_in: int, cg: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    sliding = SlidingChannelConv2d(c_in, 256, cg, 0.5, bias=True).to("cuda", dtype)
    depthwise = nn.Conv2d(c_in, c_in, kernel, stride, kernel // 2, groups=c_in).to("cuda", dtype)
    block = fused.fuse(depthwise, sliding, first="silu", last="hardswish").to(dtype)
    x = normal(3, c_in, 29, 21, dtype=dtype)
    added = None
    if residual:
        added = normal(3, 256, -(-29 // stride), -(-21 // stride), dtype=dtype, seed=1)
    assert isinstance(block.plan_for(x, residual), plan.Plan)
    poison()
    ours = block(x, added)
    y = F.silu(depthwise.double()(x.double()))
    y = sliding.double()(y) if added is None else sliding.double()(y) + added.double()
    assert error(ours, F.hardswish(y)) < TOLERANCE[dtype]
    assert torch.equal(ours, block(x, added))


def test_fused_block_with_norms_folded_in() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(64, 64, 3, 1, 1, groups=64, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        SlidingChannelConv2d(64, 128, 2, 0.5),
        nn.BatchNorm2d(128),
        nn.ReLU6(),
    ).cuda()
    layers(normal(16, 64, 8, 8, dtype=torch.float32) * 2 + 1)  # statistics
    layers.eval()
    depthwise, first_norm, _, sliding, norm, _ = layers
    assert isinstance(depthwise, nn.Conv2d)
    assert isinstance(sliding, SlidingChannelConv2d)
    assert isinstance(first_norm, nn.BatchNorm2d)
    assert isinstance(norm, nn.BatchNorm2d)
    block = fused.fuse(
        depthwise, sliding, first_norm=first_norm, first="relu", norm=norm, last="relu6"
    )
    x = normal(4, 64, 10, 10, dtype=torch.float16)
    assert error(block.half()(x), layers.double()(x.double())) < 2e-3


def test_packed_weights_hold_every_weight_once() -> None:
    s = Structure(128, 128, 64, 32)
    weight = torch.arange(s.c_out * s.width, device="cuda", dtype=torch.int16).view(torch.float16)
    weight = weight.view(s.c_out, s.width)
    for packed in pack(weight, s, [name for name in TABLES if name != DENSE]):
        values = packed.view(torch.int16).sort().values
        assert torch.equal(values, torch.arange(s.c_out * s.width, device="cuda").short())
    assert (dense_matrix(weight, s).view(torch.int16) != 0).sum() == s.c_out * s.width - 1


def test_launch_on_another_stream_waits_for_nothing_else() -> None:
    s = Structure(64, 128, 32, 16)
    weight = normal(128, 32, dtype=torch.float16)
    packed = pack_forward(weight, s)
    x = normal(4, 64, 8, 8, dtype=torch.float16)
    expected = launch.run_forward(x, packed, None, s)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        late = x * 1
        y = launch.run_forward(late, packed, None, s)
        done = stream.record_event()
    assert not done.query()
    done.synchronize()
    assert torch.equal(y, expected)
