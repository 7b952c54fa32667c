"""The sum of a network's layers as a stage of the funnel, and how wrong it was."""

from __future__ import annotations

import pytest

from evaluators.latency import screen
from evaluators.latency.latency import LatencyEvaluator
from evaluators.latency.layers import layer_of, plan_of
from evaluators.latency.screen import LayersEvaluator, screen_error
from evaluators.protocol import EvaluationError
from kernels.device import detect
from kernels.environment import CACHE_VARIABLE
from kernels.errors import NasError
from nas.jobs.showing import show_run
from nas.jobs.showing_text import run_text
from search_spaces.architecture import Architecture
from studies.search import run_study
from studies.storage import TrialState
from tests.unit.studies.fakes import cheap_config, recorded, space_file

NET = Architecture.parse(
    "input 1x8x8; conv 8 k3 relu; conv 8 k3 relu; conv 8 k3 relu; gap; flatten; linear 10"
)
CPU = detect("cpu")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


def test_each_distinct_layer_is_timed_once(tmp_path):
    first = LayersEvaluator(CPU)
    (found,) = first.evaluate(NET)
    assert found.metric == "layers_ms"
    assert found.detail["timed_now"] == found.detail["distinct"] < found.detail["layers"]
    assert 0 < found.low <= found.value <= found.high
    (again,) = LayersEvaluator(CPU).evaluate(NET)  # as another study or process would
    assert found.detail["disturbed"] or again.detail["timed_now"] == 0
    assert first.cache_key(NET) != LatencyEvaluator(CPU).cache_key(NET)
    assert LayersEvaluator(CPU, batch=4).metrics == ("layers_ms[batch=4]",)
    for file in (tmp_path / "cache" / "layers").glob("*.json"):
        file.write_text("[]")
    (anew,) = LayersEvaluator(CPU).evaluate(NET)
    assert anew.detail["timed_now"] == found.detail["timed_now"]


def test_a_layer_that_cannot_be_timed_is_the_reason(monkeypatch):
    def broken(networks, timer, *, table):
        for step in plan_of(networks[0], timer):
            table.failed[str(step.workload)] = "it broke"

    monkeypatch.setattr(screen, "measure_layers", broken)
    with pytest.raises(EvaluationError, match="it broke"):
        LayersEvaluator(CPU).evaluate(NET)


def test_a_layer_with_a_variant_is_timed_as_one():
    net = Architecture.parse("input 64x4x4; gap; flatten; linear 256; linear 10")
    variant = net.with_variant([3], "w8a8")
    steps = plan_of(variant, LatencyEvaluator(CPU))
    layers = [layer_of(variant, step) for step in steps]
    assert [str(region.variant) for layer in layers for region in layer.regions] == ["w8a8"]
    assert all(not layer_of(net, step).regions for step in plan_of(net, LatencyEvaluator(CPU)))


def test_a_funnel_screens_by_it_and_the_study_tells_its_error(tmp_path):
    """Real times, on this machine."""
    config = cheap_config(
        space=space_file(tmp_path, list(range(4, 44))),
        objectives=["latency_ms", "depth"],  # all are as deep
        funnel=[{"by": "layers_ms", "keep": 0.2, "after": 3}],
        trials=12,
    )
    run_study(config, tmp_path)
    trials = recorded(tmp_path)
    assert all("layers_ms" in trial.values for trial in trials)
    dropped = [trial for trial in trials if trial.state is TrialState.DROPPED]
    assert dropped
    assert all("latency_ms" not in trial.values for trial in dropped)
    assert "not known before 16 trials are complete" in run_text(show_run(tmp_path, None))


def test_the_error_is_that_of_networks_that_were_not_fitted():
    rows = [(10.0 * n, n, 10.0 * n + 0.5 * n + 3.0) for n in range(1, 21)]
    assert screen_error(rows[:15]) is None
    error = screen_error(rows)
    assert error is not None
    assert error.count == 10
    assert error.p95 == pytest.approx(0.0, abs=1e-9)
    rows[1] = (rows[1][0], rows[1][1], 2 * rows[1][2])  # the second is judged, not fitted
    worse = screen_error(rows)
    assert worse is not None
    assert worse.p95 > 0.2
    assert worse.median == pytest.approx(0.0, abs=1e-9)


def test_it_is_no_objective_and_no_constraint():
    with pytest.raises(NasError, match="only screens"):
        cheap_config(objectives=["layers_ms", "params"])
    with pytest.raises(NasError, match="only screens"):
        cheap_config(constraints=["layers_ms<=2"])
