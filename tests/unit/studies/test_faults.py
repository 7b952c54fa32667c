"""What can go wrong in a study: one clear line, and nothing paid for is lost."""

import time

import pytest

from evaluators.analytic import AnalyticEvaluator
from kernels.errors import NasError
from studies import asker, search, supply
from studies.search import Ending, run_study
from studies.storage import TrialState
from tests.unit.studies.diary import Diary, Faulty
from tests.unit.studies.fakes import (
    FakeEvaluator,
    cheap_config,
    counted,
    recorded,
    size_score,
    with_costs,
)

FAKE = {"objectives": ["accuracy", "params"]}

SPACE = """
from search_spaces.builder import NetworkBuilder
from search_spaces.space import space

@space("own", version=1)
def own(choose, data):
    net = NetworkBuilder(data.input_shape)
    width = choose("width", list(range(4, 68, 4)))
    {line}
    return net.classifier(net.conv(net.input, width, kernel=3), data.classes)
"""


def own_space(folder, line):
    path = folder / "own.py"
    path.write_text(SPACE.format(line=line))
    return str(path)


def one_line(caught):
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_space_that_always_raises_ends_the_study_and_names_the_place(tmp_path):
    config = cheap_config(space=own_space(tmp_path, "raise KeyError('depth')"), trials=2)
    with pytest.raises(NasError, match=r"KeyError in own\.py, line 9: 'depth'") as caught:
        run_study(config, tmp_path / "w")
    one_line(caught)


def test_a_space_that_raises_for_some_answers_goes_on_with_the_others(tmp_path):
    place = own_space(tmp_path, "assert width % 8, 'too even'")
    summary = run_study(cheap_config(space=place, trials=7), tmp_path / "w")
    assert (summary.ending, summary.complete) == (Ending.DONE, 7)
    trials = recorded(tmp_path / "w")
    assert all(trial.decisions["width"] % 8 for trial in trials)
    rules = {rule for trial in trials for rule in trial.rejections}
    assert rules == {"AssertionError in own.py, line 9: too even"}


def test_a_space_that_never_ends_is_interrupted(tmp_path, monkeypatch):
    monkeypatch.setattr(asker, "ASK_SECONDS", 0.5)
    place = own_space(tmp_path, "\n    while True: pass")
    begin = time.monotonic()
    with pytest.raises(NasError, match="'own' did not return within") as caught:
        run_study(cheap_config(space=place, trials=2), tmp_path / "w")
    one_line(caught)
    assert time.monotonic() - begin < 10


def faulty_study(place, how, **settings):
    config = cheap_config(**{**FAKE, "trials": 5, "workers": 2, "lookahead": 2, **settings})
    return run_study(config, place, evaluators=[AnalyticEvaluator(), Faulty(how)])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("raise", "ValueError: a user's bug"),
        ("nan", "The metric accuracy is nan."),
        ("exit", "the worker died 3 times"),
        ("memory", "out of memory"),
        ("hang", "exceeded the limit of 1 s"),
        ("grow", "exceeded the limit of 300 MiB"),
    ],
)
def test_a_candidate_that_goes_wrong_fails_and_the_study_goes_on(tmp_path, how, message):
    """Only one candidate in three goes wrong."""
    limits = {"trial_minutes": 1 / 60} if how == "hang" else {}
    if how == "grow":
        limits = {"trial_memory_mb": 300}
    summary = faulty_study(tmp_path / "w", how, **limits)
    assert (summary.ending, summary.complete) == (Ending.DONE, 5)
    failed = [trial for trial in recorded(tmp_path / "w") if trial.state is TrialState.FAILED]
    assert failed
    for trial in failed:
        assert message in trial.reason
        assert "\n" not in trial.reason
        assert trial.values.keys() >= {"params"}
        assert trial.key not in {point.key for point in summary.front}


def test_a_full_disk_ends_the_study_before_it_pays_and_it_goes_on_later(tmp_path, monkeypatch):
    fake = FakeEvaluator(size_score)
    config = cheap_config(**FAKE, trials=6)
    run_study(config.model_copy(update={"trials": 3}), tmp_path, evaluators=with_costs(fake))
    with monkeypatch.context() as full:
        full.setattr(supply, "MIN_FREE_BYTES", 1 << 60)
        with pytest.raises(NasError, match=r"Only \d+ MB are free at .*same command") as caught:
            run_study(config, tmp_path, evaluators=with_costs(fake))
    one_line(caught)
    assert len(fake.paid) == 3
    run_study(config, tmp_path, evaluators=with_costs(fake))
    run_study(config, tmp_path / "whole", evaluators=with_costs(FakeEvaluator(size_score)))
    assert counted(recorded(tmp_path)) == counted(recorded(tmp_path / "whole"))
    assert len(fake.paid) == 6


def test_a_budget_of_minutes_ends_a_run_and_the_next_goes_on(tmp_path):
    diary = Diary(tmp_path / "diary", seconds=0.05)
    config = cheap_config(**FAKE, trials=40, minutes=0.02)
    costs = [AnalyticEvaluator(), diary]
    first = run_study(config, tmp_path / "w", evaluators=costs)
    assert first.ending is Ending.BUDGET
    assert "minutes of this run are over" in first.message
    assert 0 < first.complete < 40
    second = run_study(config, tmp_path / "w", evaluators=costs)
    assert second.complete > first.complete
    spent = cheap_config(**FAKE, trials=40, device_minutes=0.001)
    third = run_study(spent, tmp_path / "w", evaluators=costs)
    assert (third.ending, third.complete) == (Ending.BUDGET, second.complete)
    assert "minutes of evaluation are spent" in third.message


def test_an_evaluator_that_cannot_travel_says_what_to_do(tmp_path):
    config = cheap_config(**FAKE, workers=1)
    with pytest.raises(NasError, match="workers") as caught:
        run_study(config, tmp_path, evaluators=with_costs(FakeEvaluator(lambda _: 1.0)))
    one_line(caught)


def test_settings_are_checked_before_anything_is_recorded(tmp_path):
    for settings in (
        {"space": "no-such-space"},
        {"data": "no-such-data"},
        {"device": "cuda:9"},
        {"evaluators": ["missing.py:f"], "objectives": ["loss:min"]},
        {"sampler": f"{tmp_path}/missing.py:Sampler"},
    ):
        with pytest.raises(NasError) as caught:
            search.run_study(cheap_config(**settings), tmp_path / "w")
        one_line(caught)
        assert not (tmp_path / "w" / "record.db").exists(), settings
