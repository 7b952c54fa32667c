"""One small study as a user runs it: networks built, timed and trained."""

import csv
from datetime import datetime
from hashlib import sha256

import pytest
import torch
from safetensors.torch import save

from evaluators.accuracy.data import load_dataset
from evaluators.accuracy.evaluator import AccuracyEvaluator, measure_test
from evaluators.accuracy.recipe import RECIPES, Recipe
from evaluators.protocol import EvaluationError
from kernels.errors import NasError
from search_spaces.architecture import Architecture
from studies.config import StudyConfig
from studies.front import finish_front, front, write_front_csv
from studies.search import run_study
from studies.workspace import Workspace
from tests.unit.studies.fakes import FakeEvaluator, cheap_config, size_score, with_costs

NET = Architecture.parse("input 1x8x8; conv 4 k3 s2 bn relu; gap; flatten; linear 10")


def tiny_recipe(name, **changes):
    settings = {
        "optimiser": "adamw",
        "learning_rate": 1e-2,
        "weight_decay": 0.0,
        "batch_size": 128,
        "epochs": 1,
    }
    return Recipe(name=name, **{**settings, **changes})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    if "test-tiny" not in RECIPES:
        RECIPES.add("test-tiny", tiny_recipe("test-tiny"))
    workspace = tmp_path_factory.mktemp("study")
    run_study(real_config("real"), workspace)
    return workspace


def real_config(name):
    return StudyConfig(
        name=name,
        space="mobile-cnn-small",
        data="digits",
        trials=2,
        recipe="test-tiny",
        device="cpu",
    )


def table_of(points, folder):
    path = folder / "front.csv"
    write_front_csv(points, path)
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_nothing_else_runs_while_a_latency_is_measured(place):
    with Workspace.of(place).open() as repository:
        events = repository.events(repository.study("real").id)
    runs = [event.data for event in events if event.kind == "evaluated"]
    spans = [
        (datetime.fromisoformat(run["started"]), datetime.fromisoformat(run["ended"]), run)
        for run in runs
    ]
    assert [run["metrics"][0] for run in runs] == ["latency_ms", "accuracy"] * 2
    measured = [span for span in spans if span[2]["slot"] == "measurement"]
    assert [run["metrics"] for _, _, run in measured] == [["latency_ms"]] * 2
    for begin, end, run in measured:
        others = [span for span in spans if span[2] is not run]
        assert all(end <= start or stop <= begin for start, stop, _ in others)


def test_every_figure_is_recorded_with_its_conditions(place):
    with Workspace.of(place).open() as repository:
        study = repository.study("real")
        trials = repository.trials(study.id)
        details = {name: repository.detail(trials[0].id, name) for name in trials[0].values}
    for trial in trials:
        latency, accuracy = trial.values["latency_ms"], trial.values["accuracy"]
        assert 0 < latency.low <= latency.value <= latency.high
        assert 0 <= accuracy.low <= accuracy.value <= accuracy.high <= 1
        costs = {"params", "macs", "bytes_moved", "peak_activation_bytes", "layers", "depth"}
        assert trial.values.keys() >= costs | {"rf_gain", "rf_volume", "rf_local"}
    assert len(details["latency_ms"]["samples_us"]) >= 30
    assert details["latency_ms"]["threads"] == 1
    assert len(details["accuracy"]["history"]) == 1
    assert study.conditions.keys() == {"space", "data", "recipe", "device", "lookahead"}
    assert study.versions["torch"] != "unknown"


def test_the_front_is_tested_once_from_stored_weights(place, tmp_path):
    untested = front(place, "real")
    assert all("test_accuracy" not in point.values for point in untested)
    points = finish_front(place, "real")
    assert [point.key for point in points] == [point.key for point in untested]
    tested = [point.values["test_accuracy"] for point in points]
    assert all(0 <= value.low <= value.value <= value.high <= 1 for value in tested)
    assert finish_front(place, "real") == points

    rows = table_of(points, tmp_path)
    assert list(rows[0])[:10] == [
        "key",
        "text",
        "validation_accuracy",
        "test_accuracy",
        "latency_ms",
        "latency_ms_p10",
        "latency_ms_p90",
        "params",
        "macs",
        "trial",
    ]
    for row, point in zip(rows, points, strict=True):
        assert Architecture.parse(row["text"]).key == row["key"] == point.key
        assert float(row["test_accuracy_low"]) == point.values["test_accuracy"].low
        assert int(row["params"]) == Architecture.parse(row["text"]).params
        assert float(row["latency_ms_high"]) == point.values["latency_ms"].high
        low, high = (float(row[f"latency_ms_{part}"]) for part in ("p10", "p90"))
        assert (low, high) == point.samples_ms["latency_ms"]
        assert low <= point.values["latency_ms"].value <= high


def test_a_second_study_reuses_figures_and_weights(place):
    run_study(real_config("again"), place)
    with Workspace.of(place).open() as repository:
        events = repository.events(repository.study("again").id)
        first = repository.trials(repository.study("real").id)
        # What other work on the machine disturbed is not worth finding again.
        disturbed = [
            trial.number
            for trial in first
            if repository.detail(trial.id, "latency_ms").get("disturbed")
        ]
        again = repository.trials(repository.study("again").id)
    paid = [event.data for event in events if event.kind == "evaluated"]
    assert [(item["trial"], item["metrics"]) for item in paid] == [
        (number, ["latency_ms"]) for number in disturbed
    ]
    for trial, earlier in zip(again, first, strict=True):
        assert trial.key == earlier.key
        assert trial.values["accuracy"] == earlier.values["accuracy"]
        if trial.number not in disturbed:
            assert trial.values["latency_ms"] == earlier.values["latency_ms"]
    assert all("test_accuracy" in point.values for point in finish_front(place, "again"))


def test_a_front_without_weights_says_so(tmp_path):
    config = cheap_config(objectives=["accuracy"], trials=1)
    run_study(config, tmp_path, evaluators=with_costs(FakeEvaluator(size_score)))
    with pytest.raises(NasError, match="no trained weights"):
        finish_front(tmp_path, "cheap")
    run_study(cheap_config(name="untrained", trials=1), tmp_path)
    with pytest.raises(NasError, match="trained nothing"):
        finish_front(tmp_path, "untrained")
    with pytest.raises(NasError, match="Unknown study"):
        front(tmp_path, "other")


def test_a_latency_of_another_batch_gets_columns_of_its_own(tmp_path):
    fake = FakeEvaluator(size_score, metric="latency_ms[batch=8]")
    config = cheap_config(objectives=["params", "latency_ms[batch=8]"], trials=2)
    points = run_study(config, tmp_path, evaluators=with_costs(fake)).front
    row = table_of(points, tmp_path)[0]
    assert row["latency_ms"] == row["validation_accuracy"] == ""
    value = points[0].values["latency_ms[batch=8]"]
    assert float(row["latency_ms[batch=8]"]) == value.value
    assert float(row["latency_ms[batch=8]_low"]) == value.low
    assert row["latency_ms[batch=8]_p10"] == ""


def test_a_metric_of_ones_own_is_in_the_table(tmp_path):
    fake = FakeEvaluator(size_score, metric="robustness")
    config = cheap_config(objectives=["params", "robustness:max"], trials=2)
    points = run_study(config, tmp_path, evaluators=with_costs(fake)).front
    rows = table_of(points, tmp_path)
    assert [float(row["robustness"]) for row in rows] == [
        point.values["robustness"].value for point in points
    ]
    known = {name for point in points for name in point.values}
    assert known - rows[0].keys() <= {"accuracy", "rf_gain"}, "these have other names there"


def test_weights_come_back_and_their_damage_is_noticed(tmp_path):
    kept = {}
    dataset = load_dataset("digits")
    evaluator = AccuracyEvaluator(dataset, tiny_recipe("t"), seed=3, save=kept.__setitem__)
    (measured,) = evaluator.evaluate(NET)
    assert list(kept) == [evaluator.dense_key(NET)] == [measured.detail["dense_key"]]
    store = Workspace(tmp_path).weights
    (key,) = kept
    digest = store.save(key, kept[key])
    assert store.save("1" * 32, kept[key]) == digest, "equal weights are stored once"
    content = store.folder / f"{digest}.safetensors"
    assert sha256(content.read_bytes()).hexdigest() == digest
    assert {path.name for path in store.folder.iterdir()} == {
        content.name,
        f"{key}.weights",
        f"{'1' * 32}.weights",
    }
    loaded = store.load(key)
    assert all((loaded[name] == tensor).all() for name, tensor in kept[key].items())
    (tested,) = measure_test(NET, loaded, dataset)
    assert (tested.metric, tested.detail["total"]) == ("test_accuracy", len(dataset.test))

    flipped = bytearray(content.read_bytes())
    flipped[-1] ^= 1  # still a file of weights
    content.write_bytes(flipped)
    with pytest.raises(NasError, match="damaged: their content has another hash"):
        store.load(key)
    content.unlink()
    with pytest.raises(NasError, match="no trained weights"):
        store.load(key)
    with pytest.raises(NasError, match="no trained weights"):
        store.load("0" * 32)


def test_weights_of_the_first_layout_are_found(tmp_path):
    store = Workspace(tmp_path).weights
    store.folder.mkdir()
    tensors = {"0.weight": torch.arange(6.0).reshape(2, 3)}
    file = store.folder / f"{'a' * 32}.safetensors"
    file.write_bytes(save(tensors))
    assert torch.equal(store.load("a" * 32)["0.weight"], tensors["0.weight"])
    file.write_bytes(b"damaged")
    with pytest.raises(NasError, match="damaged"):
        store.load("a" * 32)


def test_weights_are_artifacts_of_the_trial_that_trained_them(place):
    with Workspace.of(place).open() as repository:
        for trial in repository.trials(repository.study("real").id):
            (artifact,) = repository.artifacts(trial.id)
            detail = repository.detail(trial.id, "accuracy")
            assert (artifact.name, artifact.kind) == ("accuracy-seed0.safetensors", "weights")
            assert artifact.content_hash == detail["weights"]
            file = place / "artifacts" / f"{artifact.content_hash}.safetensors"
            assert artifact.size == file.stat().st_size


def test_equal_seeds_train_equal_networks():
    dataset = load_dataset("digits")
    found = [
        AccuracyEvaluator(dataset, tiny_recipe("t"), seed=seed).evaluate(NET)[0]
        for seed in (0, 0, 1)
    ]
    losses = [item.detail["history"][0]["train_loss"] for item in found]
    assert losses[0] == losses[1] != losses[2]


def test_a_training_that_blows_up_is_a_reason():
    recipe = tiny_recipe("t", optimiser="sgd", learning_rate=1e38)
    with pytest.raises(EvaluationError, match="training failed"):
        AccuracyEvaluator(load_dataset("digits"), recipe, seed=0).evaluate(NET)
