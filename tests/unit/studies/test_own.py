"""What users bring: evaluators, first candidates, repeats."""

import json
import pickle

import pytest

from evaluators.accuracy.data import load_dataset
from evaluators.protocol import EvaluationError, Measured
from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.space import DataSpec
from search_spaces.zoo import load_space
from studies.own import FunctionEvaluator, load_own_evaluator
from studies.presets import presets
from studies.repeat import RepeatedEvaluator
from studies.search import run_study
from studies.storage import TrialState
from tests.unit.studies.fakes import (
    FakeEvaluator,
    cheap_config,
    recorded,
    size_score,
    with_costs,
)

NET = Architecture.parse("input 1x8x8; conv 4 k3 s2 bn relu; gap; flatten; linear 10")
SPACE = load_space("mobile-cnn-small")

FILE = """
from evaluators.protocol import Measured

def weights(model, data):
    assert data.classes == 10
    return {"weights": sum(p.numel() for p in model.parameters()), "more": 1}

def number(model, data):
    return 3

def nothing(model, data):
    return {}

def words(model, data):
    return "many"

def infinite(model, data):
    return float("inf")

constant = 4

class Broken:
    metrics = slot = cache_key = evaluate = None

    def __init__(self):
        raise OSError("no camera")

class Nodes:
    metrics = ("nodes",)
    slot = "training"

    def cache_key(self, architecture):
        return ""

    def evaluate(self, architecture):
        return [Measured("nodes", float(len(architecture.nodes)))]
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(FILE)
    return path


def load(own, name, *metrics):
    return load_own_evaluator(f"{own}:{name}", load_dataset("digits"), metrics=metrics, seed=0)


def test_a_function_is_called_with_a_network_and_the_data(own):
    evaluator = load(own, "weights", "weights")
    assert evaluator.evaluate(NET) == [Measured("weights", float(NET.params))]
    assert evaluator.cache_key(NET) == load(own, "weights", "weights").cache_key(NET)
    assert load(own, "number", "loss").evaluate(NET) == [Measured("loss", 3.0)]


@pytest.mark.parametrize("name", ["weights", "Nodes"])
def test_it_travels_to_another_process(own, name):
    metric = name.lower()
    evaluator = load(own, name, metric)
    there = pickle.loads(pickle.dumps(evaluator))
    assert there.evaluate(NET) == evaluator.evaluate(NET)
    assert there.cache_key(NET) == evaluator.cache_key(NET)
    assert (there.metrics, there.slot) == ((metric,), "training")


def test_a_changed_function_is_another_one(own):
    dataset = load_dataset("digits")
    keys = {load(own, name, "loss").cache_key(NET) for name in ("weights", "number")}
    keys.add(FunctionEvaluator(lambda model, data: 1.0, dataset, ("loss",), 0).cache_key(NET))
    assert len(keys) == 3
    unwritten = eval("lambda model, data: 1.0")
    assert FunctionEvaluator(unwritten, dataset, ("loss",), 0).cache_key(NET) == ""


@pytest.mark.parametrize(
    ("name", "message"),
    [("nothing", "returned no loss"), ("words", "no number"), ("infinite", "returned inf")],
)
def test_what_is_no_figure_fails_the_candidate(own, name, message):
    with pytest.raises(EvaluationError, match=message):
        load(own, name, "loss").evaluate(NET)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("missing.py:f", "There is no Python file"),
        ("{own}:wights", "Did you mean 'weights'"),
        ("{own}", "Name the evaluator"),
        ("{own}:constant", "neither a function nor an evaluator"),
        ("{own}:Broken", "cannot be made: OSError: no camera"),
        ("no.such.module:f", "Cannot import"),
        ("unknown", "Unknown evaluator"),
    ],
)
def test_what_cannot_be_found_is_named(own, reference, message):
    with pytest.raises(NasError, match=message):
        load_own_evaluator(
            reference.format(own=own), load_dataset("digits"), metrics=("loss",), seed=0
        )


def test_a_function_without_a_metric_asks_for_its_name(own):
    with pytest.raises(NasError, match="Name it as an objective"):
        load(own, "number")


def test_a_study_by_a_users_function_and_an_object(own, tmp_path):
    """The function gives what the object does not."""
    config = cheap_config(
        objectives=["weights:min", "nodes:max"],
        evaluators=[f"{own}:Nodes", f"{own}:weights"],
        trials=3,
    )
    assert run_study(config, tmp_path).complete == 3
    for trial in recorded(tmp_path):
        if trial.state is TrialState.COMPLETE:
            assert trial.values["weights"].value == trial.values["params"].value
            assert trial.values["nodes"].value == trial.text.count(";") + 1


def test_of_several_functions_each_gives_the_metric_of_its_name(own, tmp_path):
    both = [f"{own}:weights", f"{own}:number"]
    objectives = ["weights:min", "number:max", "params"]
    config = cheap_config(objectives=objectives, evaluators=both, trials=2)
    assert run_study(config, tmp_path).complete == 2
    assert all(trial.values["number"].value == 3.0 for trial in recorded(tmp_path))
    unnamed = cheap_config(objectives=["weights:min", "penalty:max"], evaluators=both)
    with pytest.raises(NasError, match=r"own.py:number return\? .*metric of its own name"):
        run_study(unnamed, tmp_path / "unnamed")


def test_files_of_architectures_come_first_and_count(tmp_path):
    file = tmp_path / "net.json"
    file.write_text(json.dumps(NET.to_json()))
    config = cheap_config(
        objectives=["accuracy", "params"], enqueue=[str(file), str(file)], trials=4
    )
    fake = FakeEvaluator(size_score)
    run_study(config, tmp_path / "w", evaluators=with_costs(fake))
    trials = recorded(tmp_path / "w")
    assert [trial.key for trial in trials[:2]] == [NET.key] * 2
    assert [trial.state for trial in trials[:2]] == [TrialState.COMPLETE, TrialState.REPEAT]
    assert trials[0].origin == {"by": "enqueued", "file": str(file), "told": 0}
    assert len(fake.paid) == 4


def test_a_baseline_is_evaluated_beside_the_search(tmp_path):
    images = DataSpec((3, 32, 32), 10)
    config = cheap_config(baselines=["torchvision:squeezenet1_1"])
    (preset,) = presets(config, images, SPACE)
    assert preset.origin == {"by": "baseline", "name": "torchvision:squeezenet1_1"}
    assert preset.candidate.architecture.nodes[-1].shape == (10,)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"baselines": ["resnet18"]}, "torchvision:NAME"),
        ({"baselines": ["torchvision:resnet81"]}, "Did you mean 'resnet18'"),
        ({"enqueue": ["missing.json"]}, "Cannot read the architecture missing.json"),
    ],
)
def test_presets_that_cannot_be_had_are_named(settings, message):
    with pytest.raises(NasError, match=message):
        presets(cheap_config(**settings), DataSpec((3, 32, 32), 10), SPACE)


def test_presets_must_fit_the_data(tmp_path):
    file = tmp_path / "net.json"
    file.write_text(json.dumps(NET.to_json()))
    with pytest.raises(NasError, match="takes inputs"):
        presets(cheap_config(enqueue=[str(file)]), DataSpec((3, 32, 32), 10), SPACE)
    with pytest.raises(NasError, match="3 channels"):
        presets(cheap_config(baselines=["torchvision:resnet18"]), DataSpec((1, 8, 8), 10), SPACE)
    file.write_text("{")
    with pytest.raises(NasError, match="Cannot read"):
        presets(cheap_config(enqueue=[str(file)]), DataSpec((1, 8, 8), 10), SPACE)


def test_repeats_are_paid_on_purpose_and_show_their_noise():
    scores = iter([0.5, 0.7, 0.9])
    parts = tuple(FakeEvaluator(lambda _: next(scores)) for _ in range(3))
    evaluator = RepeatedEvaluator(parts)
    (figure,) = evaluator.evaluate(NET)
    assert (figure.metric, figure.low, figure.high) == ("accuracy", 0.5, 0.9)
    assert figure.value == pytest.approx(0.7)
    assert figure.detail["standard_deviation"] == pytest.approx(0.2)
    assert [item["value"] for item in figure.detail["repeats"]] == [0.5, 0.7, 0.9]
    assert evaluator.cache_key(NET) not in ("", parts[0].cache_key(NET))
