from dataclasses import replace

import pytest

from evaluators.protocol import Measured
from kernels.errors import NasError, UnknownNameError
from studies.config import StudyConfig
from studies.front import front, front_of
from studies.manage import (
    archive_study,
    compare_studies,
    delete_study,
    list_studies,
    show_study,
)
from studies.storage import Owner, StudyBusyError, TrialState
from studies.workspace import Workspace
from tests.unit.studies.storage.records import CANDIDATE, SAMPLER, found, new_study

GOALS = ["accuracy", "params"]


def add(repository, study, *points, origin=SAMPLER, state=TrialState.COMPLETE, reason=None):
    """Add trials of these accuracies and parameters."""
    for accuracy, params in points:
        number = len(repository.trials(study.id))
        trial = repository.add_trial(study.id, number, CANDIDATE, origin=origin)
        figures = Measured("accuracy", accuracy), Measured("params", float(params))
        repository.add_evaluation(trial, found(*figures, seconds=1.5))
        repository.finish_trial(trial, state, reason)


@pytest.fixture
def place(tmp_path):
    """Two studies whose fronts cross, one that is worse everywhere, and an empty one."""
    with Workspace.of(tmp_path).open() as repository:
        a = new_study(repository, "a", objectives=GOALS)
        add(repository, a, (0.9, 100), (0.8, 50), (0.7, 60))
        add(repository, a, (1.0, 1), origin={"by": "baseline", "name": "x"})
        add(repository, a, (1.0, 1), state=TrialState.FAILED, reason="out of memory")
        b = new_study(repository, "b", objectives=GOALS)
        add(repository, b, (0.85, 80))
        c = new_study(repository, "c", objectives=GOALS)
        add(repository, c, (0.8, 100), (0.8, 110))
        new_study(repository, "empty", objectives=GOALS)
    return tmp_path


def test_a_list_tells_what_each_study_is_and_has(place):
    line, *others = list_studies(place)
    assert [item.name for item in others] == ["b", "c", "empty"]
    assert (line.name, line.space, line.objectives) == (
        "a",
        "mobile-cnn-small",
        ("accuracy", "params"),
    )
    assert line.counts == {
        TrialState.COMPLETE: 3,  # a baseline is no trial of the search
        TrialState.FAILED: 1,
        TrialState.RUNNING: 0,
        TrialState.REPEAT: 0,
        TrialState.DROPPED: 0,
    }
    assert (line.best, line.archived, line.driver) == (0.9, False, None)
    assert line.created < line.last_activity
    empty = others[-1]
    assert (empty.best, empty.last_activity) == (None, empty.created)


def test_the_best_of_what_is_to_be_small_is_the_smallest(tmp_path):
    with Workspace.of(tmp_path).open() as repository:
        study = new_study(repository, "s", objectives=["params", "accuracy"])
        add(repository, study, (0.9, 100), (0.8, 50))
    assert list_studies(tmp_path)[0].best == 50


def test_a_study_is_shown_with_its_reasons_and_what_was_spent(place):
    with Workspace.of(place).open() as repository:
        study = repository.study("a")
        trial = repository.add_trial(study.id, 10, CANDIDATE, origin=SAMPLER)
        repository.finish_trial(trial, TrialState.DROPPED, "worse", stage="rf_gain")
        owner = replace(Owner.here(), host="node7")
        repository.take_lease(study.id, owner, 60)
    view = show_study(place, "a")
    assert view.line.name == "a"
    assert (view.line.driver.host, view.line.driver.pid) == ("node7", owner.pid)
    assert view.config["objectives"] == GOALS
    assert (view.conditions, view.versions) == ({"data": "x"}, {"t": "2"})
    assert view.reasons == {"out of memory": 1, "dropped at rf_gain": 1}
    assert view.seconds == {"accuracy": 7.5}
    with pytest.raises(UnknownNameError, match="Known: a, b, c, empty"):
        show_study(place, "d")


def test_studies_are_compared_by_one_reference(place):
    result = compare_studies(place, ["a", "b"])
    assert result.objectives == ("accuracy", "params")
    assert result.directions == ("max", "min")
    # Worst of the fronts is (0.8, 100), their range (0.1, 50).
    assert result.reference == pytest.approx((0.79, 105))
    a, b = result.studies
    assert (a.name, a.complete, a.front, b.complete, b.front) == ("a", 3, 2, 1, 1)
    # In units of the box from (0.9, 50) to the reference, 0.11 by 55: elevenths.
    assert a.hypervolume == pytest.approx((11 + 11 - 1) / 121)
    assert b.hypervolume == pytest.approx(6 * 5 / 121)
    assert (a.best, b.best) == ((0.9, 50), (0.85, 80))
    assert (a.covers, b.covers) == ({"b": 0.0}, {"a": 0.0})


def test_coverage_counts_equal_and_dominated_points(place):
    with Workspace.of(place).open() as repository:
        study = new_study(repository, "d", objectives=GOALS)
        add(repository, study, (0.9, 100), (0.75, 45))
    covers = {item.name: item.covers for item in compare_studies(place, "abcd").studies}
    assert covers["a"] == {"b": 0, "c": 1, "d": 0.5}
    assert covers["d"] == {"a": 0.5, "b": 0, "c": 1}
    assert covers["b"] == {"a": 0, "c": 1, "d": 0}
    assert covers["c"] == {"a": 0, "b": 0, "d": 0}


def test_a_study_without_trials_can_be_compared(place):
    _, empty = compare_studies(place, ["b", "empty"]).studies
    assert (empty.complete, empty.front, empty.hypervolume) == (0, 0, 0.0)
    assert (empty.best, empty.covers) == ((None, None), {"b": 0.0})
    with Workspace.of(place).open() as repository:
        new_study(repository, "empty2", objectives=GOALS)
    nothing = compare_studies(place, ["empty", "empty2"])
    assert nothing.reference == ()
    assert [item.hypervolume for item in nothing.studies] == [0, 0]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a"], "at least two different studies"),
        (["a", "a"], "at least two different studies"),
        (["a", "other"], "'a' searches for accuracy, params and 'other' for macs"),
        (["a", "none"], "Unknown study 'none'"),
    ],
)
def test_what_cannot_be_compared_is_refused(place, names, message):
    with Workspace.of(place).open() as repository:
        new_study(repository, "other", objectives=["macs"])
    with pytest.raises(NasError, match=message):
        compare_studies(place, names)


def test_an_archived_study_is_listed_only_on_demand(place):
    assert archive_study(place, "b").archived
    assert [item.name for item in list_studies(place)] == ["a", "c", "empty"]
    archived = {item.name: item.archived for item in list_studies(place, archived=True)}
    assert archived == {"a": False, "b": True, "c": False, "empty": False}
    assert len(front(place, "b")) == 1
    archive_study(place, "b", archived=False)
    assert len(list_studies(place)) == 4


def test_a_study_that_runs_is_deleted_only_by_force(place):
    owner = replace(Owner.here(), host="node7")
    with Workspace.of(place).open() as repository:
        repository.take_lease(repository.study("a").id, owner, 60)
    with pytest.raises(StudyBusyError, match=r"run by process \d+ on node7"):
        delete_study(place, "a")
    assert len(front(place, "a")) == 2
    assert delete_study(place, "b") == 1
    assert delete_study(place, "a", force=True) == 5
    assert [item.name for item in list_studies(place)] == ["c", "empty"]
    with Workspace.of(place).open() as repository, pytest.raises(StudyBusyError, match="deleted"):
        repository.renew_lease(1, owner, 60)


@pytest.mark.parametrize("constraints", [[], ["params<=60"], ["accuracy>=0.85", "macs<=5"]])
def test_a_front_is_the_same_from_the_record_and_from_trials(tmp_path, constraints):
    with Workspace.of(tmp_path).open() as repository:
        study = new_study(repository, "s", objectives=GOALS, constraints=constraints)
        points = [(0.9, 100), (0.8, 50), (0.7, 60), (0.8, 50), (0.95, 200)]
        add(repository, study, *points)
        add(repository, study, (1.0, 1), origin={"by": "baseline", "name": "x"})
        add(repository, study, (1.0, 1), state=TrialState.DROPPED)
        for trial in repository.trials(study.id):
            macs = Measured("macs", float(trial.number))
            repository.add_values(trial.id, [macs])
        trials = repository.trials(study.id)
    expected = {
        "": [4, 0, 1, 3],
        "params<=60": [1, 3],
        "accuracy>=0.85": [4, 0],
    }["".join(constraints[:1])]
    found_front = front(tmp_path, "s")
    assert [point.trial for point in found_front] == expected
    assert front_of(trials, StudyConfig(**study.config)) == found_front
