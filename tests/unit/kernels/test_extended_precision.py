"""Extended precision: numerics with worked numbers, the operator, layers, routing, neighbours."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from kernels.device import Device, detect
from kernels.errors import NasError
from kernels.extended_precision import functional, nearest, plan, tensor_core
from kernels.extended_precision import module as layers
from kernels.extended_precision.implementations import extended_precision_workload
from kernels.extended_precision.launch import result_shape, run_gemm
from kernels.extended_precision.op import extended_product, traced_product
from kernels.extended_precision.plan import GemmPlan
from kernels.extended_precision.reference import matmul_reference, split_product
from kernels.extended_precision.routing import ExtendedPrecision
from kernels.extended_precision.split import (
    is_wide,
    pack_image,
    split_halves,
    split_matrix,
    unpack_image,
)
from kernels.select import explain, select

HOPPER = Device("cuda", 0, "NVIDIA H100", (9, 0), 132, 80 << 30)
AMPERE = Device("cuda", 0, "NVIDIA A100", (8, 0), 108, 80 << 30)
TURING = Device("cuda", 0, "Tesla T4", (7, 5), 40, 16 << 30)
UNSCALED = GemmPlan(strips=1)
SEPARATE = plan.VARIANTS["128x128 scaled"]
NO_PROMOTION = GemmPlan(strips=1, promote=0)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def drawn(kind: str, m: int, k: int, n: int, seed: int = 7) -> tuple[Any, Any]:
    """Operands of the issue's distributions, float32."""
    random = numpy.random.default_rng(seed)
    draw: dict[str, Callable[[tuple[int, int]], Any]] = {
        "U(-1,1)": lambda shape: random.uniform(-1, 1, shape),
        "U(0,1)": lambda shape: random.uniform(0, 1, shape),
        "N(0,1)": random.standard_normal,
        "rows": random.standard_normal,
    }
    a, b = draw[kind]((m, k)), draw[kind]((k, n))
    if kind == "rows":
        a, b = a * 10.0 ** random.uniform(-6, 6, (m, 1)), b * 10.0 ** random.uniform(-6, 6, (1, n))
    return a.astype(numpy.float32), b.astype(numpy.float32)


def errors(found: Any, a: Any, b: Any) -> tuple[float, float]:
    """Relative error in the Frobenius norm, and the largest as a share of |a| |b|."""
    a, b = a.astype(numpy.float64), b.astype(numpy.float64)
    wrong = numpy.abs(found - a @ b)
    share = wrong / (numpy.abs(a) @ numpy.abs(b))
    return float(numpy.linalg.norm(wrong) / numpy.linalg.norm(a @ b)), float(share.max())


def float32_chain(a: Any, b: Any) -> Any:
    """The product as fused multiply-adds in float32, one after the other."""
    total = numpy.zeros((a.shape[0], b.shape[1]))
    for k in range(a.shape[1]):
        exact = total + a[:, k : k + 1].astype(numpy.float64) * b[k : k + 1]
        total = exact.astype(numpy.float32).astype(numpy.float64)
    return total


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Products here are small: threads would wait for each other most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# Splits (test A of the notes: hi and lo in hexadecimal, round | truncate)

SPLITS = (
    (1 / 3, "3555 0556", "3555 0555"),
    (numpy.pi, "4248 13ee", "4248 13ed"),
    (0.1, "2e66 019a", "2e66 0199"),
    (1.00048828125, "3c00 1000", "3c00 1000"),
    (1.000732421875, "3c01 8c00", "3c00 1200"),  # the sign of lo is one bit more
    (-2.7182817, "c170 0fac", "c16f 9615"),
    (0.001, "1419 8007", "1418 0009"),
    (6.1e-5, "03ff 0000", "03ff 0000"),
    (1000.123, "63d0 2fdf", "63d0 2fdf"),
    (65519.0, "7bff 4b80", "7bff 4b80"),
)


@pytest.mark.parametrize(("x", "rounded", "truncated"), SPLITS)
def test_worked_splits(x: float, rounded: str, truncated: str) -> None:
    for expected, truncate in ((rounded, False), (truncated, True)):
        halves = split_halves(torch.tensor([x]), truncate=truncate)
        words = (half.view(torch.int16).item() & 0xFFFF for half in halves)
        assert " ".join(f"{word:04x}" for word in words) == expected
        model = tensor_core.split(numpy.array([numpy.float32(x)], float), truncate=truncate)
        assert [float(half) for half in halves] == [float(half[0]) for half in model]


@settings(deadline=None, max_examples=200)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.sampled_from([0, 11]))
def test_a_split_holds_22_bits_or_all_that_halves_reach(x: float, residual_bits: int) -> None:
    scaled = split_matrix(torch.tensor([[[x]]]), residual_bits)
    upper, lower = (half[0, 0, 0].double() for half in unpack_image(scaled.image))
    value = (upper + lower * 2.0**-residual_bits) * 2.0 ** -scaled.exponents[0, 0].double()
    if int(scaled.trouble[0, 0]):
        assert 0 < abs(x) < 2.0**-86
    else:
        assert abs(float(value) - x) <= 2.0**-22 * abs(x)


def test_what_is_not_finite_leaves_nothing() -> None:
    x = torch.tensor([float("inf"), -float("inf"), float("nan"), 1e6])
    upper, lower = split_halves(x)
    assert upper.isinf().tolist() == [True, True, False, True]
    assert upper.isnan().tolist() == [False, False, True, False]
    assert lower[:3].tolist() == [0.0, 0.0, 0.0]


def test_images_are_the_swizzle_that_tensor_cores_read() -> None:
    upper = torch.arange(16 * 64, dtype=torch.int16).view(1, 16, 64)
    lower = -upper
    image = pack_image(upper, lower)
    assert image.shape == (1, 2, 16, 64)
    for row, k in ((0, 0), (3, 9), (10, 31), (15, 63)):
        unit, inside = k % 32 // 8, k % 8
        place = 8 * (unit ^ row % 8) + inside
        assert image[0, k // 32, row, place] == row * 64 + k
        assert image[0, k // 32, row, place ^ 32] == -(row * 64 + k)
    for swizzled in (True, False):
        packed = pack_image(upper, lower, swizzled=swizzled)
        back = unpack_image(packed, swizzled=swizzled)
        assert torch.equal(torch.stack(back), torch.stack((upper, lower)))


def test_trouble_names_wide_tiny_and_infinite_rows() -> None:
    x = normal(1, 5, 320)
    x[0, 1] *= 10.0 ** (normal(320, seed=1) * 5)  # wide
    x[0, 2] *= 1e-24  # small, but alike: it is scaled
    x[0, 3] *= 1e-40 / x[0, 3].abs().max()
    x[0, 4, 7] = float("nan")
    for residual_bits in (0, 11):
        trouble = split_matrix(x, residual_bits).trouble[0, :5]
        assert is_wide(trouble, 320).tolist() == [False, True, False, True, True]
        assert trouble[3] >= plan.TINY
        assert trouble[4] >= plan.NOT_FINITE


# The model of tensor cores (tests B to F)

B_LEFT = [[1 + 2**-11, 2**-12, 3, -1], [0.5, 2, -(2**-11), 1 + 2**-10]]
B_RIGHT = [[1 + 2**-11, 1], [4096, 2**-10], [2**-13, 1], [1, 2048]]


@pytest.mark.parametrize(("products", "corner"), [(3, 1.0013427734375), (4, 1.001343011856079)])
def test_worked_product(products: int, corner: float) -> None:
    a, b = numpy.array(B_LEFT, numpy.float32), numpy.array(B_RIGHT, numpy.float32)
    chosen = GemmPlan(strips=1, products=products)
    found = tensor_core.multiply(a, b, chosen, scale=False)
    expected = [[corner, -2043.99951171875], [8193.5009765625, 2050.50146484375]]
    assert found.tolist() == expected


def test_upper_halves_alone_give_the_worked_product() -> None:
    a, b = numpy.array(B_LEFT), numpy.array(B_RIGHT)
    upper = [tensor_core.split(x)[0] for x in (a, b)]
    found = tensor_core.HOPPER.accumulate(*upper, numpy.zeros((2, 2)))
    assert found.tolist() == [[1.0003662109375, -2044.0], [8193.5009765625, 2050.50146484375]]


@pytest.mark.parametrize(
    ("core", "last"), [(tensor_core.HOPPER, 25), (tensor_core.AMPERE, 24), (tensor_core.VOLTA, 23)]
)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_addends_below_the_kept_bits_vanish(
    core: tensor_core.TensorCore, last: int, sign: float
) -> None:
    """As measured on an H100: 16 products of 2^-e are added to 1 exactly up to e = 25."""
    for e in range(20, 30):
        a = numpy.full((1, 16), sign * 2.0 ** -(e // 2))
        b = numpy.full((16, 1), 2.0 ** -(e - e // 2))
        found = float(core.accumulate(a, b, numpy.ones((1, 1)))[0, 0])
        assert found == (1 + sign * 16 * 2.0**-e if e <= last else 1.0)


def test_the_model_is_exact_where_it_can_be() -> None:
    random = numpy.random.default_rng(0)
    a = random.integers(-511, 512, (20, 64)).astype(numpy.float32)
    b = random.integers(-511, 512, (64, 20)).astype(numpy.float32)
    for chosen in (*plan.VARIANTS.values(), plan.PAPER):
        for truncate in (False, True):
            found = tensor_core.multiply(a, b, chosen, truncate=truncate)
            assert numpy.array_equal(found, a @ b)


def test_the_model_treats_inf_and_nan_as_ieee_does() -> None:
    a = numpy.array([[numpy.inf, 1.0], [numpy.nan, 1.0], [0.0, 1.0]])
    b = numpy.array([[1.0, 0.0], [1.0, 1.0]])
    with numpy.errstate(invalid="ignore"):
        found = tensor_core.HOPPER.accumulate(a, b, numpy.zeros((3, 2)))
    assert numpy.array_equal(found[0], [numpy.inf, numpy.nan], equal_nan=True)
    assert numpy.isnan(found[1]).all()
    assert found[2].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("kind", ["U(-1,1)", "U(0,1)"])
def test_promotion_makes_long_sums_exact(kind: str) -> None:
    a, b = drawn(kind, 16, 2048, 16)
    assert errors(tensor_core.multiply(a, b, UNSCALED), a, b)[0] < 3e-7
    assert errors(tensor_core.multiply(a, b, SEPARATE), a, b)[0] < 3e-7
    worse = errors(tensor_core.multiply(a, b, NO_PROMOTION), a, b)[0]
    assert worse > (3e-6 if kind == "U(0,1)" else 2e-6)


@pytest.mark.parametrize("kind", ["U(-1,1)", "U(0,1)", "N(0,1)", "rows"])
@pytest.mark.parametrize("k", [64, 256, 2048, pytest.param(16384, marks=pytest.mark.slow)])
def test_errors_are_below_those_of_a_float32_chain(kind: str, k: int) -> None:
    a, b = drawn(kind, 16, k, 16)
    chain = errors(float32_chain(a, b), a, b)
    for name in ("256x128", "128x128 scaled"):
        ours = errors(tensor_core.multiply(a, b, plan.VARIANTS[name]), a, b)
        assert ours[0] <= chain[0], name
        assert ours[1] <= chain[1], name


def test_truncated_halves_are_worse_and_a_fourth_product_changes_little() -> None:
    a, b = drawn("U(0,1)", 16, 512, 16)
    rounded = errors(tensor_core.multiply(a, b, UNSCALED), a, b)[0]
    assert errors(tensor_core.multiply(a, b, UNSCALED, truncate=True), a, b)[0] > 2 * rounded
    four = GemmPlan(strips=1, products=4)
    assert errors(tensor_core.multiply(a, b, four), a, b)[0] < 1.1 * rounded


def test_small_numbers_need_the_scale() -> None:
    a, b = drawn("U(-1,1)", 16, 512, 16)
    a, b = a * numpy.float32(2**-11), b * numpy.float32(2**-11)
    assert errors(tensor_core.multiply(a, b, UNSCALED, scale=False), a, b)[0] > 1e-5
    assert errors(tensor_core.multiply(a, b, UNSCALED), a, b)[0] < 3e-7


# The product of halves in PyTorch


@pytest.mark.parametrize("kind", ["U(-1,1)", "U(0,1)", "N(0,1)", "rows"])
@pytest.mark.parametrize("options", [{}, {"residual_bits": 0}, {"products": 4}])
def test_the_reference_is_as_exact_as_float32(kind: str, options: dict[str, int]) -> None:
    a, b = drawn(kind, 16, 1024, 16)
    found = split_product(torch.from_numpy(a), torch.from_numpy(b), **options)
    ours, chain = errors(found.numpy(), a, b), errors(float32_chain(a, b), a, b)
    assert ours[0] <= 1.1 * chain[0]
    assert ours[1] <= 1.1 * chain[1]


def test_the_reference_gives_inf_and_nan_as_float32_does() -> None:
    a, b = normal(1, 9, 70), normal(1, 70, 8, seed=1)
    a[0, 1, 3], a[0, 2, 5], a[0, 4, 6], b[0, 3, 2] = float("inf"), float("nan"), -float("inf"), 0.0
    a[0, 6] *= 1e36
    found, plain = split_product(a, b), a @ b
    torch.testing.assert_close(found, plain, equal_nan=True)
    assert plain.isnan().any()
    assert plain.isinf().any()


def test_wide_rows_are_multiplied_as_they_are() -> None:
    spread = 10.0 ** torch.linspace(-9, 9, 96)
    a, b = normal(5, 96) * spread, normal(96, 4, seed=1) / spread[:, None]
    found = split_product(a[None], b[None])[0]
    exact = matmul_reference(a, b)
    scale = a.abs().double() @ b.abs().double()
    assert ((found - exact).abs() / scale).max() < 1e-6


# Plans


def test_every_variant_can_be_a_kernel() -> None:
    for chosen in (*plan.VARIANTS.values(), plan.PAPER, plan.NEAREST):
        assert plan.refuses(chosen) is None
    assert len(set(plan.VARIANTS.values())) == len(plan.VARIANTS)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"strips": 2, "columns": 192}, "accumulators"),
        ({"stages": 5}, "shared memory"),
        ({"residual_bits": 11}, "one scale"),
        ({"promote": 64}, "several strips"),
        ({"strips": 1, "schedule": "separate", "promote": 0}, "promotes after 32"),
        ({"products": 2}, "3 or 4 products"),
        ({"columns": 96}, "64, 128 or 192"),
        ({"cluster_n": 4}, "clusters"),
        ({"promote": 40}, "multiples of 32"),
    ],
)
def test_plans_that_cannot_be_say_why(changes: dict[str, Any], reason: str) -> None:
    refusal = plan.refuses(GemmPlan(**changes))
    assert refusal is not None
    assert reason in refusal


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((4096, 4096, 1, 4096), ("256x128", 1)),
        ((16384, 1024, 1, 1024), ("256x128", 1)),
        ((512, 512, 64, 512), ("256x128", 1)),
        ((2048, 2048, 1, 2048), ("256x128", 1)),
        ((512, 512, 1, 16384), ("256x128", 16)),
        ((64, 64, 1, 64), ("128x64", 1)),
    ],
)
def test_the_rule_fills_the_gpu(
    shape: tuple[int, int, int, int], expected: tuple[str, int]
) -> None:
    m, n, batch, k = shape
    chosen, parts = plan.choose(m, n, batch, k // 32, sms=132)
    assert (f"{chosen.rows}x{chosen.columns}", parts) == expected
    assert plan.refuses(chosen) is None
    assert plan.refuses(plan.choose(m, n, batch, k // 32, sms=132, residual_bits=11)[0]) is None
    down, across = chosen.clusters(m, n)
    assert down * chosen.cluster_m * chosen.rows >= m
    assert across * chosen.cluster_n * chosen.columns >= n
    assert chosen.blocks(m, n, batch, 132) % chosen.cluster == 0
    assert chosen.blocks(m, n, batch, 132) <= 132


@pytest.mark.parametrize("k", [1, 128, 129, 4096, 4097, 1 << 20])
def test_rows_are_split_by_whole_warps(k: int) -> None:
    chosen = plan.split_plan(k)
    assert 8 % chosen.warps == 0
    assert 128 * chosen.warps * chosen.values >= min(k, 8192)


def test_operands_that_do_not_fit() -> None:
    a, b = split_matrix(normal(2, 3, 40)), split_matrix(normal(3, 4, 40))
    with pytest.raises(NasError, match=r"\(2, 3, 40\) and \(3, 4, 40\)"):
        result_shape(a, b)
    with pytest.raises(NasError, match="residual scales of 0 and 11"):
        result_shape(a, split_matrix(normal(1, 4, 40), 11))
    flat = split_matrix(normal(1, 4, 40), swizzled=False)
    with pytest.raises(NasError, match="swizzled images"):
        run_gemm(flat, flat, plan=plan.BALANCED)


# Dispatch


@pytest.mark.parametrize(
    ("device", "able", "chosen"),
    [
        (HOPPER, {"torch", "reference", "hopper", "portable"}, "hopper"),
        (AMPERE, {"torch", "reference", "portable"}, "torch"),
        (TURING, {"torch", "reference"}, "torch"),
        (detect("cpu"), {"torch", "reference"}, "torch"),
    ],
)
def test_what_was_measured_is_chosen_and_the_rest_by_name(
    device: Device, able: set[str], chosen: str
) -> None:
    work = extended_precision_workload(1, 64, 64, 64)
    choices = explain(work, device).choices
    assert {c.implementation.name for c in choices if c.status != "refused"} == able
    assert select(work, device).name == chosen
    for name in able:
        assert select(work, device, force=name).name == name
    for name in {"hopper", "portable"} - able:
        with pytest.raises(NasError, match="needs a"):
            select(work, device, force=name)


# The operator. On a CPU the kernels' place is taken by the product of halves in PyTorch.


@pytest.fixture
def by_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_KERNEL_EXTENDED_PRECISION", "reference")


SHAPES = (
    ((3, 4), (4, 5)),
    ((2, 3, 4), (4, 5)),
    ((2, 1, 3, 4), (7, 4, 5)),
    ((3, 4), (6, 4, 5)),
    ((1, 3, 4), (1, 4, 2)),
    ((0, 4), (4, 3)),
    ((3, 0), (0, 2)),
    ((2, 3, 4), (4,)),
    ((4,), (4, 2)),
)
Shape = tuple[int, ...]


def both_gradients(
    ours: Callable[..., torch.Tensor], theirs: Callable[..., torch.Tensor], *tensors: torch.Tensor
) -> None:
    """Compare results and gradients of two functions."""
    tensors = tuple(x.requires_grad_() for x in tensors)
    y, expected = ours(*tensors), theirs(*tensors)
    torch.testing.assert_close(y, expected)
    dy = normal(*expected.shape, seed=9)
    pairs = zip(
        torch.autograd.grad(y, tensors, dy), torch.autograd.grad(expected, tensors, dy), strict=True
    )
    for found, wanted in pairs:
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_matmul_and_its_gradients(by_halves: None, a: Shape, b: Shape) -> None:
    both_gradients(functional.matmul, torch.matmul, normal(*a), normal(*b, seed=1))


@pytest.mark.parametrize(("turn_a", "turn_b"), list(product((False, True), repeat=2)))
def test_bmm_of_any_layout(by_halves: None, turn_a: bool, turn_b: bool) -> None:
    a = normal(3, 6, 5).mT if turn_a else normal(3, 5, 6)
    b = normal(3, 4, 6, seed=1).mT if turn_b else normal(3, 6, 4, seed=1)
    both_gradients(functional.bmm, torch.bmm, a, b)
    strided = normal(3, 5, 24)[:, :, ::4]
    both_gradients(functional.bmm, torch.bmm, strided, b.detach())


@pytest.mark.parametrize("bias", [(), (4,), (1, 4), (5, 1), (5, 4)])
def test_addmm_with_what_broadcasts(by_halves: None, bias: Shape) -> None:
    def run(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        return lambda added, a, b: function(added, a, b, beta=-0.5, alpha=2.0)

    tensors = normal(*bias, seed=2), normal(5, 6), normal(6, 4, seed=1)
    both_gradients(run(functional.addmm), run(torch.addmm), *tensors)
    batched = normal(*bias, seed=2), normal(2, 5, 6), normal(2, 6, 4, seed=1)
    both_gradients(run(functional.baddbmm), run(torch.baddbmm), *batched)


def test_beta_zero_does_not_read_what_is_added(by_halves: None) -> None:
    added = torch.full((5, 4), float("nan"))
    found = functional.addmm(added, normal(5, 6), normal(6, 4), beta=0.0)
    assert found.isfinite().all()


def test_linear_and_its_gradients(by_halves: None) -> None:
    weight, bias = normal(6, 8, seed=1), normal(6, seed=2)
    both_gradients(functional.linear, F.linear, normal(2, 3, 8), weight, bias)
    both_gradients(functional.linear, F.linear, normal(5, 8), weight.detach())
    layer = nn.Linear(8, 6)
    functional.linear(normal(5, 8), layer.weight, layer.bias).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.is_contiguous()


@pytest.mark.parametrize("stride", [(1, 1), (2, 1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pointwise_convolution(by_halves: None, stride: tuple[int, int], layout: Any) -> None:
    x = normal(2, 8, 5, 6).contiguous(memory_format=layout)
    weight, bias = normal(6, 8, 1, 1, seed=1), normal(6, seed=2)
    tensors = x, weight, bias

    def ours(*tensors: torch.Tensor) -> torch.Tensor:
        return functional.pointwise_conv2d(*tensors, stride=stride)

    both_gradients(ours, partial(F.conv2d, stride=stride), *tensors)
    assert ours(*tensors).is_contiguous(memory_format=layout)


def test_second_derivatives(by_halves: None) -> None:
    a, b = normal(1, 3, 4).requires_grad_(), normal(1, 4, 2, seed=1).requires_grad_()

    def twice(multiply: Callable[..., torch.Tensor]) -> torch.Tensor:
        (da,) = torch.autograd.grad(multiply(a, b).pow(3).sum(), a, create_graph=True)
        return torch.autograd.grad(da.square().sum(), b)[0]

    torch.testing.assert_close(twice(functional.bmm), twice(torch.bmm))


def test_opcheck() -> None:
    a, b = normal(2, 3, 4).requires_grad_(), normal(1, 4, 5, seed=1).requires_grad_()
    added = normal(1, 1, 5, seed=2).requires_grad_()
    torch.library.opcheck(traced_product, (a, b, added, 2.0, 0.5, "reference"))


def test_compiled_code_has_the_operator_whole(by_halves: None) -> None:
    torch._dynamo.reset()
    layer = layers.Linear(8, 6)
    x = normal(4, 8)
    found = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(found, F.linear(x, layer.weight, layer.bias))
    found.sum().backward()
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, x.sum(0).expand(6, 8))


def test_other_types_and_autocast_are_torchs(by_halves: None) -> None:
    half = normal(3, 4).bfloat16()
    assert functional.matmul(half, half.T).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert functional.matmul(normal(3, 4), normal(4, 2)).dtype == torch.bfloat16
    assert functional.implementation_of(normal(1).double()) == "torch"
    assert functional.implementation_of(torch.empty(1, device="meta")) == "torch"


def test_a_cpu_takes_torchs_own_product() -> None:
    a, b = normal(33, 70), normal(70, 20, seed=1)
    assert torch.equal(functional.matmul(a, b), a @ b)
    assert torch.equal(extended_product(a[None], b[None], None, 1.0, 1.0, "torch")[0], a @ b)


# Layers


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Conv2d(8, 4, 1, stride=2, bias=False),
        nn.Flatten(),
        nn.Linear(4 * 9, 5),
    )


def test_layers_are_put_into_a_copy(by_halves: None) -> None:
    model = network()
    changed = layers.to_extended_precision(model)
    kinds = [type(layer).__module__ for layer in changed]
    assert [kind == layers.__name__ for kind in kinds] == [True, False, False, True, False, True]
    assert type(model[0]) is nn.Conv2d
    x = normal(2, 3, 6, 6)
    torch.testing.assert_close(changed(x), model(x))
    changed.load_state_dict(model.state_dict())
    assert changed[5].weight is not model[5].weight  # type: ignore[union-attr]


def test_a_model_without_such_layers_is_refused() -> None:
    with pytest.raises(NasError, match="Nothing to replace"):
        layers.to_extended_precision(nn.Conv2d(3, 3, 3))
    with pytest.raises(NasError, match="plain 1x1 convolution"):
        layers.PointwiseConv2d(3, 3, 3)


def test_the_split_of_a_weight_is_kept_until_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    def split(x: torch.Tensor, *, swizzled: bool) -> Any:
        counted.append(x.shape[1])
        return split_matrix(x, swizzled=swizzled)

    def multiply(a: Any, b: Any, added: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
        return torch.baddbmm(added, a.source, b.source.mT)

    monkeypatch.setattr(layers, "implementation_of", lambda *tensors: "hopper")
    monkeypatch.setattr(layers, "run_split", split)
    monkeypatch.setattr(layers, "multiply_split", multiply)
    layer, x = layers.Linear(8, 6), normal(4, 8)
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))
        assert counted == [4, 6, 4, 4]
        layer.weight.mul_(2.0)
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))
        assert counted[4:] == [4, 6]
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert "_kept" not in copied.__dict__
    with torch.inference_mode():
        fresh = layers.Linear(8, 6)
        torch.testing.assert_close(fresh(x), F.linear(x, fresh.weight, fresh.bias))


# Routing


class Block(nn.Module):
    """A vision transformer's block, as its papers have it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixing = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.mixing(self.first(x)).unflatten(-1, (3, self.heads, -1)).unbind(2)
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
        mixed = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v)
        x = x + self.out(mixed.flatten(2))
        y: torch.Tensor = x + self.narrow(F.gelu(self.wide(self.second(x))))
        return y


def gradients(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    model(x).square().mean().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_a_transformer_block_is_routed_forward_and_backward(by_halves: None) -> None:
    torch.manual_seed(0)
    model, x = Block(32, 4), normal(3, 10, 32)
    plain = gradients(model, x)
    with ExtendedPrecision(always=True) as mode:
        routed = gradients(model, x)
    # 4 linear layers and 2 products of attention: one product forward, two backward each
    assert mode.routed["aten.addmm.default"] == 4
    assert mode.routed["aten.mm.default"] == 8
    assert mode.routed["aten.bmm.default"] == 6
    for found, expected in zip(routed, plain, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(a, b) for a, b in zip(routed, plain, strict=True))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pointwise_convolutions_are_routed(by_halves: None, layout: Any) -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 6, 1, bias=False))
    x = normal(2, 4, 5, 6).contiguous(memory_format=layout)
    plain = gradients(model, x)
    with ExtendedPrecision(always=True) as mode:
        routed = gradients(model, x)
        assert model(x).is_contiguous(memory_format=layout)
    assert mode.routed["aten.convolution.default"] == 4
    assert mode.routed["aten.convolution_backward.default"] == 2
    for found, expected in zip(routed, plain, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_what_comes_whole_in_inference_mode_is_routed(by_halves: None) -> None:
    model, x = Block(32, 4), normal(3, 10, 32)
    with torch.inference_mode(), ExtendedPrecision(always=True) as mode:
        found = model(x)
    assert mode.routed.total() == 6
    torch.testing.assert_close(found, model(x))


def test_small_and_foreign_products_stay_with_torch(by_halves: None) -> None:
    with ExtendedPrecision() as mode:
        normal(40, 80) @ normal(80, 20)
        normal(900, 900).double() @ normal(900, 900).double()
    assert not mode.routed
    with ExtendedPrecision() as mode:
        normal(900, 900) @ normal(900, 900)
    assert mode.routed.total() == 1


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 4096, 4096, 4096), True),
        ((64, 512, 512, 512), True),
        ((1, 12608, 768, 3072), True),
        ((768, 197, 64, 197), False),  # attention: as many bytes as work
        ((1, 256, 256, 256), False),
        ((1, 8192, 4096, 1), False),
    ],
)
def test_what_pays_by_estimate(shape: tuple[int, int, int, int], expected: bool) -> None:
    assert plan.pays(*shape) == expected


def test_training_by_halves_follows_float32(
    by_halves: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """12 steps of Adam on real digits: the losses agree far below what a step changes."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x = torch.from_numpy(data.data[:128]).float() / 16
    labels = torch.from_numpy(data.target[:128])

    def losses() -> list[float]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 96), nn.GELU(), nn.Linear(96, 10))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        found = []
        for _ in range(12):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), labels)
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    plain = losses()
    with ExtendedPrecision(always=True) as mode:
        routed = losses()
    assert mode.routed["aten.mm.default"] == 12 * 3
    assert plain[-1] < plain[0] / 2
    assert max(abs(a - b) / b for a, b in zip(routed, plain, strict=True)) < 1e-4


# Neighbours


@pytest.mark.parametrize("routed", [False, True])
def test_nearest_neighbours_equal_float64(routed: bool, request: pytest.FixtureRequest) -> None:
    if routed:
        request.getfixturevalue("by_halves")
    points, queries = normal(200, 7), normal(31, 7, seed=1)
    exact = torch.cdist(queries.double(), points.double()).square().topk(5, largest=False)
    found = nearest.nearest_neighbours(queries, points, 5)
    assert torch.equal(found.indices, exact.indices)
    torch.testing.assert_close(found.distances, exact.values.float(), rtol=1e-4, atol=1e-4)
    centres = nearest.nearest_centres(queries, points)
    assert torch.equal(centres.indices, exact.indices[:, 0])
    torch.testing.assert_close(centres.distances, exact.values[:, 0].float(), rtol=1e-4, atol=1e-4)


def test_chunks_of_distances_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    points, queries = normal(50, 3), normal(20, 3, seed=1)
    whole = nearest.nearest_neighbours(queries, points, 3)
    monkeypatch.setattr(nearest, "_CHUNK_BYTES", 4 * 50 * 6)
    parts = nearest.nearest_neighbours(queries, points, 3)
    assert torch.equal(whole.indices, parts.indices)
    assert torch.equal(nearest.nearest_centres(queries, points).indices, whole.indices[:, 0])


def test_k_means_finds_separate_clusters_and_its_inertia_falls() -> None:
    centres = 20 * normal(6, 4)
    truth = torch.arange(300) % 6
    x = centres[truth] + normal(300, 4, seed=1)
    best = min((nearest.kmeans(x, 6, seed=seed) for seed in range(20)), key=lambda c: c.inertia[-1])
    assert all(a >= b for a, b in zip(best.inertia, best.inertia[1:], strict=False))
    for cluster in range(6):
        assert len(best.labels[truth == cluster].unique()) == 1
    assert torch.equal(best.labels, nearest.kmeans(x, 6, seed=0).labels) or best.inertia[-1] > 0
    means = torch.stack([x[best.labels == c].mean(0) for c in range(6)])
    torch.testing.assert_close(best.centres, means)


def test_a_centre_without_points_stays() -> None:
    x = torch.tensor([[0.0], [0.0], [1.0]])
    found = nearest.kmeans(x, 3, rounds=5)
    assert sorted(found.centres.flatten().tolist()) == [0.0, 0.0, 1.0]
    assert found.inertia[-1] == 0.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nearest.kmeans(normal(3, 2), 4), "1 to 3 clusters, got 4"),
        (lambda: nearest.nearest_neighbours(normal(3, 2), normal(3, 2), 0), "1 to 3 neighbours"),
        (lambda: nearest.nearest_centres(normal(3, 2), normal(3, 4)), r"\(3, 2\).*\(3, 4\)"),
        (lambda: nearest.nearest_centres(normal(3, 2), normal(0, 2)), "at least one"),
        (lambda: nearest.nearest_centres(normal(3, 2), normal(2, 2).double()), "float64"),
    ],
)
def test_neighbours_that_cannot_be(call: Callable[[], object], message: str) -> None:
    with pytest.raises(NasError, match=message):
        call()
