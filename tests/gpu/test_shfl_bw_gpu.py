"""Shfl-BW on a Hopper GPU: the checks of every plan, and layers by operators against float64."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from kernels.shfl_bw import checks, launch
from kernels.shfl_bw.activation import FUNCTIONS
from kernels.shfl_bw.images import images_of
from kernels.shfl_bw.module import ShflBWConv2d, ShflBWLinear
from kernels.shfl_bw.packed import fold, pack
from kernels.shfl_bw.pattern import like_weight
from kernels.shfl_bw.plan import VECTORS
from kernels.shfl_bw.variants import variants

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0),
        reason="needs a Hopper GPU",
    ),
]


@pytest.fixture(params=["hopper-any", "portable"])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name = str(request.param)
    monkeypatch.setenv("NAS_KERNEL_SHFL_BW", name)
    monkeypatch.setenv("NAS_KERNEL_SHFL_BW_CONV", name)
    return name


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    generator = torch.Generator("cuda").manual_seed(seed)
    return torch.randn(shape, generator=generator, device="cuda").to(dtype)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.detach().double() - expected.detach()).norm() / expected.detach().norm())


def linear(
    rows: int, columns: int, v: int, dtype: torch.dtype, **options: object
) -> tuple[ShflBWLinear, torch.Tensor, torch.Tensor]:
    """Return a layer, its masked weight in float64, and its bias."""
    pattern, weight = checks.uneven(rows, columns, v, (columns // 4, columns // 3, 0))
    bias = torch.randn(rows, generator=torch.Generator().manual_seed(5))
    weight, bias = weight.to(dtype), bias.to(dtype)
    layer = ShflBWLinear.from_dense(weight, pattern, bias, **options)  # type: ignore[arg-type]
    masked = (weight.double() * pattern.mask).cuda()
    return layer.cuda(), masked, bias.cuda()


@pytest.mark.parametrize("name", [checks.TRANSPOSITION, *variants()])
def test_every_plan(name: str) -> None:
    rows = list(checks.check(name))
    assert rows
    assert [f"{row.what}: {row.detail}" for row in rows if not row.passed] == []


@pytest.mark.parametrize("v", VECTORS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 7, 64, 1001])
def test_a_layer_token_major(implementation: str, v: int, dtype: torch.dtype, tokens: int) -> None:
    layer, masked, bias = linear(2 * v + 5, 123, v, dtype, activation="silu")
    x = normal(tokens, 123, dtype=dtype)
    expected = F.silu(F.linear(x.double(), masked, bias.double()))
    assert error(layer(x), expected) < checks.ALLOWED[dtype]
    batch = x[None].expand(2, tokens, 123)
    assert torch.equal(layer(batch)[1], layer(x))


@pytest.mark.parametrize("tokens", [8, 9, 640])
def test_a_layer_feature_major_and_unaligned(implementation: str, tokens: int) -> None:
    layer, masked, bias = linear(192, 200, 64, torch.float16, feature_major=True)
    storage = normal(200 * tokens + 1)
    for x in (storage[:-1].view(200, tokens), storage[1:].view(200, tokens)):
        expected = masked @ x.double() + bias.double()[:, None]
        assert error(layer(x), expected) < 1e-3


def test_gradients_of_input_values_and_bias(implementation: str) -> None:
    layer, masked, bias = linear(256, 160, 64, torch.float16, activation="gelu")
    x = normal(96, 160).requires_grad_()
    y = layer(x)
    dy = normal(*y.shape, seed=3)
    found = torch.autograd.grad(y, (x, layer.values, layer.bias), dy)
    exact = x.detach().double().requires_grad_()
    matrix = masked.clone().requires_grad_()
    added = bias.double().requires_grad_()
    z = F.gelu(F.linear(exact, matrix, added))
    expected = torch.autograd.grad(z, (exact, matrix, added), dy.double())
    assert error(found[0], expected[0]) < 3e-3
    assert error(found[2], expected[2]) < 3e-3
    packed = layer.packed
    group = torch.arange(packed.groups, device="cuda").repeat_interleave(packed.offsets.diff())
    places = packed.rows.long().view(-1, 64)[group]
    assert error(found[1], expected[1][places, packed.columns.long()[:, None]]) < 3e-3


def test_two_layers_folded() -> None:
    first, w1, b1 = linear(256, 96, 64, torch.float16)
    second, w2, b2 = linear(128, 256, 32, torch.float16)
    x = normal(96, 200)
    one, two = (images_of(*part.tensors()) for part in fold(first.packed, second.packed))
    order = first.rows.long()
    h = launch.run_spmm(x, one, b1[order].float(), out_features=256, activation="relu")
    y = launch.run_spmm(h, two, b2.float(), out_features=128)
    exact = FUNCTIONS["relu"](w1 @ x.double() + b1.double()[:, None])
    assert error(y, w2 @ exact + b2.double()[:, None]) < 2e-3


def test_launches_that_overlap_wait_for_each_other() -> None:
    pattern, weight = checks.uneven(256, 256, 64, (60, 64, 70))
    images = images_of(*pack((weight / 8).half(), pattern).to("cuda").tensors())
    x = normal(300, 256)

    def chain(*, pause: bool) -> torch.Tensor:
        h = launch.run_transpose(x)
        for _ in range(12):
            h = launch.run_spmm(h, images, None, out_features=256)
            if pause:
                torch.cuda.synchronize()
        return launch.run_transpose(h, leaves=True)[:300]

    first = chain(pause=True)
    assert bool(first.isfinite().all())
    assert all(torch.equal(chain(pause=False), first) for _ in range(20))


@pytest.mark.parametrize("batch", [3, 64])
@pytest.mark.parametrize("last", [False, True])
def test_a_convolution(implementation: str, batch: int, last: bool) -> None:
    pattern, flat = checks.uneven(128, 9 * 40, 64, (90, 120))
    filters = like_weight(flat, (128, 40, 3, 3)).half()
    layer = ShflBWConv2d.from_dense(filters, pattern, stride=2, padding=1, activation="relu").cuda()
    x = normal(batch, 40, 11, 13)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    masked = filters.double() * like_weight(pattern.mask, filters.shape)
    expected = F.relu(F.conv2d(x.cpu().double(), masked, None, 2, 1))
    y = layer(x)
    assert error(y.cpu(), expected) < 1e-3
    assert y.is_contiguous(memory_format=torch.channels_last) == last


def test_inside_a_graph_and_compiled(implementation: str) -> None:
    layer, masked, bias = linear(256, 512, 64, torch.float16)
    x = normal(300, 512)
    expected = F.linear(x.double(), masked, bias.double())
    with torch.no_grad():
        layer(x)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = layer(x)
        y.fill_(float("nan"))
        graph.replay()
        assert error(y, expected) < 1e-3
        assert error(torch.compile(layer, fullgraph=True)(x), expected) < 1e-3


def test_a_changed_weight_is_packed_anew(implementation: str) -> None:
    layer, masked, bias = linear(128, 64, 64, torch.float16)
    x = normal(16, 64)
    with torch.no_grad():
        before = layer(x)
        layer.values.mul_(2)
        after = layer(x)
    expected = F.linear(x.double(), 2 * masked, bias.double())
    assert error(after, expected) < 1e-3
    assert not torch.equal(before, after)


def test_packed_weights_of_every_order_give_the_same() -> None:
    """Groups in another order, and rows within them, change nothing but the order of sums."""
    pattern, weight = checks.uneven(256, 200, 64, (50, 60, 70, 80))
    x = normal(200, 72)
    made = pack(weight.half(), pattern).to("cuda")
    y = launch.run_spmm(x, images_of(*made.tensors()), None, out_features=256)
    order = pattern.order.view(-1, 64).flip(0).flip(1).flatten()
    other = pack(weight.half(), type(pattern)(pattern.mask, order, 64)).to("cuda")
    z = launch.run_spmm(x, images_of(*other.tensors()), None, out_features=256)
    assert torch.equal(y, z)
