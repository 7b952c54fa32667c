"""What was measured not to pay is not offered to the studies of the workspace that begin then."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evaluators.analytic import AnalyticEvaluator
from evaluators.latency.latency import LatencyEvaluator
from evaluators.latency.layers import LayerTime
from evaluators.latency.variants import VariantRow, VariantTable, measure_offers
from kernels.device import detect
from kernels.errors import NasError
from kernels.timing import TimingPolicy
from nas.jobs.profiling import profile
from nas.jobs.profiling_text import profile_text
from nas.jobs.showing import show_run
from nas.jobs.showing_text import run_text
from search_spaces.architecture import Architecture
from search_spaces.offers import offered, place_text, variant_space
from search_spaces.ops import parse_op
from studies import offers
from studies.offers import newest_offers, record_offers, tables
from studies.search import run_study
from studies.workspace import Workspace
from tests.unit.studies.fakes import FakeEvaluator, cheap_config, recorded, size_score

NET = Architecture.parse(
    "input 1x8x8; conv 64 k3 s2; flatten; linear 128 relu; linear 64 relu; linear 10"
)
PLACE = place_text(parse_op("linear 64 relu"), ((128,),))
FAST = TimingPolicy(
    cache="warm", threads=1, min_sample_us=100, warmup_min_seconds=0.005, warmup_max_seconds=0.02
)
CONFIG = cheap_config(objectives=["params", "latency_ms"], trials=8)
KINDS = ["w8a8", "w4a4"]


def evaluator() -> LatencyEvaluator:
    return LatencyEvaluator(detect("cpu"), policy=FAST)


def run(place, config=CONFIG, **limits):
    space = variant_space("variants of a network", NET, KINDS)
    costs = [AnalyticEvaluator(), FakeEvaluator(size_score, metric="latency_ms")]
    return run_study(config.model_copy(update=limits), place, space=space, evaluators=costs)


def answers(place, name="cheap") -> set[str]:
    """What was chosen for the layer of 64, which is the second of those that have a choice."""
    trials = recorded(place, name)
    return {str(list(trial.decisions.values())[-1]) for trial in trials}


def keep(monkeypatch: pytest.MonkeyPatch, place, *left_out: str) -> None:
    """Keep a table that was measured elsewhere, in which some variants of a layer are slower."""

    def made(networks, given, *, kinds, known):
        time = LayerTime(10.0, 9.0, 11.0, 30)
        rows = [
            VariantRow(PLACE, "variant", name, time, name not in left_out, f"so much: {name}")
            for name in ("dense", *KINDS)
        ]
        return VariantTable(real(()).conditions, tuple(rows))

    def real(networks):
        return measure_offers(networks, evaluator())

    monkeypatch.setattr(offers, "measure_offers", made)
    record_offers(Workspace(place), [NET], evaluator())
    monkeypatch.undo()


def test_every_variant_of_every_layer_is_timed_once(tmp_path):
    """Real times, on this machine: which are slower is the machine's affair."""
    place = Workspace(tmp_path)
    table = record_offers(place, [NET, NET.with_variant([3], "w8a8")], evaluator(), KINDS)
    by_place: dict[str, list[VariantRow]] = {}
    for row in table.rows:
        by_place.setdefault(row.workload, []).append(row)
    assert PLACE in by_place
    for rows in by_place.values():
        assert [row.name for row in rows] == ["dense", *sorted(KINDS)]
        assert rows[0].offered
        assert all(row.time is not None and row.reason for row in rows)
        for row in rows[1:]:
            slower = row.time.p10_us > rows[0].time.p90_us and not row.time.disturbed
            assert row.offered is not slower
            assert (row.name in table.left_out().get(row.workload, ())) is slower
    found = newest_offers(place, evaluator())
    assert found is not None
    assert found[1] == table
    assert measure_offers([NET], evaluator(), kinds=KINDS, known=table) == table
    with pytest.raises(NasError, match="other conditions"):
        measure_offers([NET], LatencyEvaluator(detect("cpu"), batch=2), known=table)


def test_a_study_is_offered_what_pays_and_shows_why_the_others_are_left_out(tmp_path, monkeypatch):
    run(tmp_path / "a")
    assert answers(tmp_path / "a") == {"dense", *KINDS}
    place = tmp_path / "b"
    keep(monkeypatch, place, "w4a4")
    run(place)
    assert answers(place) == {"dense", "w8a8"}
    text = run_text(show_run(place, None))
    assert "left out: so much: w4a4" in text
    assert "offered: so much: w8a8" in text
    assert "variants" not in show_run(tmp_path / "a", None)["conditions"]
    run(place, cheap_config(name="sizes", objectives=["params", "macs"], trials=8))
    assert answers(place, "sizes") == {"dense", *KINDS}  # no latency: nothing is too slow


def test_a_study_goes_on_with_what_it_began_with(tmp_path, monkeypatch):
    keep(monkeypatch, tmp_path, "w4a4")
    run(tmp_path, trials=2)
    keep(monkeypatch, tmp_path, *KINDS)
    run(tmp_path)
    assert answers(tmp_path) == {"dense", "w8a8"}
    run(tmp_path, CONFIG.model_copy(update={"name": "later"}))
    assert len(recorded(tmp_path, "later")) > 1
    layers = {name for trial in recorded(tmp_path, "later") for name in trial.decisions}
    first = {name for trial in recorded(tmp_path) for name in trial.decisions}
    assert len(layers) == len(first) - 1  # of the layer of 64 nothing is left to ask


def test_a_profile_tells_what_was_measured_in_a_run(tmp_path, monkeypatch):
    keep(monkeypatch, tmp_path, "w4a4")
    found = profile(
        "mobile-cnn-small",
        data="digits",
        constraints=[],
        candidates=10,
        seed=0,
        device="cpu",
        out=tmp_path,
        say=lambda _: None,
    )
    assert "left out: so much: w4a4" in profile_text(found)
    for file in (tmp_path / "artifacts").glob("*.json"):
        file.write_text("[]")
    with pytest.raises(NasError, match="Cannot read the table of variants"):
        tables(Workspace(tmp_path))


def test_a_space_replays_what_it_no_longer_offers():
    space = variant_space("variants of a network", NET, ["w4a4"])
    left_out = {PLACE: frozenset(offered(parse_op("linear 64 relu"), ((128,),)))}
    found = next(
        item for item in space.enumerate(cheap_data()) if "w4a4" in item.decisions.values()
    )
    fewer = replace(space, left_out=left_out)
    assert len(list(fewer.enumerate(cheap_data()))) < len(list(space.enumerate(cheap_data())))
    assert space.replay(found.decisions, cheap_data()).architecture.key == found.architecture.key


def cheap_data():
    from evaluators.accuracy.data import load_dataset

    return load_dataset("digits").spec
