"""Points of a small real study, exported, audited and recorded."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from evaluators.accuracy.recipe import RECIPES, Recipe
from kernels.errors import NasError
from search_spaces.export.load import load
from studies import export_truth
from studies.audits import audits, latest, read_audit
from studies.config import StudyConfig
from studies.export_truth import without_folders
from studies.exports import Refused, export_points, export_trial
from studies.front import front
from studies.search import run_study
from studies.workspace import Workspace

STUDY = "small"
ROOT = Path(__file__).parents[3]


def add_recipe() -> None:
    """Make known how the study is trained, in this process or in one that is killed."""
    if "export-tiny" not in RECIPES:
        recipe = Recipe(
            name="export-tiny",
            optimiser="adamw",
            learning_rate=1e-2,
            weight_decay=0.0,
            batch_size=128,
            epochs=1,
        )
        RECIPES.add(recipe.name, recipe)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    add_recipe()
    place = tmp_path_factory.mktemp("study")
    config = StudyConfig(
        name=STUDY,
        space="mobile-cnn-small",
        data="digits",
        trials=3,
        recipe="export-tiny",
        objectives=("accuracy", "params"),
        device="cpu",
        workers=0,
    )
    run_study(config, place)
    return place


def _sql(place: Path, statement: str, *values: object) -> None:
    with sqlite3.connect(place / "record.db") as connection:
        connection.execute(statement, values)
    connection.close()


@pytest.fixture
def copy(study: Path, tmp_path: Path) -> Path:
    target = tmp_path / "run"
    (target / "artifacts").mkdir(parents=True)
    source, sink = (sqlite3.connect(folder / "record.db") for folder in (study, target))
    source.backup(sink)
    for connection in (source, sink):
        connection.close()
    for item in (study / "artifacts").iterdir():
        (target / "artifacts" / item.name).write_bytes(item.read_bytes())
    return target


def _first(place: Path) -> int:
    return front(place, STUDY)[0].trial


def test_a_whole_front_is_exported_audited_and_recorded(copy: Path, tmp_path: Path) -> None:
    expected = front(copy, STUDY)
    made = list(export_points(copy, STUDY, None, tmp_path / "out"))
    assert [item.trial for item in made] == [item.trial for item in expected]
    for item, point in zip(made, expected, strict=True):
        assert item.audit.passed, item.audit.rows()
        assert not item.reused
        assert item.directory.parent == tmp_path / "out"
        assert item.directory.name == f"small-{point.key[:12]}-plain"
        (recorded,) = audits(copy, STUDY, item.trial)
        assert recorded.audit == item.audit
        assert recorded.directory == str(item.directory)
        names = [check.name for check in item.audit.checks]
        assert "test_accuracy of python" in names
        card = (item.directory / "model_card.md").read_text()
        assert point.text[:30] in card
        assert f"trial {point.trial}" in card
        assert "export-tiny" in card
        assert str(copy) not in card
    with Workspace.of(copy).open() as repository:
        events = repository.events(repository.study(STUDY).id)
    said = [event.data for event in events if event.kind == "exported"]
    assert [item["trial"] for item in said] == [item.trial for item in made]
    assert all(item["passed"] and item["failed"] == [] for item in said)


def test_the_test_accuracy_is_measured_once_and_agrees(copy: Path, tmp_path: Path) -> None:
    number = _first(copy)
    made = export_trial(copy, STUDY, number, tmp_path / "one")
    with Workspace.of(copy).open() as repository:
        (trial,) = repository.trials(repository.study(STUDY).id, number=number)
    (check,) = [item for item in made.audit.checks if item.name.startswith("test_accuracy")]
    assert check.stated == trial.values["test_accuracy"].value == check.found


def test_an_interrupted_export_goes_on_where_it_was(copy: Path, tmp_path: Path) -> None:
    number = _first(copy)
    (first,) = export_points(copy, STUDY, [number], tmp_path)
    before = (first.directory / "export.json").stat().st_mtime_ns
    (again,) = export_points(copy, STUDY, [number], tmp_path)
    assert again.reused
    assert again.audit == first.audit
    assert (first.directory / "export.json").stat().st_mtime_ns == before
    assert len(audits(copy, STUDY, number)) == 1
    (first.directory / "model.safetensors").write_bytes(b"")  # no longer whole
    (repaired,) = export_points(copy, STUDY, [number], tmp_path)
    assert not repaired.reused
    assert repaired.audit.passed
    assert len(audits(copy, STUDY, number)) == 2


def test_another_format_is_not_taken_for_the_same_export(copy: Path, tmp_path: Path) -> None:
    number = _first(copy)
    export_trial(copy, STUDY, number, tmp_path / "one", to=("safetensors",))
    second = export_trial(copy, STUDY, number, tmp_path / "one", to=("python",))
    assert not second.reused
    assert (second.directory / "model.py").exists()


def test_weights_alone_are_loaded_with_this_package(copy: Path, tmp_path: Path) -> None:
    made = export_trial(copy, STUDY, _first(copy), tmp_path / "mine", to=("safetensors",))
    assert made.audit.passed, made.audit.remarks()
    names = [check.name for check in made.audit.checks]
    assert "outputs of safetensors" in names  # weights by themselves are audited as well
    assert "test_accuracy of safetensors" in names
    assert not (made.directory / "model.py").exists()
    output = load(tmp_path / "mine")(torch.zeros(2, 1, 8, 8))
    assert output.shape == (2, 10)


def test_a_packed_export_is_audited_here(copy: Path, tmp_path: Path) -> None:
    made = export_trial(copy, STUDY, _first(copy), tmp_path / "packed", form="packed")
    assert made.audit.passed, made.audit.rows()
    assert made.audit.form == "packed"


def test_a_failed_audit_is_recorded_as_such(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = _first(copy)
    truth_of = export_truth.truth_of

    def overstated(*arguments: object) -> object:
        truth = truth_of(*arguments)  # type: ignore[arg-type]
        object.__setattr__(truth, "test_accuracy", 2.0)
        return truth

    monkeypatch.setattr("studies.exports.truth_of", overstated)
    made = export_trial(copy, STUDY, number, tmp_path / "one")
    assert not made.audit.passed
    assert [check.name for check in audits(copy, STUDY, number)[0].audit.failures] == [
        "test_accuracy of python"
    ]
    again = export_trial(copy, STUDY, number, tmp_path / "one")
    assert not again.reused


@pytest.mark.parametrize("name", ["../../out'\"\n# class", "x" * 10_000], ids=["path", "long"])
def test_a_hostile_study_and_space_stay_in_the_folder(
    copy: Path, tmp_path: Path, name: str
) -> None:
    number = _first(copy)
    with Workspace.of(copy).open() as repository:
        conditions = {**repository.study(STUDY).conditions, "space": f"{name} version 1"}
    _sql(copy, "update study set name = ?, conditions = ?", name, json.dumps(conditions))
    (made,) = export_points(copy, name, [number], tmp_path / "out")
    assert made.audit.passed, made.audit.remarks()
    assert made.directory.resolve().parent == (tmp_path / "out").resolve()
    assert [item.name for item in (tmp_path / "out").iterdir()] == [made.directory.name]
    assert max(map(len, (made.directory / "model_card.md").read_text().splitlines())) < 400


# What cannot be exported.


def test_a_trial_without_weights(copy: Path, tmp_path: Path) -> None:
    for item in (copy / "artifacts").glob("*.safetensors"):
        item.unlink()
    with pytest.raises(NasError, match="There are no trained weights"):
        export_trial(copy, STUDY, _first(copy), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_packed_export_on_another_device(copy: Path, tmp_path: Path) -> None:
    conditions = json.dumps({"device": "cuda (NVIDIA of the study)"})
    _sql(copy, "update study set conditions = ?", conditions)
    with pytest.raises(NasError, match=r"measured on cuda.*use --form plain") as caught:
        export_trial(copy, STUDY, _first(copy), tmp_path / "out", form="packed")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"study": "other"}, "Unknown study 'other'"),
        ({"trial": 99}, "has no trial 99"),
        ({"form": "flat"}, "Unknown form"),
        ({"to": ["onyx"]}, "Unknown format.*Did you mean 'onnx'"),
        ({"to": []}, "Name at least one format"),
    ],
)
def test_what_is_not_there(
    study: Path, tmp_path: Path, arguments: dict[str, object], message: str
) -> None:
    settings = {"study": STUDY, "trial": _first(study), "directory": tmp_path / "out"}
    with pytest.raises(NasError, match=message):
        export_trial(study, **{**settings, **arguments})  # type: ignore[arg-type]


def test_one_that_cannot_be_exported_does_not_keep_the_others_from_it(
    copy: Path, tmp_path: Path
) -> None:
    with Workspace.of(copy).open() as repository:
        trials = repository.trials(repository.study(STUDY).id)[:2]
        keys = [repository.detail(trial.id, "accuracy")["dense_key"] for trial in trials]
    assert keys[0] != keys[1]
    Workspace.of(copy).weights._name(keys[0]).unlink()
    refused: list[Refused] = []
    (made,) = export_points(copy, STUDY, [0, 1], tmp_path, on_refused=refused.append)
    assert (made.trial, made.audit.passed) == (1, True)
    assert [item.trial for item in refused] == [0]
    assert "There are no trained weights" in refused[0].reason
    with pytest.raises(NasError, match="There are no trained weights"):
        list(export_points(copy, STUDY, [0, 1], tmp_path))


def test_an_audit_whose_file_is_gone(copy: Path, tmp_path: Path) -> None:
    number = _first(copy)
    export_trial(copy, STUDY, number, tmp_path / "out")
    for item in (copy / "artifacts").glob("*.json"):
        item.unlink()
    with pytest.raises(NasError, match="were the artifacts moved"):
        audits(copy, STUDY, number)
    again = export_trial(copy, STUDY, number, tmp_path / "out")
    assert not again.reused  # what was found is lost, so it is looked at again
    assert again.audit.passed


def test_audits_are_read_by_trial_and_by_artifact(copy: Path, tmp_path: Path) -> None:
    number = _first(copy)
    for name in ("one", "two", "one"):
        (tmp_path / name / "model.safetensors").unlink(missing_ok=True)
        export_trial(copy, STUDY, number, tmp_path / name)
    records = audits(copy, STUDY, number)
    assert [Path(item.directory).name for item in records] == ["one", "two", "one"]
    assert [item.time for item in records] == sorted(item.time for item in records)
    assert {item.directory: item.time for item in latest(records)} == {
        str(tmp_path / "one"): records[2].time,
        str(tmp_path / "two"): records[1].time,
    }
    with Workspace.of(copy).open() as repository:
        (trial,) = repository.trials(repository.study(STUDY).id, number=number)
        found = [item for item in repository.artifacts(trial.id) if item.kind == "audit"]
    assert [read_audit(copy, item.content_hash) for item in found] == records
    with pytest.raises(NasError, match="has no trial 99"):
        audits(copy, STUDY, 99)


def test_a_killed_export_of_several_goes_on_where_it_was(copy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = (
        "from tests.unit.studies import test_exports as t; t.add_recipe(); "
        f"[print(item.trial) for item in t.export_points({str(copy)!r}, 'small', [0, 1, 2], "
        f"{str(out)!r})]"
    )
    with (tmp_path / "said").open("w+") as said:
        command = [sys.executable, "-u", "-c", code]
        process = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said)
        _wait_for(lambda: len(list(out.glob("*-plain"))) == 2, process)  # in its second audit
        process.kill()
        process.wait()
        said.seek(0)
        assert said.read() == "0\n"
    made = list(export_points(copy, STUDY, [0, 1, 2], out))
    assert [item.reused for item in made] == [True, False, False]
    assert all(item.audit.passed for item in made)
    assert [len(audits(copy, STUDY, number)) for number in range(3)] == [1, 1, 1]
    assert len(list(out.iterdir())) == 3


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    while not condition():
        assert process.poll() is None
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("digits", "digits"),
        ("npz:/home/someone/flowers.npz", "npz:flowers.npz"),
        ("npz:/home/someone/flowers.npz?train=500", "npz:flowers.npz?train=500"),
        ("folder:/data/a b/birds?size=64", "folder:birds?size=64"),
        ("/home/someone/mine.py:load", "mine.py:load"),
        ("mine/sets.py:load?test=10", "sets.py:load?test=10"),
        ("package.module:load", "package.module:load"),
        ("cpu (AMD EPYC 9R14)", "cpu (AMD EPYC 9R14)"),
        ("cpu (Some Co. 1/2 core)", "cpu (Some Co. 1/2 core)"),
        ("mobile-cnn version 1", "mobile-cnn version 1"),
    ],
)
def test_an_export_names_no_folder_of_this_machine(reference: str, expected: str) -> None:
    assert without_folders(reference) == expected
