"""The variant table: what pays at a place is what the clock says, and the rest says why not."""

import json

import pytest
import torch

from evaluators.latency import operands, variants
from evaluators.latency.kinds import KINDS, place_of
from evaluators.latency.latency import LatencyEvaluator
from evaluators.latency.layers import LayerTime
from evaluators.latency.operands import OPERANDS
from evaluators.latency.uncertainty import margin
from evaluators.latency.variants import VariantTable, measure_variants
from kernels.arbitrary_precision.implementations import conv_workload, linear_workload
from kernels.arbitrary_precision.precision import Precision
from kernels.device import Device, detect
from kernels.environment import CACHE_VARIABLE
from kernels.errors import NasError
from kernels.select import implementations, load, select
from kernels.sliding_channel.implementations import OP
from kernels.timing import TimingPolicy
from search_spaces.architecture import Architecture
from search_spaces.lower import lower

CPU = detect("cpu")
FAST = TimingPolicy(
    cache="warm", threads=1, min_sample_us=200, warmup_min_seconds=0.01, warmup_max_seconds=0.1
)
SLIDING = Architecture.parse("input 64x16x16; sliding 64 cg2 bn relu")
PLAIN = Architecture.parse("input 64x32x32; conv 64 k3 bn relu")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))


def rows_of(net, family):
    table = measure_variants([net, net], LatencyEvaluator(CPU, policy=FAST))
    return table, {row.name: row for row in table.rows if row.family == family}


def test_every_implementation_is_timed_or_says_why_not():
    table, rows = rows_of(SLIDING, "implementation")
    assert list(rows) == ["dense", "cuda", "grouped", "reference"]
    assert rows["cuda"].time is None
    assert rows["cuda"].reason == "needs a GPU of compute capability 8.0 or later"
    assert not rows["cuda"].offered
    assert all(rows[name].time.median_us > 0 for name in ("dense", "grouped", "reference"))
    assert VariantTable.from_json(json.loads(json.dumps(table.to_json()))) == table
    assert str(CPU) in str(table)


def test_the_kinds_of_convolution_stand_beside_each_other():
    table, rows = rows_of(PLAIN, "kind")
    assert list(rows) == ["standard", "separable", "sliding(cg=2,co=0.5)", "sliding(cg=4,co=0.5)"]
    assert all(row.time is not None for row in rows.values())
    (workload,) = {row.workload for row in table.rows}
    assert "standard" in table.offered(workload)


def times(dense, other, disturbed=(), least=0.0):
    def made(low, high):
        return LayerTime((low + high) / 2, low, high, 30, disturbed)

    return variants._judged(made(*other), made(*dense), "dense", least)


@pytest.mark.parametrize(
    ("other", "offered", "word"),
    [
        ((4.0, 8.9), True, "faster"),
        ((8.0, 9.1), False, "no faster beyond the spread"),
        ((10.5, 12.0), False, "no faster beyond the spread"),
        ((11.1, 12.0), False, "slower"),
    ],
)
def test_only_what_is_faster_beyond_both_spreads_is_offered(other, offered, word):
    found, reason = times((9.0, 11.0), other)
    assert found is offered
    assert reason.startswith(f"{word}: ")


def test_one_capture_against_another_must_differ_by_more_than_captures_do():
    assert margin("cpu") == 0.0
    assert times((16.2, 16.3), (15.9, 16.0))[0]  # 1.5 % on a GPU, samples close together
    found, reason = times((16.2, 16.3), (15.9, 16.0), least=margin("cuda"))
    assert not found
    assert reason.startswith("no faster beyond the spread: ")
    assert times((16.2, 16.3), (15.0, 15.1), least=margin("cuda"))[0]
    assert times((16.2, 16.3), (17.0, 17.1), least=margin("cuda"))[1].startswith("slower: ")


def test_a_disturbed_measurement_offers_nothing():
    assert times((9.0, 11.0), (1.0, 2.0), ("noise",)) == (
        False,
        "the measurement was disturbed: noise",
    )


@pytest.mark.parametrize(
    ("result", "reason"),
    [(float("nan"), "not finite"), (RuntimeError("kernel lost\nmore"), "kernel lost")],
)
def test_an_implementation_that_fails_is_left_out_with_the_reason(monkeypatch, result, reason):
    def make(workload, implementation, device):
        if implementation.name != "grouped":
            return operands.sliding_channel(workload, implementation, device)

        def run():
            if isinstance(result, Exception):
                raise result
            return torch.full((2,), result)

        return run

    monkeypatch.setitem(OPERANDS._entries, OP, make)
    _, rows = rows_of(SLIDING, "implementation")
    assert rows["grouped"].time is None
    assert not rows["grouped"].offered
    assert reason in rows["grouped"].reason
    assert "\n" not in rows["grouped"].reason
    assert rows["reference"].time is not None


def test_every_operator_with_implementations_has_operands_that_compute_the_same():
    (step,) = lower(SLIDING, CPU, batch=2).steps
    results = {}
    for entry in implementations(step.workload.op):
        if entry.name != "cuda":
            results[entry.name] = OPERANDS.get(step.workload.op)(step.workload, entry, CPU)()
            assert load(entry) is not None
    expected = results.pop("reference")
    assert expected.shape == step.workload.output
    for result in results.values():
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bits", ["w1a1", "w1a2", "w4a4", "w8a8"])
def test_low_bit_layers_have_operands_of_the_sizes_that_were_asked_for(bits: str) -> None:
    precision = Precision.parse(bits)
    workloads = [
        linear_workload((6, 40), 24, precision),
        conv_workload((2, 8, 9, 9), (2, 16, 5, 5), (3, 3), precision),
        conv_workload((2, 8, 8, 8), (2, 16, 8, 8), (1, 1), precision),
    ]
    for workload in workloads:
        run = OPERANDS.get(workload.op)(workload, select(workload, CPU), CPU)
        assert run().shape == workload.output
        assert bool(run().any())


@pytest.mark.parametrize(
    ("net", "kinds"),
    [
        ("input 8x8x8; conv 8 k3 s2", ["separable", "sliding(cg=2,co=0.5)", "standard"]),
        ("input 8x8x8; conv 16", ["sliding(cg=2,co=0.5)", "standard"]),
        ("input 6x8x8; conv 16 s2", ["standard"]),
        ("input 8x8x8; conv 8 k3 g8", []),
        ("input 8x8x8; conv 8 k3 p0", []),
        ("input 8x8x8; conv 8 k3 d2", []),
        ("input 8x8x8; gap", []),
    ],
)
def test_a_place_takes_the_kinds_that_fit_and_keep_its_shape(net, kinds):
    architecture = Architecture.parse(net)
    gpu = Device("cuda", 0, "a card", (9, 0), 132, 1 << 36)
    workload = lower(architecture, gpu, batch=4).steps[-1].workload
    place = place_of(workload)
    found = []
    for name, kind in KINDS if place else ():
        try:
            written = kind(place)
        except NasError:
            continue
        assert written.output.shape == architecture.output.shape
        found.append(name)
    assert [name for name in found if "cg=4" not in name] == kinds


def test_a_foreign_document_is_refused():
    with pytest.raises(NasError, match="no table of variants"):
        VariantTable.from_json({"rows": [{"time": None}]})
