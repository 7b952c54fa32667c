"""The low-bit kernels on a GPU: every tile, exactly, against whole numbers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from types import ModuleType

import pytest
import torch
from torch.nn import functional as F

from kernels.arbitrary_precision import (
    bytes_path,
    direct_path,
    int8_path,
    launch,
    plan,
    plan_direct,
    planes_path,
)
from kernels.arbitrary_precision.bench_network import low_bit_body
from kernels.arbitrary_precision.layout import padded
from kernels.arbitrary_precision.module import APConv2d, APLinear
from kernels.arbitrary_precision.operands import Geometry
from kernels.arbitrary_precision.plan_direct import Window
from kernels.arbitrary_precision.planes import from_codes, unpack_planes
from kernels.arbitrary_precision.precision import Precision
from kernels.arbitrary_precision.quantise import integers
from kernels.arbitrary_precision.training import QuantLinear

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

POISON = 0x5A5A5A5A
SOME = ("w1a1", "w1a2", "w2a2", "w1a4", "w4a4", "w2a8", "w3a5")
PATHS: tuple[plan.Path, ...] = ("wgmma", "mma")
CONVOLVE: dict[str, Callable[..., torch.Tensor]] = {
    "wgmma": planes_path.conv2d_wgmma,
    "mma": planes_path.conv2d_mma,
    "direct": direct_path.conv2d,
}


def codes_of(*shape: int, bits: int) -> torch.Tensor:
    return torch.randint(0, 1 << bits, shape, device="cuda", dtype=torch.uint8)


def layer_of(bits: str, m: int, k: int, zero: int = 0) -> APLinear:
    precision = Precision.parse(bits)
    w = from_codes(codes_of(m, k, bits=precision.weight_bits), precision.weights)
    scale, bias = torch.rand(m, device="cuda") + 0.5, torch.randn(m, device="cuda")
    return APLinear.of(w, scale, precision, zero=zero, bias=bias)


def exact(layer: APLinear, codes: torch.Tensor) -> torch.Tensor:
    x, w = from_codes(codes, layer.inputs).double(), layer.integers().squeeze(2).double()
    return (x @ w.T).long()


def packed(layer: APLinear, codes: torch.Tensor) -> launch.Rows:
    x = from_codes(codes, layer.inputs).float()
    low = planes_path.pack(x, layer.weights())
    assert torch.equal(unpack_planes(low.planes, codes.shape[1]), codes)
    assert torch.equal(low.counted(), codes.sum(1, dtype=torch.int32))
    return launch.Rows(low.planes, low.sums, len(codes))


@pytest.mark.parametrize(
    ("bits", "tile"),
    [(bits, tile) for bits in SOME for tile in plan.tiles(Precision.parse(bits), (9, 0))],
    ids=str,
)
def test_every_tile_gives_whole_numbers_exactly(bits: str, tile: plan.Tile) -> None:
    capability = torch.cuda.get_device_capability()
    if (problem := tile.problem(Precision.parse(bits), capability)) is not None:
        pytest.skip(problem)
    layer = layer_of(bits, 200, 1300, zero=0)
    codes = codes_of(333, 1300, bits=layer.precision.activation_bits)
    rows, expected = packed(layer, codes), exact(layer, codes)
    out = torch.full((333, 200), POISON, dtype=torch.int32, device="cuda")
    launch.product_launch(rows, layer.weights(), out, tile, sms=7).run()
    assert torch.equal(out.long(), expected)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("pair", list(product(range(1, 9), repeat=2)), ids=str)
def test_every_pair_of_bits(pair: tuple[int, int], path: plan.Path) -> None:
    if pair[0] * pair[1] > plan.MAX_PLANE_PRODUCTS:
        pytest.skip("8-bit tensor cores do it")
    zero = (1 << pair[1]) // 3
    layer = layer_of(f"w{pair[0]}a{pair[1]}", 96, 300, zero=zero)
    capability = torch.cuda.get_device_capability()
    tile = plan.choose(layer.precision, 70, 96, 1, sms=132, capability=capability, path=path)
    if tile is None:
        pytest.skip("no tile of this path")
    codes = codes_of(70, 300, bits=pair[1])
    out = torch.full((70, 96), POISON, dtype=torch.int32, device="cuda")
    launch.product_launch(packed(layer, codes), layer.weights(), out, tile).run()
    assert torch.equal(out.long(), exact(layer, codes))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "size", [(1, 8, 1), (63, 64, 64), (64, 72, 65), (129, 256, 2048), (4096, 4096, 4096)], ids=str
)
def test_odd_sizes(size: tuple[int, int, int], path: plan.Path) -> None:
    n, m, k = size
    layer = layer_of("w1a2", m, k)
    x = torch.rand(n, k, device="cuda") * 3.5
    found = planes_path.linear(x, layer.weights(), path=path)
    whole = exact(layer, integers(x, layer.step, layer.inputs).to(torch.uint8))
    expected = whole * layer.factor.double() + layer.offset.double()
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.double(), expected, rtol=2e-3, atol=2e-3)


def test_two_runs_are_equal_and_nothing_of_before_shows() -> None:
    layer = layer_of("w2a2", 256, 4096)
    x = torch.rand(512, 4096, device="cuda") * 3.5
    first = planes_path.linear(x, layer.weights(), path="wgmma")
    for _ in range(20):
        assert torch.equal(planes_path.linear(x, layer.weights(), path="wgmma"), first)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_packing_rounds_as_the_definition_does(dtype: torch.dtype, path: plan.Path) -> None:
    layer = layer_of("w1a3", 64, 517, zero=2)
    x = (torch.randn(301, 517, device="cuda") * 3).to(dtype)
    x[0, :3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    low = planes_path.pack(x, layer.weights())
    expected = integers(x, layer.step, layer.inputs) + 2
    assert torch.equal(unpack_planes(low.planes, 517).float(), expected)


@pytest.mark.parametrize("path", [int8_path, bytes_path], ids=["int8", "bytes"])
@pytest.mark.parametrize("zero", [0, 75, 128, 157, 255])
def test_bytes_are_exact_at_every_zero_point(zero: int, path: ModuleType) -> None:
    layer = layer_of("w8a8", 96, 384, zero=zero)
    codes = codes_of(70, 384, bits=8)
    whole = exact(layer, codes).double()
    found = path.linear(from_codes(codes, layer.inputs).float(), layer.weights())
    expected = whole * layer.factor.double() + layer.offset.double()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    "size",
    [(1, 8, 16), (16, 40, 70), (64, 4096, 4096), (333, 200, 1300), (4096, 512, 384)],
    ids=str,
)
def test_bytes_of_every_size_and_type(size: tuple[int, int, int], dtype: torch.dtype) -> None:
    n, m, k = size
    layer = layer_of("w8a8", m, k, zero=100)
    x = (torch.randn(n, k, device="cuda") * 60).to(dtype)
    whole = exact(layer, (integers(x, layer.step, layer.inputs) + 100).to(torch.uint8))
    expected = whole * layer.factor.double() + layer.offset.double()
    found = bytes_path.linear(x, layer.weights())
    assert found.dtype == dtype
    rtol = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    if dtype == torch.float16:
        expected = expected.half().double()  # beyond 65504 is infinite
    torch.testing.assert_close(found.double(), expected, rtol=rtol, atol=1e-2)


@pytest.mark.parametrize("bits", ["w8a8", "w4a4"])
def test_a_gradient_passes_to_the_input(bits: str) -> None:
    dense = QuantLinear(384, 96, Precision.parse(bits)).cuda()
    x = torch.randn(8, 70, 384, device="cuda")
    dense.calibrate(0.7 * x)
    found, expected = (x.clone().requires_grad_() for _ in range(2))
    dense.pack()(found).square().sum().backward()
    dense(expected).square().sum().backward()
    assert found.grad is not None
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-2, atol=1e-2)


CONVOLUTIONS = (
    (64, 64, (3, 3), (1, 1), (1, 1), (1, 1)),
    (64, 128, (3, 3), (2, 2), (1, 1), (1, 1)),
    (64, 128, (1, 1), (2, 2), (0, 0), (1, 1)),
    (256, 512, (3, 3), (1, 1), (1, 1), (1, 1)),
    (70, 40, (5, 3), (1, 2), (0, 1), (2, 1)),
)


@pytest.mark.parametrize("path", list(CONVOLVE))
@pytest.mark.parametrize("bits", ["w1a1", "w1a2", "w2a2", "w3a3", "w1a5"])
@pytest.mark.parametrize("shape", CONVOLUTIONS, ids=str)
def test_convolutions(shape: tuple, bits: str, path: str) -> None:  # type: ignore[type-arg]
    channels, m, kernel, stride, padding, dilation = shape
    precision, zero = Precision.parse(bits), 1
    window = Window(kernel[0] * kernel[1], kernel[1], padded(channels) // 8)
    if path == "direct" and not list(plan_direct.tiles(precision, window)):
        pytest.skip("no room")
    w = from_codes(codes_of(m, channels, *kernel, bits=precision.weight_bits), precision.weights)
    settings = {"stride": stride, "padding": padding, "dilation": dilation}
    layer = APConv2d.of(w, torch.ones(m, device="cuda"), precision, zero=zero, **settings)
    codes = codes_of(3, channels, 17, 14, bits=precision.activation_bits)
    x = from_codes(codes, layer.inputs)
    low = planes_path.pack(x.float(), layer.weights())
    geometry = Geometry(kernel, stride, padding, dilation)
    found = CONVOLVE[path](low, layer.weights(), geometry)
    expected = F.conv2d(x.double(), w.double(), None, stride, padding, dilation)
    torch.testing.assert_close(found.double(), expected, rtol=2e-3, atol=0)


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("shape", CONVOLUTIONS, ids=str)
def test_bytes_of_convolutions(shape: tuple, form: torch.memory_format) -> None:  # type: ignore[type-arg]
    channels, m, kernel, *places = shape
    precision, zero = Precision.parse("w8a8"), 100
    w = from_codes(codes_of(m, channels, *kernel, bits=8), precision.weights)
    names = dict(zip(("stride", "padding", "dilation"), places, strict=True))
    layer = APConv2d.of(w, torch.ones(m, device="cuda"), precision, zero=zero, **names)
    x = from_codes(codes_of(3, channels, 17, 14, bits=8), layer.inputs).float()
    given = x.contiguous(memory_format=form)
    found = bytes_path.conv2d(given, layer.weights(), Geometry(kernel, *places))
    expected = F.conv2d(x.double(), w.double(), None, *places)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("channels", [64, 128, 512])
def test_every_tile_of_the_direct_convolution(channels: int) -> None:
    precision, geometry = Precision(1, 2), Geometry((3, 3), (1, 1), (1, 1), (1, 1))
    w = from_codes(codes_of(200, channels, 3, 3, bits=1), precision.weights)
    layer = APConv2d.of(w, torch.ones(200, device="cuda") / 64, precision, padding=(1, 1))
    codes = codes_of(3, channels, 9, 7, bits=2)
    low = planes_path.pack(codes.float(), layer.weights())
    whole = F.conv2d(codes.double(), w.double(), None, 1, 1)
    residual = torch.randn(3, 200, 9, 7, device="cuda").half()
    residual = residual.to(memory_format=torch.channels_last)
    expected = (whole.float() / 64 + residual.float()).clamp_min(0).half()
    found = list(plan_direct.tiles(precision, Window(9, 3, channels // 8)))
    assert found
    for tile in found:
        _, real = direct_path.conv2d_fused(
            *(low, layer.weights(), geometry), real=True, residual=residual, tile=tile
        )
        assert real is not None
        assert torch.equal(real, expected), tile


def test_codes_made_for_the_next_layer() -> None:
    first = APConv2d.of(
        torch.where(torch.rand(128, 64, 3, 3, device="cuda") > 0.5, 1, -1),
        torch.rand(128, device="cuda") / 20,
        Precision(1, 2),
        bias=torch.randn(128, device="cuda"),
        padding=(1, 1),
    )
    following = APConv2d.of(
        torch.where(torch.rand(64, 128, 3, 3, device="cuda") > 0.5, 1, -1),
        torch.ones(64, device="cuda"),
        Precision(1, 3),
        step=0.3,
        padding=(1, 1),
    )
    x = torch.rand(2, 64, 20, 20, device="cuda") * 3.5
    residual = torch.randn(2, 128, 20, 20, device="cuda").half()
    residual = residual.to(memory_format=torch.channels_last)
    geometry = Geometry((3, 3), (1, 1), (1, 1), (1, 1))
    low = planes_path.pack(x, first.weights())
    made, real = direct_path.conv2d_fused(
        *(low, first.weights(), geometry),
        reads=following.weights(),
        real=True,
        residual=residual,
    )
    assert made is not None
    assert real is not None
    whole = F.conv2d(
        low.integers().double(), first.integers().view(128, 64, 3, 3).double(), None, 1, 1
    )
    number = (
        whole * first.factor.double()[:, None, None] + first.shift.double()[:, None, None]
    ).float()
    number = (number + residual.float()).clamp_min(0)
    assert torch.equal(real, number.half())
    expected = integers(number, following.step, following.inputs)
    assert torch.equal(made.integers().float(), expected)
    assert torch.equal(made.counted().view(2, 20, 20), expected.sum(1).int())
    assert made.planes.shape[2] == padded(128) // 8


@pytest.mark.parametrize("bits", ["w1a2", "w2a2"])
def test_a_residual_network_gives_what_whole_numbers_give(bits: str) -> None:
    torch.manual_seed(0)
    body = low_bit_body(Precision.parse(bits), "cuda")
    x = torch.rand(2, 64, 56, 56, device="cuda", dtype=torch.float16)
    x = x.to(memory_format=torch.channels_last)
    assert torch.equal(body(x), body.reference(x))


def test_a_network_in_half_precision_keeps_what_kernels_read() -> None:
    layer = layer_of("w1a2", 64, 512)
    x = torch.rand(80, 512, device="cuda").half() * 3.5
    before = layer(x)
    assert torch.equal(layer.half()(x), before)
