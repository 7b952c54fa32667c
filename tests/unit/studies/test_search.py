from datetime import datetime
from math import inf, nan

import pytest

from evaluators.protocol import EvaluationError
from kernels.errors import NasError
from studies.executors import LocalExecutor
from studies.front import front
from studies.search import Ending, run_study
from studies.storage import TrialState
from studies.workspace import Workspace
from tests.unit.studies.fakes import (
    FakeEvaluator,
    cheap_config,
    counted,
    recorded,
    size_score,
    space_file,
    with_costs,
)


def events(place, name="cheap"):
    with Workspace.of(place).open(create=False) as repository:
        return repository.events(repository.study(name).id)


def stops_at(count, how, inner=size_score):
    """A score that raises once, when it is asked for the ``count``-th time."""
    calls = 0

    def score(architecture):
        nonlocal calls
        calls += 1
        if calls == count:
            raise how
        return inner(architecture)

    return score


class Killed(BaseException):
    """Stands in for ``kill -9``: nothing may clean up after it."""


FAKE = {"objectives": ["accuracy", "params"]}


@pytest.mark.parametrize("sampler", ["ehvi", "evolution", "tpe", "random", "nsga2"])
def test_a_seed_gives_one_study(tmp_path, sampler):
    config = cheap_config(sampler=sampler, trials=12)
    for place in ("a", "b"):
        run_study(config, tmp_path / place)
    assert counted(recorded(tmp_path / "a")) == counted(recorded(tmp_path / "b"))


def test_bounds_found_by_arithmetic_cost_no_trial(tmp_path):
    config = cheap_config(
        objectives=["accuracy", "macs"], constraints=["params<=3k"], sampler="ehvi", trials=25
    )
    summary = run_study(config, tmp_path, evaluators=with_costs(FakeEvaluator(size_score)))
    assert (summary.complete, dict(summary.dropped)) == (25, {})


@pytest.mark.parametrize("how", [KeyboardInterrupt(), Killed()])
def test_an_interrupted_study_equals_one_that_was_not(tmp_path, how):
    config = cheap_config(**FAKE, trials=12)
    run_study(config, tmp_path / "whole", evaluators=with_costs(FakeEvaluator(size_score)))
    for at in (3, 9):
        fake = FakeEvaluator(stops_at(at, how))
        with pytest.raises(type(how)):
            run_study(config, tmp_path / "parts", evaluators=with_costs(fake))
    summary = run_study(
        config, tmp_path / "parts", evaluators=with_costs(FakeEvaluator(size_score))
    )
    assert counted(recorded(tmp_path / "parts")) == counted(recorded(tmp_path / "whole"))
    assert (summary.ending, summary.complete, summary.failed) == (Ending.DONE, 12, 0)


def test_what_an_interrupted_trial_paid_is_kept(tmp_path):
    first, second = FakeEvaluator(size_score), FakeEvaluator(stops_at(1, KeyboardInterrupt()))
    second.metrics = ("rf_gain",)
    config = cheap_config(objectives=["accuracy", "rf_gain"], trials=2)
    with pytest.raises(KeyboardInterrupt):
        run_study(config, tmp_path, evaluators=[first, second])
    run_study(config, tmp_path, evaluators=[first, second])
    assert len(first.paid) == len(set(first.paid)) == 2
    assert [event.kind for event in events(tmp_path)].count("evaluated") == 4


def test_a_finished_study_is_not_paid_again_and_may_grow(tmp_path):
    fake = FakeEvaluator(size_score)
    config = cheap_config(**FAKE, trials=4)
    first = run_study(config, tmp_path, evaluators=with_costs(fake))
    again = run_study(config, tmp_path, evaluators=with_costs(fake))
    assert (len(fake.paid), again.front) == (4, first.front)
    more = cheap_config(**FAKE, trials=6)
    assert run_study(more, tmp_path, evaluators=with_costs(fake)).complete == 6
    assert len(fake.paid) == 6


def test_another_study_of_the_workspace_pays_nothing_twice(tmp_path):
    fake = FakeEvaluator(size_score)
    for name in ("one", "two"):
        config = cheap_config(**FAKE, name=name, sampler="random", trials=5)
        run_study(config, tmp_path, evaluators=with_costs(fake))
    assert len(fake.paid) == 5
    assert counted(recorded(tmp_path, "one")) == counted(recorded(tmp_path, "two"))


def test_a_study_of_other_settings_is_refused(tmp_path):
    run_study(cheap_config(trials=1), tmp_path)
    with pytest.raises(NasError, match="with seed 0, not 1"):
        run_study(cheap_config(trials=1, seed=1), tmp_path)
    with pytest.raises(NasError, match="objectives"):
        run_study(cheap_config(trials=1, objectives=["macs"]), tmp_path)


@pytest.mark.parametrize("sampler", ["random", "ehvi"])
def test_repeats_are_recorded_not_paid_and_end_the_study(tmp_path, sampler):
    fake = FakeEvaluator(size_score)
    config = cheap_config(
        **FAKE, space=space_file(tmp_path, [4, 8, 12]), trials=10, max_repeats=15, sampler=sampler
    )
    summary = run_study(config, tmp_path, evaluators=with_costs(fake))
    assert (summary.ending, summary.complete, len(fake.paid)) == (Ending.EXHAUSTED, 3, 3)
    assert "exhausted" in summary.message
    trials = recorded(tmp_path)
    repeats = [trial for trial in trials if trial.state is TrialState.REPEAT]
    assert summary.repeats == len(repeats) >= 15
    originals = {trial.key: trial for trial in trials if trial.state is TrialState.COMPLETE}
    assert all(trial.values == originals[trial.key].values for trial in repeats)
    assert all("same architecture as trial" in trial.reason for trial in repeats)
    assert len({point.key for point in summary.front}) == len(summary.front)
    assert run_study(config, tmp_path, evaluators=with_costs(fake)).ending is Ending.EXHAUSTED
    assert len(recorded(tmp_path)) == len(trials)


@pytest.mark.parametrize(
    "problem", [EvaluationError("the loss is nan"), ValueError("a user's bug"), MemoryError()]
)
def test_a_failing_candidate_is_recorded_and_the_study_goes_on(tmp_path, problem):
    fake = FakeEvaluator(stops_at(2, problem))
    summary = run_study(cheap_config(**FAKE, trials=4), tmp_path, evaluators=with_costs(fake))
    assert (summary.complete, summary.failed) == (4, 1)
    failed = recorded(tmp_path)[1]
    assert failed.state is TrialState.FAILED
    assert str(problem) in failed.reason
    assert failed.values.keys() >= {"params", "macs"}
    assert failed.key not in {point.key for point in summary.front}


@pytest.mark.parametrize("bad", [nan, inf, -inf])
def test_an_objective_that_is_not_finite_fails_and_is_never_on_a_front(tmp_path, bad):
    scores = iter([0.5, bad, 0.6, bad, 0.7])
    fake = FakeEvaluator(lambda _: next(scores))
    summary = run_study(cheap_config(**FAKE, trials=3), tmp_path, evaluators=with_costs(fake))
    trials = recorded(tmp_path)
    failed = [trial for trial in trials if trial.state is TrialState.FAILED]
    assert (summary.complete, len(failed)) == (3, 2)
    assert all(f"accuracy is {bad}" in trial.reason for trial in failed)
    assert all("accuracy" not in trial.values for trial in failed)
    keys = {point.key for point in front(tmp_path, "cheap")}
    assert keys == {point.key for point in summary.front}
    assert not keys & {trial.key for trial in failed}


def test_a_study_where_all_fails_ends_and_says_why(tmp_path):
    def fails(_):
        raise EvaluationError("no such luck.")

    config = cheap_config(**FAKE, max_failures=4)
    summary = run_study(config, tmp_path, evaluators=with_costs(FakeEvaluator(fails)))
    assert (summary.ending, summary.complete, summary.front) == (Ending.FAILING, 0, ())
    assert "no such luck" in summary.message


def test_a_missing_figure_fails_the_candidate(tmp_path):
    class Silent(FakeEvaluator):
        def evaluate(self, architecture):
            return []

    config = cheap_config(**FAKE, max_failures=1)
    summary = run_study(config, tmp_path, evaluators=with_costs(Silent(size_score)))
    assert "The metric accuracy was not given" in summary.message


def test_an_objective_without_an_evaluator_is_refused_before_anything_is_recorded(tmp_path):
    with pytest.raises(NasError, match="No evaluator gives 'accuracy'"):
        run_study(cheap_config(**FAKE), tmp_path / "w", evaluators=[FakeEvaluator(int, metric="x")])
    assert not (tmp_path / "w").exists()


def test_two_evaluators_of_one_metric_are_refused(tmp_path):
    twice = [FakeEvaluator(size_score), FakeEvaluator(size_score)]
    with pytest.raises(NasError, match="'accuracy' twice"):
        run_study(cheap_config(objectives=["accuracy"]), tmp_path, evaluators=twice)


def test_rejections_stand_in_the_record(tmp_path):
    place = space_file(tmp_path, [4, 5, 6, 7, 8], rule="width % 2 == 0")
    run_study(cheap_config(space=place, trials=3, max_repeats=500), tmp_path)
    trials = recorded(tmp_path)
    assert sum(trial.rejections.get("width % 2 == 0", 0) for trial in trials) > 0
    assert all(trial.decisions["width"] % 2 == 0 for trial in trials)


def test_progress_follows_the_record(tmp_path):
    seen = []
    run_study(cheap_config(trials=3), tmp_path, on_progress=seen.append)
    assert counted([item.trial for item in seen]) == counted(recorded(tmp_path))
    assert [item.complete for item in seen] == [1, 2, 3]


def test_events_tell_the_story(tmp_path):
    costs = with_costs(FakeEvaluator(size_score))
    run_study(cheap_config(**FAKE, trials=2), tmp_path, evaluators=costs, executor=LocalExecutor())
    story = events(tmp_path)
    assert [event.kind for event in story] == ["started", "evaluated", "evaluated", "ended"]
    for event in story[1:3]:
        begin, end = (datetime.fromisoformat(event.data[name]) for name in ("started", "ended"))
        assert begin <= end <= event.time
        assert event.data["slot"] == "training"
        assert event.data["metrics"] == ["accuracy"]
