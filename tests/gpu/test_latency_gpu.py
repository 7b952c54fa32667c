"""The latency harness on a GPU: repeatable, honest about company, in agreement with others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random
from statistics import median

import pytest
import torch

from evaluators.energy import EnergyEvaluator
from evaluators.latency.latency import LatencyEvaluator
from evaluators.latency.subject import prepare
from evaluators.latency.variants import measure_variants
from evaluators.memory import PeakMemoryEvaluator
from evaluators.protocol import EvaluationError
from kernels.device import Device, detect
from kernels.environment import CACHE_VARIABLE
from kernels.timing import captured
from search_spaces.architecture import Architecture

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

NET = Architecture.parse(
    "input 3x64x64; conv 64 k3 bn relu; conv 128 k3 s2 bn relu; sliding 128 cg2 bn relu; "
    "conv 256 k3 s2 bn relu; gap; flatten; linear 10"
)
HAMMER = """
import torch
a = torch.randn(8192, 8192, device="cuda", dtype=torch.half)
torch.mm(a, a)
torch.cuda.synchronize()
print("go", flush=True)
while True:
    for _ in range(20):
        torch.mm(a, a)
    torch.cuda.synchronize()
"""


@pytest.fixture
def gpu() -> Device:
    return detect("cuda")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))


@pytest.mark.parametrize(("batch", "dtype"), [(1, "float32"), (32, "float16")])
def test_two_measurements_of_a_network_agree(gpu: Device, batch: int, dtype: str) -> None:
    evaluator = LatencyEvaluator(gpu, batch=batch, dtype=dtype)
    first, second = (evaluator.evaluate(NET)[0] for _ in range(2))
    assert first.detail["disturbed"] == second.detail["disturbed"] == []
    assert second.value == pytest.approx(first.value, rel=0.03)
    detail = first.detail  # what the host does meanwhile is its own affair
    calls = detail["untimed_calls"] + len(detail["samples_us"]) * detail["inner_repeats"]
    assert calls * first.value / 1e3 < 1.5


def test_it_agrees_with_replays_timed_by_hand(gpu: Device) -> None:
    """By hand: as many networks, each built and captured anew beside those before."""
    (measured,) = LatencyEvaluator(gpu, batch=32, dtype="float16").evaluate(NET)
    assert measured.detail["places"] == len(set(measured.detail["round_index"])) == 12
    built, found = [], []
    with torch.inference_mode():
        for _ in range(12):
            built.append(prepare(NET, gpu, batch=32, dtype="float16"))
            replay = captured(built[-1].run, device=gpu, calls=4)
            for _ in range(100):
                replay()
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            for _ in range(25):
                replay()
            end.record()
            end.synchronize()
            found.append(begin.elapsed_time(end) / 100)
    assert measured.value == pytest.approx(median(found), rel=0.03)


@pytest.mark.parametrize(
    ("variant", "dtype"),
    [
        ("shfl_bw(V=32,density=0.25)", "float16"),
        ("w4a4", "float16"),
        ("fp32_emulated", "float32"),
    ],
)
def test_packed_weights_can_be_moved(gpu: Device, variant: str, dtype: str) -> None:
    net = Architecture.parse("input 256x8x8; gap; flatten; linear 1024; linear 1024; linear 10")
    packed = net.with_variant([4], variant)
    with torch.inference_mode():
        subject = prepare(packed, gpu, batch=128, dtype=dtype)
        outputs, generator = subject.run().clone(), Random(0)
        for _ in range(3):
            assert subject.move(generator)
            # What still read the old places would read this.
            spoilt = [torch.full_like(t, 100) for t in subject.module.state_dict().values()]
            torch.testing.assert_close(subject.run(), outputs, rtol=1e-2, atol=1e-2)
            del spoilt
    assert LatencyEvaluator(gpu, batch=128, dtype=dtype).evaluate(packed)[0].value > 0


def test_weights_that_do_not_fit_twice_are_measured_where_they_lie(gpu: Device) -> None:
    wide = Architecture.parse("input 4096x1x1; flatten; linear 32768; linear 10")  # 538 MB
    (free,) = LatencyEvaluator(gpu).evaluate(wide)
    torch.cuda.empty_cache()
    most = torch.cuda.memory_allocated() + 900_000_000  # the weights once, and the reference
    torch.cuda.set_per_process_memory_fraction(most / gpu.memory_bytes)
    try:
        (tight,) = LatencyEvaluator(gpu).evaluate(wide)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert (free.detail["places"], tight.detail["places"]) == (12, 1)
    assert tight.value == pytest.approx(free.value, rel=0.05)


def test_a_process_that_hammers_the_gpu_is_flagged(gpu: Device) -> None:
    evaluator = LatencyEvaluator(gpu)
    (quiet,) = evaluator.evaluate(NET)
    other = subprocess.Popen([sys.executable, "-c", HAMMER], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "go\n"
        (measured,) = evaluator.evaluate(NET)
    finally:
        other.kill()
        other.wait()
    assert quiet.detail["disturbed"] == []
    assert measured.detail["disturbed"]


def test_what_does_not_fit_is_told_and_the_gpu_stays_usable(gpu: Device) -> None:
    with pytest.raises(EvaluationError, match="Out of memory"):
        LatencyEvaluator(gpu, batch=1 << 20).evaluate(NET)
    assert LatencyEvaluator(gpu).evaluate(NET)[0].value > 0


def test_energy_is_mean_power_times_latency(gpu: Device) -> None:
    evaluator = EnergyEvaluator(gpu, batch=32, dtype="float16", seconds=2.0)
    try:
        (measured,) = evaluator.evaluate(NET)
    except EvaluationError as problem:
        pytest.skip(str(problem))
    (latency,) = LatencyEvaluator(gpu, batch=32, dtype="float16").evaluate(NET)
    watts = measured.value / latency.value
    assert 0.8 * measured.detail["mean_w"] < watts < 1.25 * measured.detail["mean_w"]
    assert measured.detail["mean_w"] > measured.detail["idle_w"] > 0


def test_peak_memory_is_the_same_in_a_process_that_has_measured_before(gpu: Device) -> None:
    evaluator = PeakMemoryEvaluator(gpu, batch=32)
    first, second = (evaluator.evaluate(NET)[0].value for _ in range(2))
    assert second == first
    assert first > 4 * (NET.params + 32 * 2 * 64 * 64 * 64) / 1e6


def test_the_variant_table_holds_the_kernels_of_this_gpu(gpu: Device) -> None:
    table = measure_variants([NET], LatencyEvaluator(gpu, batch=32, dtype="float16"))
    rows = {row.name: row for row in table.rows if row.workload.startswith("sliding_channel")}
    assert rows["dense"].time is not None
    assert rows["cuda"].time is not None or rows["cuda"].reason
    assert all(row.reason for row in table.rows)
