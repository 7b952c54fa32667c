import sqlite3
from datetime import UTC, timedelta

import pytest

from evaluators.protocol import Measured
from kernels.errors import NasError, UnknownNameError
from search_spaces.architecture import Architecture
from search_spaces.space import Candidate
from studies.storage import Repository, TrialState, Value

NET = Architecture.parse("input 1x8x8; conv 4 k3 bn relu; gap; flatten; linear 10")
CANDIDATE = Candidate(NET, {"width": 4, "bias": True, "act": None, "co": 0.5}, {"a rule": 2})


@pytest.fixture
def repository(tmp_path):
    with Repository.open(tmp_path / "deep" / "record.db") as opened:
        yield opened


@pytest.fixture
def study(repository):
    return repository.add_study("s", {"trials": 3}, conditions={"data": "x"}, versions={"t": "2"})


def test_studies_read_back(repository, study):
    assert repository.find_study("s") == study
    assert repository.studies() == [study]
    assert repository.find_study("none") is None
    assert study.created.utcoffset() == timedelta(0)
    repository.set_config(study.id, {"trials": 4})
    assert repository.study("s").config == {"trials": 4}
    with pytest.raises(UnknownNameError, match="Did you mean 's'"):
        repository.study("ss")
    with pytest.raises(NasError, match="UNIQUE"):
        repository.add_study("s", {}, conditions={}, versions={})


def test_trials_read_back(repository, study):
    first = repository.add_trial(study.id, 0, CANDIDATE)
    second = repository.add_trial(study.id, 1, CANDIDATE)
    detail = {"samples": (1.0, 2.0), "odd": float("nan"), "deep": {"x": [None, True]}}
    repository.add_values(first, [Measured("latency_ms", 1.5, 1.0, 2.0, detail)], cache_key="k")
    repository.add_values(first, [Measured("params", 94.0)])
    repository.finish_trial(first, TrialState.COMPLETE)
    repository.finish_trial(second, TrialState.FAILED, "because")
    trial, other = repository.trials(study.id)
    assert dict(trial.decisions) == CANDIDATE.decisions
    assert (trial.key, trial.text, trial.rejections) == (NET.key, NET.text, {"a rule": 2})
    assert trial.values == {"latency_ms": Value(1.5, 1.0, 2.0), "params": Value(94.0)}
    assert (trial.state, trial.reason) == (TrialState.COMPLETE, None)
    assert (other.number, other.state, other.reason) == (1, TrialState.FAILED, "because")
    assert trial.started.tzinfo is UTC
    assert trial.started <= trial.ended
    assert repository.trials(study.id, number=1) == [other]
    assert repository.detail(first, "latency_ms") == {
        "samples": [1.0, 2.0],
        "odd": None,
        "deep": {"x": [None, True]},
    }
    assert repository.detail(first, "params") == {}


def test_an_architecture_is_stored_once_and_reads_back(repository, study):
    for number in range(3):
        repository.add_trial(study.id, number, CANDIDATE)
    assert repository.architecture(NET.key) == NET
    with pytest.raises(NasError, match="no architecture"):
        repository.architecture("0" * 32)


def test_cached_figures_are_found_across_studies(repository, study):
    other = repository.add_study("t", {}, conditions={}, versions={})
    for owner, value in ((study, 1.0), (other, 2.0)):
        trial = repository.add_trial(owner.id, 0, CANDIDATE)
        figures = [Measured("latency_ms", value, 0.5, None, {"n": value})]
        repository.add_values(trial, figures, cache_key="k")
    (found,) = repository.cached("k", ["latency_ms"])
    assert (found.value, found.low, found.high, found.detail) == (1.0, 0.5, None, {"n": 1.0})
    assert repository.cached("k", ["latency_ms", "energy_mj"]) is None
    assert repository.cached("other", ["latency_ms"]) is None


def test_only_running_trials_are_closed(repository, study):
    ids = [repository.add_trial(study.id, number, CANDIDATE) for number in range(2)]
    repository.finish_trial(ids[0], TrialState.COMPLETE)
    assert repository.fail_running(study.id, "interrupted") == 1
    states = [(trial.state, trial.reason) for trial in repository.trials(study.id)]
    assert states == [(TrialState.COMPLETE, None), (TrialState.FAILED, "interrupted")]


def test_a_figure_that_is_not_finite_is_refused(repository, study):
    trial = repository.add_trial(study.id, 0, CANDIDATE)
    with pytest.raises(NasError, match="finite"):
        repository.add_values(trial, [Measured("accuracy", float("nan"))])


def test_a_number_is_given_once(repository, study):
    repository.add_trial(study.id, 0, CANDIDATE)
    with pytest.raises(NasError, match="another process"):
        repository.add_trial(study.id, 0, CANDIDATE)


def test_events_read_back_in_order(repository, study):
    repository.add_event(study.id, "started", {"a": 1})
    repository.add_event(study.id, "ended", {})
    events = repository.events(study.id)
    assert [(event.kind, event.data) for event in events] == [("started", {"a": 1}), ("ended", {})]
    assert events[0].time <= events[1].time


def test_a_record_is_not_made_by_looking_for_it(tmp_path):
    with pytest.raises(NasError, match="no record"):
        Repository.open(tmp_path / "record.db", create=False)
    assert not list(tmp_path.iterdir())


def test_what_is_no_database_is_refused(tmp_path):
    path = tmp_path / "record.db"
    path.write_text("certainly not a database, although it is long enough to be taken for one")
    with pytest.raises(NasError, match="not a database"):
        Repository.open(path)


def test_another_database_is_refused_for_reading(tmp_path):
    path = tmp_path / "record.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE study (x)")
    for create in (True, False):
        with pytest.raises(NasError, match="no record of studies"):
            Repository.open(path, create=create)


def test_a_newer_schema_is_refused(tmp_path):
    path = tmp_path / "record.db"
    Repository.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE name = 'schema_version'")
    with pytest.raises(NasError, match="schema 99"):
        Repository.open(path)


@pytest.mark.parametrize("url", ["nonsense://x", "postgresql://", "://"])
def test_an_unusable_url_gives_one_line(url):
    with pytest.raises(NasError, match="Cannot use"):
        Repository.open(url)
