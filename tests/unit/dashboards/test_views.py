"""What each page is drawn from, against closed forms and what the engine says."""

from __future__ import annotations

import base64
import json
import sqlite3
from math import atanh, sqrt, tanh

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from dashboards.source import Source
from dashboards.views import front as front_module
from dashboards.views.proxies import rank_correlation
from dashboards.views.space import explained_share
from evaluators.analytic import AnalyticEvaluator
from evaluators.proxies.fusion import DESCRIPTION, fuse
from evaluators.proxies.receptive_field import receptive_field
from kernels.errors import NasError
from search_spaces.architecture import Architecture
from studies.front import front
from studies.pareto import hypervolume
from studies.search import run_study
from studies.stopping import stopping_report, stopping_text
from studies.storage import Repository, TrialState
from studies.workspace import Workspace
from tests.unit.dashboards.large import SIX, record_large
from tests.unit.dashboards.recording import OBJECTIVES, add_trial, record_study
from tests.unit.studies.fakes import cheap_config, size_score
from tests.unit.studies.test_rungs import Steps


def unpacked(packed):
    kind = {"f8": "<f8", "f4": "<f4", "i4": "<i4"}[packed["type"]]
    return np.frombuffer(base64.b64decode(packed["data"]), dtype=kind)


def trials_of(place, study="digits"):
    with Repository.open(place / "record.db") as repository:
        return repository.trials(repository.study(study).id)


def add_events(place, kind, **data):
    with Repository.open(place / "record.db") as repository:
        repository.add_event(repository.study("digits").id, kind, data)


def test_the_front_page_has_every_complete_candidate_and_the_engines_front(place):
    view = Source(place).front("digits")
    complete = [t for t in trials_of(place) if t.state is TrialState.COMPLETE]
    assert unpacked(view["numbers"]).tolist() == [trial.number for trial in complete]
    for name in OBJECTIVES:
        assert unpacked(view["columns"][name]).tolist() == [t.values[name].value for t in complete]
    found = {int(unpacked(view["numbers"])[place]) for place in view["front"]}
    assert found == {point.trial for point in front(place, "digits")}
    low = unpacked(view["spreads"]["columns"]["accuracy"]["low"])
    assert low.tolist() == [trial.values["accuracy"].low for trial in complete]


def test_of_very_many_candidates_spreads_are_those_of_the_front(place, monkeypatch):
    monkeypatch.setattr(front_module, "WHOLE_ROWS", 5)
    source = Source(place)
    view = source.front("digits")
    assert unpacked(view["spreads"]["rows"]).tolist() == view["front"]
    assert set(view["columns"]) == set(OBJECTIVES)
    assert "rf_gain" in source.front("digits", ["rf_gain", "no_such"])["columns"]
    assert set(source.front("digits", whole=True)["columns"]) >= {"rf_gain", "macs", *OBJECTIVES}


def test_a_front_says_which_variants_its_networks_have(place):
    assert Source(place).front("digits")["variants"] == {}
    figures = {"accuracy": 0.999, "latency_ms": 0.001}  # better than all, so on the front
    regions = " | w8a8 on 1 | w8a8 on 4"
    number = add_trial(place, "digits", width=9, regions=regions, **figures)
    view = Source(place).front("digits")
    [(row, words)] = view["variants"].items()
    assert unpacked(view["numbers"])[row] == number
    assert words == "w8a8 2"


def test_what_another_device_took_for_the_same_networks_is_an_axis(place):
    record_study(place, "gpu")  # the same seed proposes the same networks
    with sqlite3.connect(place / "record.db") as connection:
        connection.execute(
            "UPDATE study SET conditions = ? WHERE name = 'gpu'",
            (json.dumps({"device": "cuda (NVIDIA H200)"}),),
        )
        connection.execute(
            "UPDATE value SET value = value / 8, low = low / 8 WHERE metric = 'latency_ms' "
            "AND trial_id IN (SELECT id FROM trial WHERE study_id = (SELECT max(id) FROM study))"
        )
    connection.close()
    source, name = Source(place), "latency_ms@gpu"
    metrics = {metric["name"]: metric for metric in source.front("digits")["metrics"]}
    assert metrics[name]["title"] == "Latency, gpu on cuda (NVIDIA H200) (ms)"
    assert "latency_ms@other" not in metrics  # of the same device
    view = source.front("digits", [name])
    own, others = (unpacked(view["columns"][n]) for n in ("latency_ms", name))
    assert others.tolist() == (own / 8).tolist()
    low = view["spreads"]["columns"]
    assert unpacked(low[name]["low"]).tolist() == (unpacked(low["latency_ms"]["low"]) / 8).tolist()


def test_hypervolume_along_the_study_is_that_of_each_beginning(place):
    volume = Source(place).progress("digits")["volume"]
    complete = [t for t in trials_of(place) if t.state is TrialState.COMPLETE]
    rows = np.array(
        [
            [-t.values["accuracy"].value, *(t.values[n].value for n in OBJECTIVES[1:])]
            for t in complete
        ]
    )
    final = np.array(
        [
            [-p.values["accuracy"].value, *(p.values[n].value for n in OBJECTIVES[1:])]
            for p in front(place, "digits")
        ]
    )
    best, worst = final.min(axis=0), final.max(axis=0)
    scaled = (rows - best) / ((worst - best) * 1.1)
    assert volume["trials"] == [trial.number + 1 for trial in complete]
    expected = [
        hypervolume(scaled[: count + 1], [1.0] * 3, ["min"] * 3) for count in range(len(complete))
    ]
    assert volume["share"] == pytest.approx(expected)
    assert volume["spent"] == sorted(volume["spent"])
    assert all(later >= 0 for later in volume["seconds"])


def test_each_stage_of_the_funnel_says_what_reached_it_and_what_it_dropped(place):
    trials = trials_of(place)
    stages = Source(place).progress("digits")["stages"]
    dropped = [trial for trial in trials if trial.state is TrialState.DROPPED]
    assert sum(stage["dropped"] for stage in stages) == len(dropped) > 0
    left = len(dropped) + sum(trial.state is TrialState.COMPLETE for trial in trials)
    for stage in stages:
        assert stage["reached"] == left
        assert sum(reason["count"] for reason in stage["reasons"]) == stage["dropped"]
        left -= stage["dropped"]


def test_failures_are_counted_by_reason_with_the_newest_trial(place):
    with sqlite3.connect(place / "record.db") as connection:
        connection.execute("UPDATE trial SET state='failed', reason='out of memory' WHERE number=2")
        connection.execute("UPDATE trial SET state='failed', reason='out of memory' WHERE number=7")
        connection.execute("UPDATE trial SET state='failed', reason=NULL WHERE number=1")
    connection.close()
    ids = [study["name"] for study in Source(place).studies()["studies"]]
    assert set(ids) == {"digits", "other"}
    found = Source(place).progress("digits")["failures"]
    assert found[0] == {"reason": "out of memory", "count": 2, "newest": 7}
    assert found[1]["reason"] == "no reason was recorded"


@pytest.mark.parametrize("ties", [False, True])
def test_rank_correlation_is_spearmans_with_bonett_and_wrights_interval(ties):
    rng = np.random.default_rng(4)
    a = rng.normal(size=40)
    b = a + rng.normal(size=40)
    if ties:
        a, b = a.round(), b.round()
    value, low, high = rank_correlation(a, b)
    assert value == pytest.approx(spearmanr(a, b).statistic)
    half = 1.959964 * sqrt((1 + value**2 / 2) / 37)
    assert (low, high) == pytest.approx((tanh(atanh(value) - half), tanh(atanh(value) + half)))


def test_rank_correlation_of_the_few_the_constant_and_the_perfect():
    many = np.arange(20.0)
    assert rank_correlation(many[:9], many[:9]) is None
    assert rank_correlation(many, np.ones(20)) is None
    assert rank_correlation(many, -many) == (-1, -1, -1)


def test_the_page_of_proxies_judges_by_accuracy_and_says_what_was_switched_off(place):
    add_events(place, "proxy off", metric="depth", reason="ranks worse than params")
    view = Source(place).proxies("digits")
    complete = [t for t in trials_of(place) if t.state is TrialState.COMPLETE]
    row = next(row for row in view["rows"] if row["metric"]["name"] == "params")
    expected = spearmanr(
        [t.values["params"].value for t in complete], [t.values["accuracy"].value for t in complete]
    )
    assert view["target"]["name"] == "accuracy"
    assert row["correlation"]["value"] == pytest.approx(expected.statistic)
    tau = kendalltau(
        [t.values["params"].value for t in complete], [t.values["accuracy"].value for t in complete]
    )
    assert row["tau"] == pytest.approx(tau.statistic)
    joint = next(row for row in view["rows"] if row["metric"]["name"] == "joint_rank")
    columns = {name: [t.values[name].value for t in complete] for name in DESCRIPTION}
    tau = kendalltau(fuse(columns), [t.values["accuracy"].value for t in complete])
    assert joint["tau"] == pytest.approx(tau.statistic)
    assert view["off"][0].startswith("rf_gain was switched off: rank correlation with accuracy")
    assert view["off"][1] == "depth was switched off: ranks worse than params"


def test_the_share_that_a_decision_explains():
    same = [np.array([1.0, 2.0, 3.0])] * 2
    apart = [np.array([1.0, 1.0, 1.0]), np.array([2.0, 2.0, 2.0])]
    assert explained_share(apart) == pytest.approx(1.0)
    assert explained_share(same) == 0.0
    assert explained_share([np.array([1.0, 2.0])]) is None
    assert explained_share([np.ones(3), np.ones(3)]) is None
    rng = np.random.default_rng(0)
    chance = [explained_share(list(rng.normal(size=(4, 10)))) for _ in range(300)]
    assert np.mean(chance) < 0.06  # of 40 values in four groups, 3 / 39 without the correction


def test_the_space_has_all_options_and_its_size_once_it_is_known(place):
    view = Source(place, patient=True).space("digits")
    assert view["described"]["size"].startswith("about 3")
    assert view["described"]["version"] == 1
    kinds = next(d for d in view["decisions"] if d["decision"] == "stage0/block0/kind")
    assert [o["option"] for o in kinds["options"]] == ["separable", "sliding", "standard"]
    complete = [t for t in trials_of(place) if t.state is TrialState.COMPLETE]
    for option in kinds["options"]:
        of = [t for t in complete if t.decisions["stage0/block0/kind"] == option["option"]]
        assert option["count"] == len(of)
        if of:
            mean = np.mean([t.values["accuracy"].value for t in of])
            assert option["mean"] == pytest.approx(mean)


def test_a_space_in_a_file_is_not_run_by_a_page(place, tmp_path):
    file = tmp_path / "space.py"
    file.write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    with sqlite3.connect(place / "record.db") as connection:
        (config,) = connection.execute("SELECT config FROM study WHERE name='digits'").fetchone()
        changed = json.dumps({**json.loads(config), "space": str(file)})
        connection.execute("UPDATE study SET config = ? WHERE name = 'digits'", (changed,))
    connection.close()
    view = Source(place, patient=True).space("digits")
    assert "nas spaces" in view["described"]["error"]
    assert not (tmp_path / "ran").exists()


def test_a_trial_has_its_layers_figures_and_lineage(place):
    with sqlite3.connect(place / "record.db") as connection:
        connection.execute(
            "UPDATE trial SET origin = ? WHERE number = 9 AND study_id = 1",
            (json.dumps({"by": "sampler", "kind": "mutation", "parent": 4}),),
        )
    connection.close()
    source, trials = Source(place), trials_of(place)
    view = source.trial("digits", 9)
    with Repository.open(place / "record.db") as repository:
        network = repository.architecture(trials[9].key)
    assert view["text"] == network.text
    assert sum(layer["params"] for layer in view["layers"]) == network.params
    assert sum(layer["macs"] for layer in view["layers"]) == network.macs
    assert [layer["shape"] for layer in view["layers"]] == [list(n.shape) for n in network.nodes]
    changed = {item["decision"] for item in view["changes"]}
    assert changed == {
        name
        for name in {**trials[4].decisions, **trials[9].decisions}
        if trials[4].decisions.get(name) != trials[9].decisions.get(name)
    }
    assert source.trial("digits", 4)["children"] == [9]
    if trials[9].state is TrialState.COMPLETE:
        assert [f["metric"]["name"] for f in view["figures"]][:3] == list(OBJECTIVES)


def test_the_gain_of_a_chain_is_the_sum_of_its_layers():
    from dashboards.views.trial import network_view

    net = Architecture.parse(
        "input 3x16x16; conv 8 k3 bn relu; conv 16 k5 s2 relu; gap; flatten; linear 10"
    )
    gains = [layer["gain"] for layer in network_view(net)["layers"] if layer["gain"] is not None]
    assert len(gains) == 3
    assert sum(gains) == pytest.approx(receptive_field(net).gain)


def test_an_unknown_trial_and_study_are_named(place):
    source = Source(place)
    with pytest.raises(NasError, match="no trial 12345"):
        source.trial("digits", 12345)
    with pytest.raises(NasError, match=r"'digitz'.*Did you mean 'digits'"):
        source.front("digitz")


@pytest.mark.parametrize("objectives", [("accuracy",), SIX], ids=["one", "six"])
@pytest.mark.parametrize("size", [0, 1, 5])
def test_every_view_of_every_amount(tmp_path, size, objectives):
    record_large(tmp_path, size, objectives=objectives, failing=0.0)
    source = Source(tmp_path)
    assert source.front("large")["count"] == size
    assert len(source.progress("large")["volume"]["share"]) == size
    assert all(row["correlation"] is None for row in source.proxies("large")["rows"])
    assert source.space("large")["count"] == size
    assert source.studies()["studies"][0]["states"] == ({"complete": size} if size else {})
    assert len(source.front_table("large").rows) <= size
    json.dumps([source.front("large"), source.progress("large")], allow_nan=False)


def test_kernel_results_that_ship_are_read():
    from dashboards.views.kernels import kernels_view

    files = kernels_view()["files"]
    assert files
    for file in files:
        for record in file["records"]:
            assert record["ours_us"] > 0
            assert record["device"]


def test_early_stopping_is_told_of_as_nas_show_tells_it(tmp_path):
    config = cheap_config(
        objectives=["accuracy", "params"],
        trials=12,
        rungs=[{"epoch": 10, "keep": 0.3, "after": 2}],
        control=0.4,
    )
    run_study(config, tmp_path, evaluators=[Steps(size_score), AnalyticEvaluator()])
    with Workspace.of(tmp_path).open() as repository:
        report = stopping_report(repository, repository.study("cheap"))
    assert report is not None
    assert report.stopped
    assert report.controls
    assert Source(tmp_path).progress("cheap")["stopping"] == stopping_text(report)
