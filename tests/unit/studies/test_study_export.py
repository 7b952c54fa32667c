import csv
import json
import math
import os
from datetime import datetime

import optuna
import pytest

from evaluators.protocol import Measured
from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.space import Candidate
from studies.optuna_export import export_optuna
from studies.storage import Artifact, Repository, TrialState
from studies.study_export import Exported, export_csv, export_json
from studies.workspace import Workspace
from tests.unit.studies.storage.records import NET, SAMPLER, found, new_study

WIDER = Architecture.parse("input 1x8x8; conv 8 k3 bn relu; gap; flatten; linear 10")
MIXED = {"width": 16, "act": "relu", "bias": True, "skip": None, "ratio": 0.5}


@pytest.fixture
def place(tmp_path):
    """A trial of each state; two of different networks are complete."""
    with Workspace.of(tmp_path).open() as repository:
        study = new_study(
            repository, "s", objectives=["accuracy", "params"], constraints=["params<=90"]
        )

        def add(number, state, net, decisions, figures=(), **ended):
            candidate = Candidate(net, decisions, {"a rule": 2})
            trial = repository.add_trial(study.id, number, candidate, origin=SAMPLER)
            if figures:
                repository.add_evaluation(trial, found(*figures, key=f"k{number}"))
            if state is not TrialState.RUNNING:
                repository.finish_trial(trial, state, **ended)
            return trial

        figures = (
            Measured("accuracy", 0.75, 0.7, 0.8, {"epochs": [1, 2], "why": 'a "quote", and\nmore'}),
            Measured("params", 94.0),
            Measured("rf_gain", math.nan, detail={"odd": True}),
        )
        first = add(0, TrialState.COMPLETE, NET, MIXED, figures)
        smaller = (Measured("accuracy", 0.5), Measured("params", 45.0))
        add(1, TrialState.COMPLETE, WIDER, {**MIXED, "width": 8, "act": 1}, smaller)
        failed = [Measured("params", 1.0)]
        add(2, TrialState.FAILED, WIDER, {"width": 8}, failed, reason="because, \u00e9\n2")
        repeat = add(3, TrialState.REPEAT, NET, MIXED, reason="the same architecture as trial 0")
        repository.copy_values(first, repeat)
        add(4, TrialState.DROPPED, WIDER, MIXED, failed, reason="worse", stage="params")
        add(5, TrialState.RUNNING, WIDER, MIXED)
        repository.add_artifact(first, Artifact("weights", "weights", "ab" * 32, 7))
        repository.add_event(study.id, "started", {"complete": 0})
    return tmp_path


def recorded(place):
    with Workspace.of(place).open(create=False) as repository:
        return repository.trials(repository.study("s").id)


def test_a_table_has_a_row_for_each_trial(place):
    path = place / "trials.csv"
    assert export_csv(place, "s", path) == Exported(str(path), 6)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row, trial in zip(rows, recorded(place), strict=True):
        assert (int(row["number"]), row["state"]) == (trial.number, trial.state)
        assert (row["key"], row["text"], row["reason"]) == (
            trial.key,
            trial.text,
            trial.reason or "",
        )
        assert (row["stage"], row["origin"]) == (trial.stage or "", "sampler")
        assert datetime.fromisoformat(row["started"]) == trial.started
        choices = {
            name.removeprefix("choice "): json.loads(cell)
            for name, cell in row.items()
            if name.startswith("choice ") and cell
        }
        assert choices == trial.decisions
        for name in ("accuracy", "params"):
            value = trial.values.get(name)
            cells = [row[name + part] for part in ("", ".low", ".high")]
            figures = (value.value, value.low, value.high) if value else (None,) * 3
            assert [float(cell) if cell else None for cell in cells] == list(figures)
    assert rows[5]["ended"] == ""


def test_a_document_holds_everything(place):
    path = place / "study.json"
    assert export_json(place, "s", path).trials == 6
    document = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    with Workspace.of(place).open(create=False) as repository:
        study = repository.study("s")
        trials = repository.trials(study.id)
        assert document["format"] == 1
        assert document["study"]["config"] == study.config
        assert datetime.fromisoformat(document["study"]["created"]) == study.created
        for key in (NET.key, WIDER.key):
            assert Architecture.from_json(document["architectures"][key]) == (
                repository.architecture(key)
            )
        for item, trial in zip(document["trials"], trials, strict=True):
            assert (item["number"], item["state"], item["key"]) == (
                trial.number,
                trial.state,
                trial.key,
            )
            assert (item["decisions"], item["rejections"]) == (trial.decisions, trial.rejections)
            assert (item["stage"], item["reason"], item["origin"]) == (
                trial.stage,
                trial.reason,
                trial.origin,
            )
            assert {name: tuple(value.values()) for name, value in item["values"].items()} == {
                name: (value.value, value.low, value.high) for name, value in trial.values.items()
            }
    first = document["trials"][0]
    (evaluation,) = first["evaluations"]
    assert (evaluation["key"], evaluation["worker"]) == ("k0", "w1")
    assert [figure["value"] for figure in evaluation["figures"]] == [0.75, 94.0, None]
    assert evaluation["figures"][0]["detail"] == {"epochs": [1, 2], "why": 'a "quote", and\nmore'}
    assert first["artifacts"][0]["size"] == 7
    assert [event["kind"] for event in document["events"]] == ["started"]


@pytest.mark.parametrize("kind", ["journal", "url", "the record's own database"])
def test_an_optuna_study_holds_the_same(place, kind):
    target = {
        "journal": str(place / "optuna.log"),
        "url": f"sqlite:///{place}/optuna.db",
        "the record's own database": f"sqlite:///{place}/record.db",
    }[kind]
    assert export_optuna(place, "s", target) == Exported(target, 5, 1)
    storage = target
    if kind == "journal":
        backend = optuna.storages.journal.JournalFileBackend(target)
        storage = optuna.storages.JournalStorage(backend)
    study = optuna.load_study(study_name="s", storage=storage)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.metric_names == ["accuracy", "params"]
    assert study.user_attrs["config"]["constraints"] == ["params<=90"]
    states = ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE", "PRUNED"]
    assert [trial.state.name for trial in study.trials] == states
    for trial, ours in zip(study.trials, recorded(place), strict=False):
        assert trial.params == ours.decisions
        assert [type(value) for value in trial.params.values()] == [
            type(value) for value in ours.decisions.values()
        ]
        assert (trial.user_attrs["key"], trial.user_attrs["state"]) == (ours.key, ours.state)
        assert trial.user_attrs.get("reason") == ours.reason
        if trial.state.name == "COMPLETE":
            assert trial.values == [ours.values["accuracy"].value, ours.values["params"].value]
    assert study.trials[0].constraints == {"params<=90": pytest.approx(4 / 90)}
    assert study.trials[1].constraints == {"params<=90": -0.5}
    # The first is beyond the bound.
    assert [trial.number for trial in study.best_trials] == [1]
    assert len(recorded(place)) == 6
    with pytest.raises(NasError, match="has a study 's' already"):
        export_optuna(place, "s", target)


@pytest.mark.parametrize(
    ("export", "name"),
    [
        (export_csv, "nowhere/trials.csv"),
        (export_json, "nowhere/study.json"),
        (export_csv, "."),
        (export_json, "."),
        (export_optuna, "nowhere/journal.log"),
    ],
)
def test_what_cannot_be_written_gives_one_line(place, export, name):
    with pytest.raises(NasError, match="Cannot") as caught:
        export(place, "s", f"{place}/{name}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["nonsense://x", "sqlite:////nowhere/x.db", "://"])
def test_an_optuna_storage_that_cannot_be_used_gives_one_line(place, url):
    with pytest.raises(NasError, match="Cannot use the Optuna storage") as caught:
        export_optuna(place, "s", url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("export", [export_csv, export_json, export_optuna])
def test_only_what_is_recorded_is_exported(place, export):
    with pytest.raises(NasError, match="Unknown study 'none'"):
        export(place, "none", str(place / "out"))
    with pytest.raises(NasError, match="There is no record"):
        export(place / "elsewhere", "s", str(place / "out"))
    assert not os.path.lexists(place / "out")


def test_a_study_without_trials_is_exported(place):
    with Repository.open(place / "record.db") as repository:
        new_study(repository, "empty")
    assert export_csv(place, "empty", place / "e.csv").trials == 0
    assert export_json(place, "empty", place / "e.json").trials == 0
    assert export_optuna(place, "empty", str(place / "e.log")).trials == 0
