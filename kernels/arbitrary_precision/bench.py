"""The cases of record of arbitrary precision, each beside what a user would pick instead.

Weights are packed outside. Packed inputs come with their sums; "quantise and pack inside" begins
with float16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch.nn import functional as F

from kernels.arbitrary_precision import launch, plan, planes_path
from kernels.arbitrary_precision.bench_network import network_calls
from kernels.arbitrary_precision.module import APLinear
from kernels.arbitrary_precision.operands import Weights
from kernels.arbitrary_precision.packed import LowBit
from kernels.arbitrary_precision.planes import from_codes
from kernels.arbitrary_precision.precision import Precision
from kernels.arbitrary_precision.reference import integer_product
from kernels.bench import POLICY, Case, Comparison, measure, relative_error
from kernels.timing import Call, JsonValue, TimingPolicy, cold_sets

SYSTEM = "arbitrary_precision"
_HALF = torch.float16
_WHOLE = ((4096, 4096, 4096), (8192, 8192, 8192), (4096, 4096, 32768))
_CHECKED = 64  # rows whose error is computed


def bench(only: str = "", *, commit: str = "", policy: TimingPolicy = POLICY) -> list[JsonValue]:
    """Measure the cases of record; see :func:`kernels.bench.measure`."""
    return measure(SYSTEM, _cases(), only=only, commit=commit, policy=policy)


def case_names() -> list[str]:
    """Return the names of the cases of record."""
    return [name for name, _ in _cases()]


def _cases() -> Iterator[Case]:
    for m, n, k in _WHOLE:
        name = f"gemm w1a1 M{m} N{n} K{k} int32 out"
        yield name, partial(_whole, name, m, n, k)
    for bits in ("w1a2", "w2a2"):
        name = f"gemm {bits} M4096 N4096 K4096 fp16 out, packed inputs"
        yield name, partial(_packed, name, bits, (4096, 4096, 4096), "fp16")
        name += ", against int8"
        yield name, partial(_packed, name, bits, (4096, 4096, 4096), "int8")
    name = "gemm w1a2 M4096 N4096 K4096 fp16 out, quantise and pack inside"
    yield name, partial(_from_half, name)
    for m, k in ((4096, 4096), (1024, 1024)):
        name = f"gemm w1a2 M{m} N64 K{k} fp16 out, warm"
        yield name, partial(_packed, name, "w1a2", (m, 64, k), "fp16", cold=False)
    for batch in (8, 128):
        name = f"resnet18 w1a2 B{batch} 224x224"
        yield name, partial(_network, name, batch)


def _whole(case: str, m: int, n: int, k: int) -> Comparison:
    weights = _weights("w1a1", m, k)
    inputs = [_codes(weights, n, k) for _ in range(cold_sets(n * (k // 8 + m * 4)))]
    calls = [_product(weights, x, "integers") for x in inputs]

    def error() -> float:
        found = calls[0]()
        assert isinstance(found, torch.Tensor)
        return relative_error(found[:_CHECKED], _expected(weights, inputs[0]))

    moved = (m + n) * k // 8 + m * n * 4
    return Comparison(case, "cuBLAS fp16", calls, _cublas(m, n, k), moved, error)


def _packed(
    case: str, bits: str, size: tuple[int, int, int], against: str, *, cold: bool = True
) -> Comparison:
    m, n, k = size
    weights = _weights(bits, m, k)
    sets = cold_sets(n * (k // 4 + m * 2)) if cold else 1
    inputs = [_codes(weights, n, k) for _ in range(sets)]
    calls = [_product(weights, x, "real") for x in inputs]

    def error() -> float:
        found = calls[0]()
        assert isinstance(found, torch.Tensor)
        whole = _expected(weights, inputs[0]).double()
        real = whole * weights.factor.double() + weights.offset.double()
        return relative_error(found[:_CHECKED], real)

    p = weights.precision
    moved = (m * p.weight_bits + n * p.activation_bits) * k // 8 + m * n * 2
    if against == "fp16":
        beside = {**_int8(m, n, k), **_fp8(m, n, k)}
        baselines = _cublas(m, n, k, cold=cold)
        return Comparison(case, "cuBLAS fp16", calls, baselines, moved, error, cold, beside)
    baselines = _int8(m, n, k)
    return Comparison(case, "fastest int8 GEMM torch offers", calls, baselines, moved, error, cold)


def _from_half(case: str) -> Comparison:
    m = n = k = 4096
    weights = _weights("w1a2", m, k)
    xs = [torch.rand(n, k, device="cuda", dtype=_HALF) * 4 for _ in range(cold_sets(n * k * 4))]
    calls = [partial(planes_path.linear, x, weights, path="wgmma") for x in xs]

    def error() -> float:
        found = calls[0]()
        codes = planes_path.pack(xs[0], weights)
        real = _expected(weights, codes).double() * weights.factor.double()
        return relative_error(found[:_CHECKED], real + weights.offset.double())

    moved = n * k * 2 + m * k // 8 + m * n * 2
    return Comparison(case, "cuBLAS fp16", calls, _cublas(m, n, k), moved, error)


def _network(case: str, batch: int) -> Comparison:
    ours, baselines, error = network_calls(batch)
    return Comparison(
        case, "fp16 channels-last, BN folded", [ours], baselines, error=error, cold=False
    )


def _weights(bits: str, m: int, k: int) -> Weights:
    precision = Precision.parse(bits)
    codes = torch.randint(0, 1 << precision.weight_bits, (m, k), device="cuda", dtype=torch.uint8)
    scale = torch.rand(m, device="cuda") + 0.5
    bias = torch.randn(m, device="cuda")
    integers = from_codes(codes, precision.weights)
    layer = APLinear.of(integers, scale / k**0.5, precision, bias=bias)
    return layer.weights()


def _codes(weights: Weights, n: int, k: int) -> LowBit:
    highest = (1 << weights.precision.activation_bits) - 0.5
    return planes_path.pack(torch.rand(n, k, device="cuda") * highest, weights)


def _product(weights: Weights, x: LowBit, kind: str) -> Callable[[], torch.Tensor]:
    rows = launch.Rows(x.planes, x.sums, len(x.planes))
    sms = torch.cuda.get_device_properties(0).multi_processor_count
    capability = torch.cuda.get_device_capability()
    depth = -(-weights.features // plan.TILE_BITS)
    size = (rows.count, weights.outputs, depth)
    dtype = torch.int32 if kind == "integers" else _HALF
    tile = plan.choose(
        weights.precision, *size, sms=sms, capability=capability, output_bytes=dtype.itemsize
    )
    assert tile is not None
    out = torch.empty(rows.count, weights.outputs, device="cuda", dtype=dtype)
    prepared = launch.product_launch(rows, weights, launch.Outputs(kind, out), tile, sms=sms)

    def run() -> torch.Tensor:
        prepared.run()
        return out

    return run


def _expected(weights: Weights, x: LowBit) -> torch.Tensor:
    """Return the exact product of the first rows, some outputs at a time."""
    planes = x.planes[:_CHECKED]
    encodings = (weights.precision.weights, weights.inputs)
    parts = [
        integer_product(part, planes, *encodings, weights.features)
        for part in torch.split(weights.planes, 64)
    ]
    return torch.cat(parts, 1)


def _cublas(m: int, n: int, k: int, *, cold: bool = True) -> dict[str, Sequence[Call]]:
    sets = cold_sets(2 * (m * k + n * k)) if cold else 1
    w = torch.randn(m, k, device="cuda", dtype=_HALF)
    xs = [torch.randn(n, k, device="cuda", dtype=_HALF) for _ in range(sets)]
    return {"linear": [partial(F.linear, x, w) for x in xs]}


def _int8(m: int, n: int, k: int) -> dict[str, Sequence[Call]]:
    """Return int8 products by torch, weights in both orders."""
    w = torch.randint(-127, 128, (m, k), device="cuda", dtype=torch.int8)
    xs = [
        torch.randint(-127, 128, (n, k), device="cuda", dtype=torch.int8)
        for _ in range(cold_sets(n * k + m * n * 4))
    ]
    ordered = w.t().contiguous()
    return {
        "int8 column-major": [partial(torch._int_mm, x, w.t()) for x in xs],
        "int8 row-major": [partial(torch._int_mm, x, ordered) for x in xs],
    }


def _fp8(m: int, n: int, k: int) -> dict[str, Sequence[Call]]:
    kind = torch.float8_e4m3fn
    w = torch.randn(m, k, device="cuda", dtype=_HALF).to(kind).t()
    one = torch.ones((), device="cuda")
    xs = [torch.randn(n, k, device="cuda", dtype=_HALF).to(kind) for _ in range(cold_sets(n * k))]
    multiply = partial(torch._scaled_mm, scale_a=one, scale_b=one, out_dtype=_HALF)
    return {"fp8": [partial(multiply, x, w) for x in xs]}
