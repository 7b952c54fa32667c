from dataclasses import replace
from datetime import UTC, timedelta
from math import inf, nan

import pytest

from evaluators.protocol import Measured
from kernels.errors import NasError, UnknownNameError
from search_spaces.architecture import Architecture
from search_spaces.space import Candidate
from studies.storage import Artifact, Owner, Repository, TrialState, Value
from tests.unit.studies.storage.records import (
    CANDIDATE,
    NET,
    SAMPLER,
    bulk_study,
    found,
    new_study,
)


@pytest.fixture
def study(repository):
    return new_study(repository)


def begin(repository, study, number=0, origin=SAMPLER):
    return repository.add_trial(study.id, number, CANDIDATE, origin=origin)


def test_studies_read_back(repository, study):
    assert repository.find_study("s") == study
    assert repository.studies() == [study]
    assert repository.find_study("none") is None
    assert study.created.utcoffset() == timedelta(0)
    repository.set_config(study.id, {"trials": 4})
    assert repository.study("s").config == {"trials": 4}
    with pytest.raises(UnknownNameError, match="Did you mean 's'"):
        repository.study("ss")
    with pytest.raises(NasError, match=r"refused a row .*(UNIQUE|unique)"):
        repository.add_study("s", {}, conditions={}, versions={})
    with pytest.raises(NasError, match="no study 99"):
        repository.set_config(99, {})


def test_an_archived_study_is_left_out_of_lists_only(repository, study):
    other = new_study(repository, "t")
    repository.archive(study.id, True)
    assert [item.name for item in repository.studies()] == ["t"]
    assert [item.archived for item in repository.studies(archived=True)] == [True, False]
    assert repository.study("s").archived
    repository.archive(study.id, False)
    assert repository.studies() == [study, other]


def test_trials_read_back(repository, study):
    origin = {"by": "sampler", "parent": 3, "change": ["width", 8]}
    first, second, third = (begin(repository, study, number, origin) for number in range(3))
    detail = {"samples": (1.0, 2.0), "odd": nan, "deep": {"x": [None, True]}}
    repository.add_evaluation(first, found(Measured("latency_ms", 1.5, 1.0, 2.0, detail), key="k"))
    repository.add_evaluation(first, found(Measured("params", 94.0)))
    repository.finish_trial(first, TrialState.COMPLETE)
    repository.finish_trial(second, TrialState.FAILED, "because")
    repository.finish_trial(third, TrialState.DROPPED, "too slow", stage="latency_ms")
    trial, other, last = repository.trials(study.id)
    assert dict(trial.decisions) == CANDIDATE.decisions
    assert (trial.key, trial.text, trial.rejections) == (NET.key, NET.text, {"a rule": 2})
    assert trial.values == {"latency_ms": Value(1.5, 1.0, 2.0), "params": Value(94.0)}
    assert (trial.state, trial.reason, trial.stage) == (TrialState.COMPLETE, None, None)
    assert trial.origin == origin
    assert (other.number, other.state, other.reason) == (1, TrialState.FAILED, "because")
    assert (last.state, last.reason, last.stage) == (TrialState.DROPPED, "too slow", "latency_ms")
    assert trial.started.tzinfo is UTC
    assert trial.started <= trial.ended
    assert repository.trials(study.id, number=1) == [other]
    assert repository.trials(study.id, since=1) == [other, last]
    assert repository.trials_of([third, first]) == [last, trial]
    assert repository.detail(first, "latency_ms") == {
        "samples": [1.0, 2.0],
        "odd": None,
        "deep": {"x": [None, True]},
    }
    assert repository.detail(first, "params") == repository.detail(first, "none") == {}


def test_many_trials_are_read_by_their_ids(tmp_path):
    bulk_study(tmp_path / "record.db", 1203)
    with Repository.open(tmp_path / "record.db") as repository:
        assert repository.trials_of(range(1203, 0, -1)) == repository.trials(1)[::-1]


def test_an_architecture_is_stored_once_and_reads_back(repository, study):
    for number in range(3):
        begin(repository, study, number)
    assert repository.architecture(NET.key) == NET
    with pytest.raises(NasError, match="no architecture"):
        repository.architecture("0" * 32)


def test_figures_are_reused_across_studies(repository, study):
    first = begin(repository, study)
    figures = (
        Measured("latency_ms", 1.0, 0.5, None, {"n": 1}),
        Measured("energy_mj", 2.0, None, 3.0),
    )
    repository.add_evaluation(first, found(*figures, key="k"))
    other = new_study(repository, "t")
    second = begin(repository, other)
    assert repository.reuse(second, "k", ["energy_mj", "latency_ms"]) == [figures[1], figures[0]]
    (trial,) = repository.trials(other.id)
    assert trial.values == {"latency_ms": Value(1.0, 0.5), "energy_mj": Value(2.0, None, 3.0)}
    assert repository.detail(second, "latency_ms") == {"n": 1}
    assert repository.evaluations(second) == repository.evaluations(first)
    assert repository.seconds_spent(study.id) == {"latency_ms": 2.0}
    assert repository.seconds_spent(other.id) == {}


@pytest.mark.parametrize(("key", "metrics"), [("k", ["accuracy", "bad"]), ("other", ["accuracy"])])
def test_what_is_not_all_there_is_not_reused(repository, study, key, metrics):
    first, second = begin(repository, study), begin(repository, study, 1)
    figures = Measured("accuracy", 0.5), Measured("bad", nan)
    repository.add_evaluation(first, found(*figures, key="k"))
    assert repository.reuse(second, key, metrics) is None
    assert repository.trials(study.id, number=1)[0].values == {}


def test_of_two_evaluations_of_one_key_the_first_is_found_and_both_keep_their_details(
    repository, study
):
    trials = [begin(repository, study, number) for number in range(3)]
    for trial, value in zip(trials, (1.0, 2.0), strict=False):
        figure = Measured("latency_ms", value, detail={"is": value})
        repository.add_evaluation(trial, found(figure, key="k"))
    assert repository.reuse(trials[2], "k", ["latency_ms"])[0].value == 1.0
    read = [trial.values["latency_ms"].value for trial in repository.trials(study.id)]
    assert read == [1.0, 2.0, 1.0]
    assert [repository.detail(trial, "latency_ms")["is"] for trial in trials] == read
    assert [repository.evaluations(trial)[0].key for trial in trials] == ["k", None, "k"]
    assert repository.seconds_spent(study.id) == {"latency_ms": 4.0}


def test_without_a_key_nothing_is_shared(repository, study):
    for number, key in enumerate([None, None, "", ""]):
        trial = begin(repository, study, number)
        repository.add_evaluation(trial, found(Measured("x", float(number)), key=key))
    assert [trial.values["x"].value for trial in repository.trials(study.id)] == [0, 1, 2, 3]
    assert repository.reuse(trial, "", ["x"]) is None


def test_evaluations_read_back(repository, study):
    trial = begin(repository, study)
    evaluation = found(Measured("accuracy", 0.5, 0.25, 0.75, {"epochs": [1, 2]}), key="k")
    repository.add_evaluation(trial, evaluation)
    assert repository.evaluations(trial) == [evaluation]


def test_only_finite_figures_are_values_but_all_keep_their_details(repository, study):
    trial = begin(repository, study)
    figures = Measured("a", nan, detail={"why": "diverged"}), Measured("b", 1.0, -inf, inf)
    repository.add_evaluation(trial, found(*figures, key="k"))
    assert repository.trials(study.id)[0].values == {"b": Value(1.0)}
    first, second = repository.evaluations(trial)[0].figures
    assert first.value != first.value
    assert (first.detail, second) == ({"why": "diverged"}, Measured("b", 1.0))


def test_added_values_keep_their_details(repository, study):
    trial = begin(repository, study)
    repository.add_values(trial, [Measured("test_accuracy", 0.5, 0.4, 0.6, {"correct": 2})])
    assert repository.trials(study.id)[0].values == {"test_accuracy": Value(0.5, 0.4, 0.6)}
    assert repository.detail(trial, "test_accuracy") == {"correct": 2}
    for bad in (nan, inf):
        with pytest.raises(NasError, match="accuracy must be finite"):
            repository.add_values(trial, [Measured("params", 1.0), Measured("accuracy", bad)])
    with pytest.raises(NasError, match="refused a row"):
        repository.add_values(trial, [Measured("test_accuracy", 0.5)])
    assert repository.trials(study.id)[0].values.keys() == {"test_accuracy"}


def test_copied_values_keep_their_details(repository, study):
    first, second, empty = (begin(repository, study, number) for number in range(3))
    repository.add_evaluation(first, found(Measured("accuracy", 0.5, 0.4, 0.6, {"n": 1}), key="k"))
    repository.copy_values(first, second)
    repository.copy_values(empty, first)
    trials = repository.trials(study.id)
    assert trials[0].values == trials[1].values == {"accuracy": Value(0.5, 0.4, 0.6)}
    assert repository.detail(second, "accuracy") == {"n": 1}


def test_a_refused_figure_leaves_nothing_of_its_evaluation(repository, study):
    trial, other = begin(repository, study), begin(repository, study, 1)
    repository.add_evaluation(trial, found(Measured("accuracy", 0.5)))
    with pytest.raises(NasError, match="refused a row"):
        repository.add_evaluation(
            trial, found(Measured("params", 1.0), Measured("accuracy", 0.5), key="k")
        )
    assert repository.trials(study.id)[0].values.keys() == {"accuracy"}
    assert repository.reuse(other, "k", ["params"]) is None


def test_a_number_is_given_once(repository, study):
    begin(repository, study)
    with pytest.raises(NasError, match="another process"):
        begin(repository, study)


def test_what_is_gone_cannot_be_finished(repository):
    with pytest.raises(NasError, match="no trial 7"):
        repository.finish_trial(7, TrialState.COMPLETE)


def test_events_read_back_in_order(repository, study):
    repository.add_event(study.id, "started", {"a": 1})
    repository.add_event(study.id, "ended", {})
    events = repository.events(study.id)
    assert [(event.kind, event.data) for event in events] == [("started", {"a": 1}), ("ended", {})]
    assert events[0].time <= events[1].time
    assert repository.last_activity(study.id) == events[1].time


def test_trials_are_found_by_key_and_baselines_apart(repository, study):
    first = repository.add_trial(study.id, 0, CANDIDATE, origin={"by": "baseline", "name": "x"})
    other = Candidate(Architecture.parse("input 1x8x8; gap; flatten; linear 10"), {"a": 1})
    second = repository.add_trial(study.id, 1, other, origin=SAMPLER)
    assert [item.id for item in repository.trials(study.id, baselines=True)] == [first]
    key = other.architecture.key
    assert [item.id for item in repository.trials(study.id, key=key[:8])] == [second]
    assert repository.trials(study.id, key="%") == [], "no pattern"
    assert [item.id for item in repository.trials(study.id, since=1)] == [second]


def test_the_newest_events_and_those_of_a_trial(repository, study):
    for number in range(6):
        repository.add_event(study.id, "evaluated", {"trial": number % 2, "count": number})
    repository.add_event(study.id, "ended", {"message": "done"})
    repository.add_event(new_study(repository, "t").id, "evaluated", {"trial": 1})
    newest = repository.events(study.id, newest=2)
    assert [(item.kind, item.data.get("count")) for item in newest] == [
        ("evaluated", 5),
        ("ended", None),
    ]
    mine = repository.events(study.id, trial=1)
    assert [item.data["count"] for item in mine] == [1, 3, 5]
    assert [item.data["count"] for item in repository.events(study.id, trial=1, newest=1)] == [5]


def test_an_evaluation_its_files_and_its_event_are_there_together(repository, study):
    trial = begin(repository, study)
    artifact = Artifact("weights.safetensors", "weights", "ab" * 32, 12)
    good = replace(found(Measured("accuracy", 0.5)), artifacts=(artifact,))
    owner = Owner.here()
    repository.take_lease(study.id, owner, 60.0)
    journal = repository.journal(study.id, owner)
    journal.know({0: trial})
    journal.evaluated(0, good)
    journal.event("evaluated", {"trial": 0})
    journal.store()
    assert repository.artifacts(trial) == [artifact]
    assert [item.kind for item in repository.events(study.id)] == ["evaluated"]
    journal.evaluated(0, found(Measured("accuracy", 0.7)))
    journal.event("evaluated", {"trial": 0})
    with pytest.raises(NasError):
        journal.store()
    assert len(repository.events(study.id)) == 1, "neither the figure nor its event"


def test_artifacts_read_back(repository, study):
    trial = begin(repository, study)
    weights = Artifact("weights.safetensors", "weights", "ab" * 32, 2**40)
    log = Artifact("log.txt", "log", "cd" * 32, 0)
    for item in (weights, log):
        repository.add_artifact(trial, item)
    assert repository.artifacts(trial) == [log, weights]
    with pytest.raises(NasError, match="refused a row"):
        repository.add_artifact(trial, log)


def test_objective_rows_are_those_of_complete_trials_with_all_the_metrics(repository, study):
    ends = [
        ("complete", SAMPLER, ("a", "b")),
        ("complete", {"by": "baseline", "name": "x"}, ("a", "b")),
        ("complete", {"by": "enqueued"}, ("b", "a", "c")),
        ("complete", SAMPLER, ("a",)),
        ("failed", SAMPLER, ("a", "b")),
        ("repeat", SAMPLER, ("a", "b")),
        ("dropped", SAMPLER, ("a", "b")),
        ("running", SAMPLER, ("a", "b")),
        ("complete", SAMPLER, ("a", "b")),
    ]
    ids = []
    for number, (state, origin, metrics) in reversed(list(enumerate(ends))):
        trial = begin(repository, study, number, origin)
        ids.append(trial)
        figures = [Measured(name, number + (name == "b") / 2) for name in metrics]
        repository.add_evaluation(trial, found(*figures))
        repository.finish_trial(trial, TrialState(state))
    ids.reverse()
    rows = repository.objective_rows(study.id, ["b", "a"])
    assert rows[0].tolist() == [ids[0], ids[2], ids[8]]
    assert rows[1].tolist() == [0, 2, 8]
    assert rows[2].tolist() == [[0.5, 0], [2.5, 2], [8.5, 8]]
    assert [str(item.dtype) for item in rows] == ["int64", "int64", "float64"]
    empty = repository.objective_rows(study.id, ["none", "a"])
    assert [item.shape for item in empty] == [(0,), (0,), (0, 2)]


def test_states_and_reasons_are_counted(repository, study):
    ends = [
        (TrialState.COMPLETE, None, None),
        (TrialState.FAILED, "out of memory", None),
        (TrialState.FAILED, "out of memory", None),
        (TrialState.FAILED, "NaN", None),
        (TrialState.DROPPED, "worse than half", "rf_gain"),
        (TrialState.DROPPED, "worse than most", "rf_gain"),
        (TrialState.REPEAT, "the same architecture as trial 0", None),
    ]
    for number, (state, reason, stage) in enumerate(ends):
        repository.finish_trial(begin(repository, study, number), state, reason, stage=stage)
    begin(repository, study, len(ends))
    assert repository.count_states(study.id) == {
        TrialState.RUNNING: 1,
        TrialState.COMPLETE: 1,
        TrialState.FAILED: 3,
        TrialState.REPEAT: 1,
        TrialState.DROPPED: 2,
    }
    assert repository.reasons(study.id) == {"out of memory": 2, "NaN": 1, "dropped at rf_gain": 2}


def test_deleting_a_study_leaves_the_others_and_what_they_may_reuse(repository, study):
    other = new_study(repository, "t")
    first, second = begin(repository, study), begin(repository, other)
    repository.add_evaluation(first, found(Measured("accuracy", 0.5, detail={"n": 1}), key="k"))
    repository.add_evaluation(first, found(Measured("params", 9.0)))
    repository.reuse(second, "k", ["accuracy"])
    repository.add_artifact(first, Artifact("a", "weights", "00", 1))
    repository.add_event(study.id, "started", {})
    repository.take_lease(study.id, Owner.here(), 60)
    kept = repository.trials(other.id)
    repository.delete_study(study.id)
    assert repository.studies() == [other]
    assert repository.trials(study.id) == repository.events(study.id) == []
    assert repository.trials(other.id) == kept
    assert repository.detail(second, "accuracy") == {"n": 1}
    assert repository.architecture(NET.key) == NET
    third = begin(repository, other, 1)
    assert repository.reuse(third, "k", ["accuracy"])[0].value == 0.5
    assert new_study(repository, "s").name == "s"
