"""Peak memory against what the tensors of a network must take."""

import pytest
import torch
from torch import nn

from evaluators import memory
from evaluators.latency import subject
from evaluators.memory import PeakMemoryEvaluator
from evaluators.protocol import EvaluationError
from kernels.device import Device, detect
from kernels.environment import CACHE_VARIABLE
from search_spaces.architecture import Architecture

CPU = detect("cpu")
NET = Architecture.parse("input 3x8x8; gap; flatten; linear 10")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))


class Steps(nn.Module):
    """Holds two maps of a million floats at its peak, and a weight of 1,000."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1000))

    def forward(self, x):
        first = torch.ones(1_000_000)
        second = first + 1
        del first
        third = second * 2
        del second
        return third[:10]


def test_the_peak_is_what_is_alive_at_one_time(monkeypatch):
    monkeypatch.setattr(subject, "build", lambda _: Steps())
    (measured,) = PeakMemoryEvaluator(CPU).evaluate(NET)
    assert measured.metric == "peak_memory_mb"
    expected = 4 * (2 * 1_000_000 + 1000 + 3 * 8 * 8) / 1e6
    assert measured.value == pytest.approx(expected, rel=1e-3)


def test_a_network_needs_its_weights_its_input_and_two_maps():
    net = Architecture.parse("input 16x64x64; conv 32 k3; conv 32 k3; gap; flatten; linear 10")
    (one,) = PeakMemoryEvaluator(CPU).evaluate(net)
    least = 4 * (net.params + 16 * 64 * 64 + 2 * 32 * 64 * 64) / 1e6
    assert least <= one.value < 4 * least  # libraries reorder maps
    (again,) = PeakMemoryEvaluator(CPU).evaluate(net)
    assert again.value == one.value
    (many,) = PeakMemoryEvaluator(CPU, batch=8).evaluate(net)
    assert many.metric == "peak_memory_mb[batch=8]"
    assert many.value > 4 * one.value


def test_what_cannot_run_is_refused():
    with pytest.raises(EvaluationError, match="nothing here executes that"):
        PeakMemoryEvaluator(CPU).evaluate(NET.with_variant([3], "unheard_of"))


class Card:
    """Stands in for torch's account of a GPU's memory; a library keeps 32 MB from its first use."""

    def __init__(self):
        self.now = self.peak = 0
        self.kept = 0

    def take(self, size):
        self.now += size
        self.peak = max(self.peak, self.now)

    def prepare(self, *_, **__):
        network = Network(self)
        network.run()
        return network

    def reset(self, _):
        self.peak = self.now


class Network:
    """3 MB of weights and input, and 5 MB of maps in a pass."""

    def __init__(self, card):
        self.card = card
        card.take(3_000_000)

    def __del__(self):
        self.card.take(-3_000_000)

    def run(self):
        if not self.card.kept:
            self.card.kept = 32_000_000
            self.card.take(self.card.kept)
        self.card.take(5_000_000)
        self.card.take(-5_000_000)


def test_what_a_library_keeps_on_a_gpu_is_not_the_first_candidates(monkeypatch):
    card = Card()
    stand_ins = {
        "empty_cache": lambda: None,
        "synchronize": lambda _: None,
        "memory_allocated": lambda _: card.now,
        "reset_peak_memory_stats": card.reset,
        "max_memory_allocated": lambda _: card.peak,
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(memory, "prepare", card.prepare)
    gpu = Device("cuda", 0, "a card", (9, 0), 132, 1 << 36, uuid="no-such-card")
    found = [PeakMemoryEvaluator(gpu).evaluate(NET)[0].value for _ in range(3)]
    assert found == [8.0, 8.0, 8.0]
