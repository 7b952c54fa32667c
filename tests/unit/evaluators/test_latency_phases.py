"""Latency of decoders: prefill and decoding are figures of their own."""

from __future__ import annotations

import pickle

import pytest
import torch

from evaluators.energy import EnergyEvaluator
from evaluators.latency.latency import LatencyEvaluator
from evaluators.latency.layers import measure_layers
from evaluators.latency.subject import prepare
from evaluators.memory import PeakMemoryEvaluator
from evaluators.protocol import EvaluationError
from kernels.device import detect
from kernels.environment import CACHE_VARIABLE
from kernels.timing import TimingPolicy
from search_spaces.architecture import Architecture
from search_spaces.build import build
from search_spaces.ops.layers import Cache
from studies.metrics import parse_constraint, parse_metric
from tests.networks import gpt2

CPU = detect("cpu")
FAST = TimingPolicy(
    cache="warm", threads=1, min_sample_us=200, warmup_min_seconds=0.01, warmup_max_seconds=0.1
)
NET = gpt2(96, width=64, depth=2, heads=4, words=50)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


def timed(**conditions) -> float:
    (measured,) = LatencyEvaluator(CPU, policy=FAST, **conditions).evaluate(NET)
    assert measured.low <= measured.value <= measured.high
    return measured.value


def test_a_token_costs_less_than_the_sequence_and_more_sequences_cost_more():
    prefill, decode = timed(phase="prefill"), timed(phase="decode")
    assert decode < 0.5 * prefill
    assert timed(phase="prefill", tokens=8) < 0.7 * prefill
    assert timed(phase="decode", batch=16) > decode


def test_what_is_timed_is_what_a_decoder_does():
    """The pass of one token behind the others gives the last row of the whole pass."""
    subject = prepare(NET, CPU, batch=3, phase="decode", tokens=40)
    assert subject.inputs.shape == (3, 40)
    with torch.inference_mode():
        call = subject.call(subject.module)
        first, again = call(), call()
        whole = subject.module(subject.inputs)
    assert torch.equal(first, again)
    torch.testing.assert_close(first[:, 0], whole[:, -1], rtol=1e-4, atol=1e-5)
    filled = prepare(NET, CPU, batch=3, phase="prefill", tokens=40)
    with torch.inference_mode():
        torch.testing.assert_close(filled.run(), filled.module(filled.inputs))


def test_every_call_of_prefill_fills_a_cache_of_its_own():
    calls = []

    class Recorder(torch.nn.Module):
        def forward(self, ids, cache=None):
            calls.append((tuple(ids.shape), cache))
            cache.begin(ids.shape[1])
            return ids

    subject = prepare(NET, CPU, phase="prefill", tokens=5)
    run = subject.call(Recorder())
    run(), run()
    assert [shape for shape, _ in calls] == [(1, 5)] * 2
    assert all(isinstance(cache, Cache) for _, cache in calls)
    assert calls[0][1] is not calls[1][1]


def test_names_and_keys_tell_phases_and_lengths_apart():
    settings = [
        {},
        {"phase": "prefill"},
        {"phase": "decode"},
        {"phase": "decode", "tokens": 32},
        {"phase": "decode", "batch": 8},
        {"tokens": 32},
    ]
    made = [LatencyEvaluator(CPU, **item) for item in settings]
    assert len({item.cache_key(NET) for item in made}) == len(made)
    names = [item.metrics[0] for item in made]
    assert names[2:5] == [
        "latency_ms[phase=decode]",
        "latency_ms[phase=decode,tokens=32]",
        "latency_ms[batch=8,phase=decode]",
    ]
    assert [str(parse_metric(name)) for name in names] == names
    assert str(parse_metric("latency_ms[phase=decode,batch=1]")) == names[2]
    assert str(parse_constraint("latency_ms[phase=decode] <= 2").metric) == names[2]
    there = pickle.loads(pickle.dumps(made[3]))
    assert there.cache_key(NET) == made[3].cache_key(NET)


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"phase": "encode"}, "Unknown phase 'encode'.*prefill, decode"),
        ({"tokens": 97}, "reads 96 tokens at most, not 97"),
    ],
)
def test_phases_that_there_are_not(conditions, message):
    with pytest.raises(EvaluationError, match=message):
        LatencyEvaluator(CPU, policy=FAST, **conditions).evaluate(NET)


@pytest.mark.parametrize("condition", [{"phase": "decode"}, {"tokens": 4}])
def test_what_does_not_decode_has_no_phases(condition):
    images = Architecture.parse("input 1x8x8; conv 4; gap; flatten; linear 10")
    with pytest.raises(EvaluationError, match="leave phase and tokens out"):
        LatencyEvaluator(CPU, policy=FAST, **condition).evaluate(images)
    with pytest.raises(EvaluationError, match="Layers are timed in whole passes"):
        measure_layers([NET], LatencyEvaluator(CPU, policy=FAST, **condition))


def test_layers_memory_and_energy_read_token_ids_too():
    table = measure_layers([NET], LatencyEvaluator(CPU, policy=FAST))
    assert not table.failed
    assert any(name.startswith("embedding") for name in table.times)
    (peak,) = PeakMemoryEvaluator(CPU).evaluate(NET)
    weights = sum(item.numel() * 4 for item in build(NET).parameters())
    assert peak.value * 1e6 > weights
    assert EnergyEvaluator(CPU).metrics == ("energy_mj",)
