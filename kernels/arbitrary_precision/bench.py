"""The cases of record of arbitrary precision, each beside what a user would pick instead.

Weights are packed outside. Packed inputs come with their sums; "quantise and pack inside" begins
with float16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch.nn import functional as F

from kernels.arbitrary_precision import bytes_path, launch, plan, planes_path
from kernels.arbitrary_precision.bench_network import network_calls
from kernels.arbitrary_precision.module import APLinear
from kernels.arbitrary_precision.operands import Weights
from kernels.arbitrary_precision.packed import LowBit
from kernels.arbitrary_precision.planes import from_codes
from kernels.arbitrary_precision.precision import Precision
from kernels.arbitrary_precision.reference import integer_product
from kernels.bench import (
    POLICY,
    SCOUTING,
    Case,
    Comparison,
    Turns,
    measure,
    relative_error,
)
from kernels.timing import Call, JsonValue, TimingPolicy, cold_sets, time_interleaved

SYSTEM = "arbitrary_precision"
_HALF = torch.float16
_WHOLE = ((4096, 4096, 4096), (8192, 8192, 8192), (4096, 4096, 32768))
_CHECKED = 64  # rows whose error is computed
_TRIED = 6  # tiles, from the one on that the plan prefers


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
    baselines = _cublas(m, n, k)
    ours = _fastest(weights, inputs, torch.int32, baselines)

    def error() -> float:
        return relative_error(ours.first()[:_CHECKED], _expected(weights, inputs[0]))

    moved = (m + n) * k // 8 + m * n * 4
    return ours.beside(Comparison(case, "cuBLAS fp16", ours.calls, baselines, moved, error))


def _packed(
    case: str, bits: str, size: tuple[int, int, int], against: str, *, cold: bool = True
) -> Comparison:
    m, n, k = size
    weights = _weights(bits, m, k)
    sets = cold_sets(n * (k // 4 + m * 2)) if cold else 1
    inputs = [_codes(weights, n, k) for _ in range(sets)]
    baselines = _cublas(m, n, k, cold=cold) if against == "fp16" else _int8(m, n, k)
    ours = _fastest(weights, inputs, _HALF, baselines, cold=cold)

    def error() -> float:
        return relative_error(ours.first()[:_CHECKED], _real(weights, inputs[0]))

    p = weights.precision
    moved = (m * p.weight_bits + n * p.activation_bits) * k // 8 + m * n * 2
    if against == "fp16":
        baseline = "cuBLAS fp16"
        beside = {**_int8(m, n, k), **_fp8(m, n, k), **_own_bytes(m, n, k)}
    else:
        baseline, beside = "fastest int8 GEMM torch offers", None
    return ours.beside(
        Comparison(case, baseline, ours.calls, baselines, moved, error, cold, beside)
    )


def _from_half(case: str) -> Comparison:
    m = n = k = 4096
    weights = _weights("w1a2", m, k)
    xs = [torch.rand(n, k, device="cuda", dtype=_HALF) * 4 for _ in range(cold_sets(n * k * 4))]
    baselines = _cublas(m, n, k)
    ours = _fastest(weights, xs, _HALF, baselines)

    def error() -> float:
        codes = planes_path.pack(xs[0], weights)
        return relative_error(ours.first()[:_CHECKED], _real(weights, codes))

    moved = n * k * 2 + m * k // 8 + m * n * 2
    return ours.beside(Comparison(case, "cuBLAS fp16", ours.calls, baselines, moved, error))


def _network(case: str, batch: int) -> Comparison:
    ours, baselines, error = network_calls(batch)
    baseline = "fp16 channels-last, BN folded"
    return Comparison(case, baseline, [ours], baselines, error=error, cold=False)


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


@dataclass(frozen=True, slots=True)
class _Tried:
    """Calls of the fastest tile.

    Attributes:
        calls: one for each buffer set.
        tile: in words.
        took: microseconds of each tile that was tried.
        sample_us: of a graph of the fastest baseline.
    """

    calls: list[Call]
    tile: str
    took: dict[str, JsonValue]
    sample_us: float

    def first(self) -> torch.Tensor:
        """Return the outputs for the first inputs."""
        found = self.calls[0]()
        assert isinstance(found, torch.Tensor)
        return found

    def beside(self, compared: Comparison) -> Comparison:
        """Return a comparison in which all samples last as long as the baseline's."""

        def figures() -> dict[str, JsonValue]:
            return {"plan": self.tile, "plans_us": self.took}

        return replace(compared, figures=figures, sample_us=self.sample_us)


def _fastest(
    weights: Weights,
    inputs: Sequence[LowBit | torch.Tensor],
    dtype: torch.dtype,
    baselines: Turns,
    *,
    cold: bool = True,
) -> _Tried:
    """Try the tiles that the plan prefers beside the baselines."""
    n, k = inputs[0].shape
    outs = [torch.empty(n, weights.outputs, device="cuda", dtype=dtype) for _ in inputs]
    found = plan.ranked(
        weights.precision,
        (n, weights.outputs, -(-k // plan.TILE_BITS)),
        sms=torch.cuda.get_device_properties(0).multi_processor_count,
        capability=torch.cuda.get_device_capability(),
        output_bytes=dtype.itemsize,
    )
    tried: Turns = {
        str(tile): [_product(weights, x, out, tile) for x, out in zip(inputs, outs, strict=True)]
        for tile in found[:_TRIED]
    }
    policy = SCOUTING if cold else replace(SCOUTING, cache="warm")
    with torch.no_grad():
        times = time_interleaved({**tried, **baselines}, device="cuda", policy=policy)
    took = {name: times[name].median_us for name in tried}
    best = min(took, key=took.__getitem__)
    graph_us = min(times[name].median_us for name in baselines) * POLICY.calls_per_graph
    return _Tried([*tried[best]], best, {**took}, graph_us)


def _product(
    weights: Weights, x: LowBit | torch.Tensor, out: torch.Tensor, tile: plan.Tile
) -> Callable[[], torch.Tensor]:
    """Return a call of the product by a tile, which packs real inputs first."""
    sms = torch.cuda.get_device_properties(0).multi_processor_count

    def launched(codes: LowBit) -> launch.Launch:
        rows = launch.Rows(codes.planes, codes.counted(), len(codes.planes))
        return launch.product_launch(rows, weights, out, tile, sms=sms)

    prepared = launched(x) if isinstance(x, LowBit) else None

    def run() -> torch.Tensor:
        if prepared is not None:
            prepared.run()
        elif not isinstance(x, LowBit):
            launched(planes_path.pack(x, weights)).run()
        return out

    return run


def _real(weights: Weights, codes: LowBit) -> torch.Tensor:
    """Return the exact outputs of the first rows."""
    whole = _expected(weights, codes).double()
    return whole * weights.factor.double() + weights.offset.double()


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


def _own_bytes(m: int, n: int, k: int) -> dict[str, Sequence[Call]]:
    """Return our own layers of 8 bits, rounding and scaling inside."""
    weights = _weights("w8a8", m, k)
    xs = [torch.rand(n, k, device="cuda", dtype=_HALF) * 255 for _ in range(cold_sets(n * k * 4))]
    return {"own w8a8, from fp16": [partial(bytes_path.linear, x, weights) for x in xs]}
