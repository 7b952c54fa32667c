"""Many workers, killed drivers and workers: the study is the same, and nothing is paid twice."""

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from evaluators.protocol import Measured
from kernels.errors import NasError
from studies.executors import Outbox, Outcome
from studies.search import Ending, run_study
from studies.storage import Owner, TrialState
from studies.workspace import Workspace
from tests.unit.studies import chaos_driver
from tests.unit.studies.diary import Diary
from tests.unit.studies.fakes import (
    FakeEvaluator,
    cheap_config,
    counted,
    recorded,
    size_score,
    with_costs,
)

FAKE = {"objectives": ["accuracy", "params"], "sampler": "evolution"}
ROOT = Path(__file__).parents[3]


def diary_study(place, diary, **settings):
    from evaluators.analytic import AnalyticEvaluator

    config = cheap_config(**{**FAKE, "trials": 12, "workers": 3, "lookahead": 4, **settings})
    return run_study(config, place, evaluators=[AnalyticEvaluator(), diary])


def test_a_study_is_the_same_whoever_is_done_first(tmp_path):
    diary = Diary(tmp_path / "diary", seconds=0.05)
    for name in ("a", "b"):
        diary_study(tmp_path / name, diary)
    assert counted(recorded(tmp_path / "a")) == counted(recorded(tmp_path / "b"))
    origins = [trial.origin["told"] for trial in recorded(tmp_path / "a")]
    assert origins == [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]


def test_the_number_of_workers_may_change_but_not_what_is_proposed(tmp_path):
    quick = Diary(tmp_path / "diary", seconds=0.001)
    diary_study(tmp_path / "three", quick)
    diary_study(tmp_path / "one", quick, workers=1)
    diary_study(tmp_path / "none", quick, workers=0)
    three = counted(recorded(tmp_path / "three"))
    assert counted(recorded(tmp_path / "one")) == counted(recorded(tmp_path / "none")) == three
    diary_study(tmp_path / "three", quick, workers=1, lookahead=None, trials=14)
    assert counted(recorded(tmp_path / "three"))[: len(three)] == three
    with pytest.raises(NasError, match="lookahead '4', not '2'"):
        diary_study(tmp_path / "three", quick, lookahead=2)


def test_two_studies_at_once_pay_each_key_once(tmp_path):
    diary = Diary(tmp_path / "diary", seconds=0.1)
    failures = []

    def run(name):
        try:
            diary_study(tmp_path / "w", diary, name=name, sampler="random", trials=8)
        except BaseException as problem:
            failures.append(problem)

    threads = [threading.Thread(target=run, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert max(Counter(diary.finished()).values()) == 1
    assert max(Counter(evaluations(tmp_path / "w")).values()) == 1
    one, two = (counted(recorded(tmp_path / "w", name)) for name in ("one", "two"))
    assert one == two


def test_the_result_of_a_driver_that_died_is_taken_but_not_that_of_a_living_one(tmp_path):
    config = cheap_config(**{**FAKE, "trials": 2})
    run_study(config, tmp_path / "probe", evaluators=with_costs(FakeEvaluator(size_score)))
    first = recorded(tmp_path / "probe")[0].key
    fake, other, now = FakeEvaluator(size_score), Owner.here(), datetime.now(UTC)
    place = tmp_path / "w"
    with Workspace.of(place).open() as repository:
        assert repository.claim(f"fake-accuracy-{first}", other, 600.0)
    figure = Measured("accuracy", 0.125)
    Outbox(place / "outbox").put(f"fake-accuracy-{first}", Outcome(0, (figure,), None, now, now))
    seconds = 0.7
    threading.Timer(seconds, other.retire).start()
    begin = time.monotonic()
    run_study(config, place, evaluators=with_costs(fake))
    assert time.monotonic() - begin >= seconds
    trial = recorded(place)[0]
    assert (trial.key, trial.values["accuracy"].value) == (first, 0.125)
    assert first not in fake.paid
    assert Outbox(place / "outbox").keys() == []


def test_a_second_driver_is_refused_and_disturbs_nothing(tmp_path):
    config = chaos_driver.config()
    place, diary = tmp_path / "w", tmp_path / "diary"
    driver = start_driver(place, diary)
    wait_for_trials(place, 2)
    with pytest.raises(NasError, match=rf"process {driver.pid}") as refused:
        run_study(config, place, evaluators=chaos_driver.evaluators(diary))
    assert "\n" not in str(refused.value)
    assert driver.wait(timeout=120) == 0
    assert len([t for t in recorded(place) if t.state is TrialState.COMPLETE]) == config.trials


def start_driver(place, diary):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.unit.studies.chaos_driver", str(place), str(diary)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def wait_for_trials(place, count, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if len(recorded(place, "cheap")) >= count:
                return
        except NasError:
            pass  # not there yet
        time.sleep(0.05)
    raise AssertionError("the driver recorded nothing")


def children(pid):
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_kill_9_loses_nothing_and_repeats_nothing(tmp_path, kills):
    rng = random.Random(kills)
    whole = run_study(
        chaos_driver.config(),
        tmp_path / "whole",
        evaluators=chaos_driver.evaluators(tmp_path / "whole-diary"),
    )
    assert whole.ending is Ending.DONE
    place, diary = tmp_path / "parts", tmp_path / "diary"
    done = 0
    driver = start_driver(place, diary)
    while done < kills and driver.poll() is None:
        # Most of a driver's life is spent loading; strike while trials are under way.
        wait_for_trials(place, min(2 + done, chaos_driver.TRIALS))
        time.sleep(rng.uniform(0.0, 0.4))
        workers = children(driver.pid)
        if workers and rng.random() < 0.5:
            kill(rng.choice(workers))
        else:
            kill(driver.pid)
            driver.wait()
            driver = start_driver(place, diary)
        done += 1
    while driver.wait(timeout=300) != 0:
        driver = start_driver(place, diary)
    trials = recorded(place)
    assert counted(trials) == counted(recorded(tmp_path / "whole"))
    assert not [trial for trial in trials if trial.state is TrialState.RUNNING]
    with Workspace.of(place).open() as repository:
        events = repository.events(repository.study("cheap").id)
    assert [event.kind for event in events].count("ended") == 1
    trained = sorted(trial.key for trial in trials if trial.state is TrialState.COMPLETE)
    for metric in ("accuracy", "latency_ms"):
        paid = sorted(key for name, key in evaluations(place) if name == metric)
        assert len(paid) == len(set(paid)), f"{metric}: as many were finished as there are keys"
        noted = [event for event in events if event.data.get("metrics") == [metric]]
        assert len(noted) == len(paid)
        if metric == "accuracy":
            assert paid == trained
    # What a worker noted as finished is in the outbox or in the record a moment later; a kill in
    # that moment is the only way to see a line twice.
    lines = Counter(Diary(diary).finished())
    assert sorted(key for metric, key in lines if metric == "accuracy") == trained
    assert lines.total() - len(lines) <= 1


def evaluations(place):
    """Metric and network of every evaluation in the record, but for what is found inline."""
    query = "SELECT key FROM evaluation WHERE evaluator = 'Diary'"
    with closing(sqlite3.connect(place / "record.db")) as db:
        return [tuple(key.split("-")[1:]) for (key,) in db.execute(query)]


def kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
