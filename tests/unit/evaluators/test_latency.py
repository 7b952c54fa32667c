import json
import time

import pytest
import torch

from evaluators.latency.latency import LatencyEvaluator
from evaluators.protocol import EvaluationError
from kernels.device import detect
from kernels.timing import Timing, TimingPolicy
from search_spaces.architecture import Architecture

CPU = detect("cpu")
NET = Architecture.parse("input 1x8x8; conv 4 k3 bn relu; gap; flatten; linear 10")
LARGE = Architecture.parse(
    "input 3x64x64; conv 32 k3 bn relu; conv 64 k3 bn relu; gap; flatten; linear 10"
)
FAST = TimingPolicy(
    cache="warm", threads=1, min_sample_us=200, warmup_min_seconds=0.01, warmup_max_seconds=0.1
)


def test_a_figure_comes_with_its_spread_and_conditions():
    begin = time.perf_counter()
    (measured,) = LatencyEvaluator(CPU).evaluate(NET)
    assert time.perf_counter() - begin < 10
    assert measured.metric == "latency_ms"
    assert 0 < measured.low <= measured.value <= measured.high
    detail = json.loads(json.dumps(measured.detail))
    timing = Timing.from_dict({name: detail[name] for name in Timing.__dataclass_fields__})
    assert timing.median_us / 1e3 == measured.value
    assert (timing.p10_us / 1e3, timing.p90_us / 1e3) == (measured.low, measured.high)
    assert timing.count >= 30
    assert max(timing.round_index) + 1 >= 3
    assert (detail["threads"], detail["batch"], detail["dtype"]) == (1, 1, "float32")
    assert detail["torch"] == torch.__version__
    assert CPU.name in detail["device"]


def test_more_work_takes_longer():
    small, large = (
        LatencyEvaluator(CPU, policy=FAST).evaluate(net)[0].value for net in (NET, LARGE)
    )
    assert large > 2 * small


def test_the_batch_is_part_of_the_name_and_of_the_work():
    one, many = (LatencyEvaluator(CPU, batch=batch, policy=FAST) for batch in (1, 256))
    assert many.metrics == ("latency_ms[batch=256]",)
    assert one.cache_key(NET) != many.cache_key(NET)
    (measured,) = many.evaluate(NET)
    assert measured.metric == "latency_ms[batch=256]"
    assert measured.value > one.evaluate(NET)[0].value


def test_it_runs_alone_and_leaves_torch_as_it_was():
    threads = torch.get_num_threads()
    LatencyEvaluator(CPU, policy=FAST).evaluate(NET)
    assert LatencyEvaluator.exclusive
    assert torch.get_num_threads() == threads
    assert not torch.is_inference_mode_enabled()


def test_variants_are_refused():
    with pytest.raises(EvaluationError, match="w1a2"):
        LatencyEvaluator(CPU, policy=FAST).evaluate(NET.with_variant([1], "w1a2"))
