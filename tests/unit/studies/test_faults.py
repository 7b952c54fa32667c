"""What can go wrong in a study: one clear line, and nothing paid for is lost."""

import contextlib
import os
import subprocess
import time

import pytest
import torch

from evaluators.analytic import AnalyticEvaluator
from kernels.errors import NasError
from studies import asker, search, supply
from studies.search import Ending, run_study
from studies.storage import TrialState
from studies.workspace import Workspace
from tests.unit.studies.diary import Diary, Faulty, NoRoom
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


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("\n    while True: pass", "did not return within 0.5 s; it was at own.py, line 10"),
        (
            "\n    while width:\n        try: width\n        except Exception: pass",
            "did not return within 0.5 s; it was at own.py, line 1",
        ),
        ("\n    import time; time.sleep(60)", "it was at own.py, line 10: does a loop never end"),
        (
            "\n    for i in iter(int, 1): choose(f'more{len(choose.decisions)}', [1, 2])",
            "asks more than 10,000 questions, the last one 'more10000'; does a loop",
        ),
        (
            "\n    x = net.input\n    while True: x = net.activation(x)",
            "deeper than 10,000 operators at .*; does a loop",
        ),
    ],
)
def test_a_space_that_never_ends_is_stopped(tmp_path, monkeypatch, line, message, workers):
    monkeypatch.setattr(asker, "ASK_SECONDS", 0.5 if "0.5 s" in message else 20.0)
    if "sleep" in line:
        monkeypatch.setattr(asker, "ASK_SECONDS", 0.5)
    place = own_space(tmp_path, line)
    begin = time.monotonic()
    with pytest.raises(NasError, match=message) as caught:
        run_study(cheap_config(space=place, trials=2, workers=workers), tmp_path / "w")
    one_line(caught)
    assert time.monotonic() - begin < 20


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


class Keeper(FakeEvaluator):
    """Keeps 200 kB of weights for each network, like a training."""

    def __init__(self, place):
        super().__init__(size_score)
        self.store = Workspace(place).weights

    def evaluate(self, architecture):
        found = super().evaluate(architecture)
        noise = torch.rand(50_000, generator=torch.Generator().manual_seed(len(self.paid)))
        self.store.save(architecture.key, {"weight": noise})
        return found


def test_weights_that_find_no_room_fail_no_candidate(tmp_path, monkeypatch):
    """On a disk that is really full; skipped where none can be mounted."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1500k", "none", str(tmp_path)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only the superuser can mount a small file system")
    monkeypatch.setattr(supply, "MIN_FREE_BYTES", 0)  # find out the hard way
    config, keeper = cheap_config(**FAKE, trials=10), Keeper(tmp_path)
    try:
        with pytest.raises(NasError, match=r"[Nn]o room left .*the same command") as caught:
            run_study(config, tmp_path, evaluators=with_costs(keeper))
        one_line(caught)
        before = recorded(tmp_path)
        assert [trial.state for trial in before[:-1]] == [TrialState.COMPLETE] * (len(before) - 1)
        assert before[-1].state is TrialState.RUNNING
        assert not list((tmp_path / "artifacts").glob("*.part"))
        subprocess.run(["mount", "-o", "remount,size=64m", str(tmp_path)], check=True)
        run_study(config, tmp_path, evaluators=with_costs(keeper))
        after = counted(recorded(tmp_path))
        assert all(keeper.store.load(key) for key in keeper.paid)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert len(keeper.paid) <= 11, "only what could not be kept was paid again"
    run_study(config, tmp_path / "whole", evaluators=with_costs(FakeEvaluator(size_score)))
    assert after == counted(recorded(tmp_path / "whole"))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_result_that_finds_no_room_ends_the_study_not_the_trial(tmp_path, workers):
    config = cheap_config(**FAKE, trials=3, workers=workers)
    with pytest.raises(NasError, match="Trial 0 could not be kept: no room left") as caught:
        run_study(config, tmp_path, evaluators=[AnalyticEvaluator(), NoRoom()])
    one_line(caught)
    (trial,) = recorded(tmp_path)
    assert trial.state is TrialState.RUNNING


def test_a_hanging_evaluator_is_interrupted_in_the_driver_too(tmp_path):
    def hangs(architecture):
        while int(architecture.key[:4], 16) % 3 == 0:
            with contextlib.suppress(Exception):
                time.sleep(0.01)
        return 0.5

    config = cheap_config(**FAKE, trials=5, trial_minutes=0.5 / 60)
    summary = run_study(config, tmp_path, evaluators=with_costs(FakeEvaluator(hangs)))
    failed = [trial for trial in recorded(tmp_path) if trial.state is TrialState.FAILED]
    assert summary.complete == 5
    assert failed
    assert all(trial.reason == "exceeded the limit of 0.5 s" for trial in failed)


def test_memory_is_not_said_to_be_limited_where_it_cannot_be(tmp_path):
    config = cheap_config(trial_memory_mb=100)
    with pytest.raises(NasError, match="set workers to 1 or more"):
        run_study(config, tmp_path)
    assert not (tmp_path / "record.db").exists()


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
