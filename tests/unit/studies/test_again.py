"""Front points measured again with the weights that training left."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluators.latency.latency import LatencyEvaluator
from kernels.device import detect
from kernels.timing import TimingPolicy
from search_spaces.architecture import Architecture
from search_spaces.build import build, weights_by_node
from studies.again import TRAINED, gaps
from studies.front import FrontPoint
from studies.storage import Value

NET = Architecture.parse("input 1x8x8; conv 16 k3 bn relu; gap; flatten; linear 16; linear 10")
SPARSE = NET.with_variant([1], "shfl_bw(V=8,density=0.5)")
FAST = TimingPolicy(
    cache="warm", threads=1, min_sample_us=200, warmup_min_seconds=0.01, warmup_max_seconds=0.1
)


def point(searched: float, again: float | None) -> FrontPoint:
    values = {"accuracy": Value(0.9), "latency_ms": Value(searched)}
    if again is not None:
        values[f"{TRAINED}latency_ms"] = Value(again)
    return FrontPoint("0123456789", "", {}, values, 7, 7)


def test_a_variant_is_measured_before_its_training_and_with_trained_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path))
    evaluator = LatencyEvaluator(detect("cpu"), policy=FAST)
    trained = {key: x.detach() for key, x in weights_by_node(build(SPARSE), SPARSE).items()}
    for figure in (evaluator.measure(SPARSE), evaluator.measure(SPARSE, trained)):
        assert figure.metric == "latency_ms"
        assert figure.value > 0


@pytest.mark.parametrize(
    ("again", "shown"), [(None, ""), (1.02, ""), (1.05, "(+5.0 %)"), (0.9, "(-10.0 %)")]
)
def test_a_gap_above_three_per_cent_is_shown(again: float | None, shown: str) -> None:
    found = [str(gap) for gap in gaps([point(1.0, again)])]
    assert len(found) == bool(shown)
    assert all(shown in text and "trial 7 01234567" in text for text in found)
