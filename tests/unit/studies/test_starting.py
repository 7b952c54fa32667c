"""Studies that begin from a trained model."""

from __future__ import annotations

import importlib.util
import json
import pickle
from pathlib import Path

import pytest
import torch

from evaluators.accuracy.data import load_dataset
from evaluators.accuracy.evaluation import evaluate
from evaluators.accuracy.evaluator import AccuracyEvaluator, Start
from evaluators.accuracy.recipe import Recipe
from kernels.errors import NasError, UnknownNameError
from kernels.registry import Registry
from search_spaces import variants
from search_spaces.architecture import Architecture
from search_spaces.build import build, load_weights, weights_by_node
from search_spaces.errors import ArchitectureError
from search_spaces.models import load_model
from search_spaces.ops import Op, Shape
from search_spaces.pack import pack
from studies.config import StudyConfig
from studies.own import FunctionEvaluator
from studies.presets import presets
from studies.search import run_study
from studies.starting import trained_model
from studies.workspace import Workspace
from tests.unit.studies.fakes import recorded

FILE = """
import torch
from torch import nn


def model():
    torch.manual_seed(0)
    body = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*body, nn.Linear(4, 10))


def wide():
    torch.manual_seed(0)
    first, second, last = nn.Linear(64, 256), nn.Linear(256, 256), nn.Linear(256, 10)
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.ReLU(), last)


def nothing():
    return 3


def broken():
    raise RuntimeError("no weights here")
"""
STILL = Recipe(
    name="still", optimiser="sgd", learning_rate=1e-12, weight_decay=0.0, batch_size=64, epochs=1
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FILE, encoding="utf-8")
    return path


@pytest.fixture
def offers(monkeypatch: pytest.MonkeyPatch) -> None:
    class Low:
        def offers(self, op: Op, inputs: tuple[Shape, ...]) -> list[str]:
            return ["w1a2"] if op.kind == "conv" else []

    registry: Registry[object] = Registry("variant")
    registry.add("low", Low())
    monkeypatch.setattr(variants, "VARIANTS", registry)


def test_a_model_without_variants_that_run_here_says_so_in_one_line(
    file: Path, tmp_path: Path
) -> None:
    config = StudyConfig(name="s", from_model=f"{file}:model", data="digits", workers=0)
    with pytest.raises(NasError, match="no variant of its layers can run here") as caught:
        run_study(config, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert "(90 parameters)" in str(caught.value)


@pytest.mark.usefixtures("offers")
def test_its_weights_are_kept_and_every_training_begins_from_them(
    file: Path, tmp_path: Path
) -> None:
    data, place = load_dataset("digits"), Workspace.of(tmp_path / "run")
    trained = trained_model(f"{file}:model", data.spec, place)
    assert trained.space.name == f"variants of {file}:model"
    assert [c.decisions for c in trained.space.enumerate(data.spec)] == [
        {"0/variant": "dense"},
        {"0/variant": "w1a2"},
    ]
    start = pickle.loads(pickle.dumps(trained.start))
    mine = AccuracyEvaluator(data, STILL, seed=7, start=start)
    fresh = AccuracyEvaluator(data, STILL, seed=7)
    assert mine.dense_key(trained.architecture) != fresh.dense_key(trained.architecture)
    expected = evaluate(load_model(f"{file}:model"), data.validation)
    assert mine.evaluate(trained.architecture)[0].value == expected.value
    again = trained_model(f"{file}:model", data.spec, place)
    assert again.start.digest == trained.start.digest

    seen = {}

    def look(module: torch.nn.Module, _: object) -> float:
        seen.update(module.state_dict())
        return 1.0

    own = FunctionEvaluator(look, data, ("mine",), 0, start=start)
    own.evaluate(trained.architecture)
    weights = weights_by_node(build(trained.architecture), trained.architecture)
    assert sorted(map(str, seen.values())) == sorted(map(str, weights.values()))
    assert own.cache_key(trained.architecture) != FunctionEvaluator(
        look, data, ("mine",), 0
    ).cache_key(trained.architecture)


def test_variants_of_a_model_are_judged_in_the_form_in_which_they_run(
    file: Path, tmp_path: Path
) -> None:
    data, place = load_dataset("digits"), Workspace.of(tmp_path / "run")
    trained = trained_model(f"{file}:wide", data.spec, place, ("shfl_bw",))
    found = [item.architecture for item in trained.space.enumerate(data.spec)]
    assert len(found) == 5
    assert sum(bool(item.regions) for item in found) == 4
    store = place.weights
    evaluator = AccuracyEvaluator(
        data, STILL, seed=0, start=trained.start, save=store.save, load=store.load
    )
    keys = {evaluator.dense_key(item) for item in found}
    assert len(keys) == 1, "variants share their weights"
    sparse = next(item for item in found if "V=64,density=0.25" in item.text)
    (first,) = evaluator.evaluate(sparse)
    assert "history" in first.detail, "it was trained"
    (second,) = evaluator.evaluate(sparse)
    assert "history" not in second.detail, "its weights were there"
    assert (second.value, second.detail["weights"]) == (first.value, first.detail["weights"])
    module = build(sparse)
    load_weights(module, sparse, store.load(keys.pop()))
    packed = evaluate(pack(sparse, module), data.validation)
    assert first.value == pytest.approx(packed.value)
    assert first.value != evaluate(module, data.validation).value

    kinds = []

    def look(module: torch.nn.Module, _: object) -> float:
        kinds.extend(type(item).__name__ for item in module.modules())
        return 1.0

    FunctionEvaluator(look, data, ("mine",), 0, start=trained.start).evaluate(sparse)
    assert kinds.count("ShflBWLinear") == 1


def test_a_study_of_the_variants_of_a_model(file: Path, tmp_path: Path) -> None:
    config = StudyConfig(
        name="s",
        from_model=f"{file}:wide",
        variants=("shfl_bw",),
        data="digits",
        objectives=("accuracy", "latency_ms"),
        recipe="digits-short?epochs=2",
        trials=3,
        workers=0,
        device="cpu",
    )
    summary = run_study(config, tmp_path / "run")
    assert summary.complete == 3
    assert summary.front
    origins = [trial.origin["by"] for trial in recorded(tmp_path / "run", "s")]
    assert origins == ["everywhere"] * 3


def test_such_a_study_begins_with_each_variant_everywhere(file: Path, tmp_path: Path) -> None:
    data, place = load_dataset("digits"), Workspace.of(tmp_path / "run")
    trained = trained_model(f"{file}:wide", data.spec, place, ("shfl_bw",))

    def begun(*files: Path) -> list[dict[str, object]]:
        config = StudyConfig(
            name="s",
            from_model=f"{file}:wide",
            variants=("shfl_bw",),
            data="digits",
            enqueue=tuple(map(str, files)),
        )
        found = presets(config, data.spec, trained.space)
        assert all(bool(item.candidate.decisions) != ("file" in item.origin) for item in found)
        return [dict(item.origin) for item in found]

    names = ["dense", *(f"shfl_bw(V={v},density={d})" for v in (32, 64) for d in (0.5, 0.25))]
    assert begun() == [{"by": "everywhere", "variant": name} for name in names]
    dense = tmp_path / "dense.json"
    dense.write_text(json.dumps(trained.architecture.to_json()))
    assert begun(dense) == [{"by": "enqueued", "file": str(dense)}, *begun()[1:]]


def test_weights_of_another_network_are_refused() -> None:
    other = Architecture.parse("input 1x8x8; conv 5 k3; gap; flatten; linear 10")
    start = Start("d", lambda _: {"1.conv.weight": torch.zeros(4, 1, 3, 3)})
    with pytest.raises(ArchitectureError, match="do not fit"):
        start.give(build(other), other)


def test_a_space_or_a_model_not_both() -> None:
    with pytest.raises(NasError, match="not both"):
        StudyConfig(name="s", space="vit", from_model="torchvision:resnet18", data="digits")
    config = StudyConfig(name="s", from_model="torchvision:resnet18", data="digits")
    assert config.space == "variants of torchvision:resnet18"
    assert StudyConfig(**config.to_json()) == config


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("torchvision:resnet19", "Unknown torchvision model 'resnet19'.*resnet18"),
        ("{file}:nothing", "must return an nn.Module, got int"),
        ("{file}:broken", "raised RuntimeError: no weights here"),
        ("{file}:missing", "Unknown model in"),
        ("transformers:{folder}", "holds no model: config.json|pip install transformers"),
    ],
)
def test_models_that_cannot_be_had(
    file: Path, tmp_path: Path, reference: str, message: str
) -> None:
    with pytest.raises((NasError, UnknownNameError), match=message) as caught:
        load_model(reference.format(file=file, folder=tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="needs the package transformers"
)
def test_a_folder_of_hugging_face(tmp_path: Path) -> None:
    import transformers

    config = transformers.GPT2Config(
        n_embd=16, n_layer=1, n_head=2, vocab_size=40, n_positions=8, bos_token_id=1, eos_token_id=1
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    module = load_model(f"transformers:{tmp_path}")
    assert type(module).__name__ == "GPT2LMHeadModel"
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(NasError, match="cannot be loaded"):
        load_model(f"transformers:{tmp_path}")
