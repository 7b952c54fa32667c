"""Early stopping in a study of real trainings: what is stopped, and what that is said to cost."""

import pytest

from evaluators.accuracy.recipe import RECIPES, get_recipe
from kernels.errors import NasError
from studies.config import RungConfig
from studies.funnel import make_stages
from studies.rungs import with_rungs
from studies.search import run_study
from studies.stopping import stopping_report, stopping_text
from studies.storage import TrialState
from studies.workspace import Workspace
from tests.unit.studies.fakes import FakeEvaluator, cheap_config, counted, recorded, size_score

REAL = {
    "data": "digits?train=200",
    "recipe": "digits-short?epochs=4",
    "objectives": ["accuracy", "params"],
    "seed": 3,
}


class Steps(FakeEvaluator):
    """Stands in for a training of 40 epochs that can be looked at."""

    steps = 40

    def until(self, step, metrics):
        part = Steps(self._function)
        part.metrics = metrics
        return part

    def state_files(self, architecture):
        return ()


@pytest.mark.parametrize(
    ("given", "epochs"),
    [("halving", [5, 10, 20]), (["0.5", "8:0.5"], [8, 20]), (["0.01", "3"], [3])],
)
def test_rungs_are_epochs_or_shares_of_them(given, epochs):
    config = cheap_config(objectives=["accuracy"], rungs=given)
    evaluators, rungs, gates = with_rungs(config, [Steps(size_score)])
    assert [rung.epoch for rung in rungs] == epochs
    assert [gate.by for gate in gates] == [f"accuracy[epoch={epoch}]" for epoch in epochs]
    assert [item.metrics[0] for item in evaluators] == [*(gate.by for gate in gates), "accuracy"]
    stages = make_stages(config, evaluators, gates=gates, rungs=rungs)
    assert len(stages) == len(epochs) + 1


@pytest.mark.parametrize(
    ("rungs", "message"),
    [
        (["40"], "ends after 40 epochs, so nothing can be stopped after epoch 40"),
        (["1.5"], "give a whole epoch, or a share below 1, got 1.5"),
        (["soon"], "write EPOCH:SHARE, or 'halving' alone, got 'soon'"),
        (["0"], "greater than 0"),
    ],
)
def test_rungs_that_cannot_be_are_one_line(rungs, message):
    with pytest.raises(NasError, match=message):
        with_rungs(cheap_config(objectives=["accuracy"], rungs=rungs), [Steps(size_score)])


def test_rungs_without_a_training_are_one_line():
    with pytest.raises(NasError, match="no objective comes from a training that can be stopped"):
        with_rungs(cheap_config(rungs=["2"]), [FakeEvaluator(size_score)])


def test_halving_is_of_the_recipe_whatever_the_data():
    for _, recipe in RECIPES:
        chosen = [item.of(recipe.epochs) for item in cheap_config(rungs="halving").rungs]
        assert all(epoch < recipe.epochs for epoch in chosen)
    assert [RungConfig(epoch=0.5).of(get_recipe("digits-short").epochs)] == [
        get_recipe("digits-short").epochs // 2
    ]


def test_trainings_are_stopped_go_on_and_are_told_of(tmp_path):
    """Who goes on is trained from where it stood, and ends as if it had not stopped."""
    config = cheap_config(
        **REAL, trials=6, rungs=[{"epoch": 2, "keep": 0.2, "after": 2}], control=0.3
    )
    summary = run_study(config, tmp_path / "w")
    trials = recorded(tmp_path / "w")
    stopped = [trial for trial in trials if trial.state is TrialState.DROPPED]
    assert stopped
    assert all("accuracy" not in trial.values for trial in stopped)
    with Workspace.of(tmp_path / "w").open() as repository:
        study = repository.study("cheap")
        report = stopping_report(repository, study)
        done = next(trial for trial in trials if trial.state is TrialState.COMPLETE)
        history = repository.detail(done.id, "accuracy")["history"]
    assert report is not None
    assert report.stopped == {2: len(stopped)}
    assert (report.begun, report.epochs) == (len(stopped) + summary.complete, 4)
    assert report.epochs_saved == 2 * len(stopped)
    assert stopping_text(report) in summary.notes
    assert history[1]["validation"] == done.values["accuracy[epoch=2]"].value
    assert list((tmp_path / "w" / "checkpoints").glob("*")) == []
    run_study(cheap_config(**REAL, trials=6), tmp_path / "whole")
    whole = {trial.key: trial for trial in recorded(tmp_path / "whole")}
    for trial in trials:
        if trial.state is TrialState.COMPLETE and trial.key in whole:
            assert trial.values["accuracy"] == whole[trial.key].values["accuracy"]


def test_a_study_with_rungs_goes_on_as_if_it_had_not_been_interrupted(tmp_path):
    settings = {**REAL, "rungs": [{"epoch": 1, "keep": 0.5, "after": 2}], "control": 0.0}
    run_study(cheap_config(**settings, trials=2), tmp_path / "w")
    run_study(cheap_config(**settings, trials=5), tmp_path / "w")
    run_study(cheap_config(**settings, trials=5), tmp_path / "whole")
    assert counted(recorded(tmp_path / "w")) == counted(recorded(tmp_path / "whole"))
