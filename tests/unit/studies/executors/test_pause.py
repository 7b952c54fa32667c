"""Beside a measurement no training runs, and none is ever left standing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Timer

import pytest

from kernels.device import detect
from studies.executors import Limits, PoolExecutor, handle
from studies.executors.handle import WorkerProcess
from studies.executors.processes import is_stopped, signal_group, waits_for_lock
from tests.unit.studies.executors.helpers import (
    Die,
    Lock,
    Note,
    Raise,
    Sleep,
    Tick,
    children,
    collect,
    job,
    pids_in,
    state_of,
    ticks,
    until,
)


def training_pids(pool: PoolExecutor, folder: Path, count: int) -> list[int]:
    """Wait until so many trainings run, and return their processes."""

    def running() -> list[int]:
        assert pool.wait(0.02) == []
        names = sorted(path.name for path in folder.glob("pid-training-*"))
        return [int(name.split("-")[-1]) for name in names] if len(names) == count else []

    found: list[int] = until(running)
    return found


def wait_until(pool: PoolExecutor, condition: Callable[[], object]) -> None:
    """Let the executor work until something is so, before any job ends."""

    def turn() -> object:
        assert pool.wait(0.01) == []
        return condition()

    until(turn)


def test_no_training_makes_progress_during_a_measurement(tmp_path: Path) -> None:
    training = Tick(folder=tmp_path, seconds=1.0)
    measuring = Tick(folder=tmp_path, seconds=0.15, slot="measurement")
    with PoolExecutor(2) as pool:
        for number in (1, 2):
            pool.submit(job(number, training))
        training_pids(pool, tmp_path, 2)
        outcomes = []
        for number in (3, 4, 5):
            pool.submit(job(number, measuring))
            while number not in [outcome.job for outcome in outcomes]:
                outcomes += pool.wait(5.0)
        outcomes += collect(pool, 5 - len(outcomes))
    assert {outcome.reason for outcome in outcomes} == {None}
    spans = [(times[0], times[-1]) for times in ticks(tmp_path, "measurement")]
    trained = ticks(tmp_path, "training")
    assert (len(spans), len(trained)) == (3, 2)
    assert all(end - start > 0.149 for start, end in spans)
    for times in trained:
        for start, end in spans:
            assert not [moment for moment in times if start <= moment <= end]
        # It is no proof if the trainings were over: each measurement interrupted both.
        assert all(times[0] < start and end < times[-1] for start, end in spans)
        assert len(times) > 50


def test_measurements_that_wait_are_run_in_one_pause(tmp_path: Path) -> None:
    training = Tick(folder=tmp_path, seconds=0.8)
    measuring = Tick(folder=tmp_path, seconds=0.05, slot="measurement")
    with PoolExecutor(1) as pool:
        pool.submit(job(1, training))
        training_pids(pool, tmp_path, 1)
        for number in range(2, 7):
            pool.submit(job(number, measuring))
        collect(pool, 6)
        paused = pool.paused_seconds
    spans = [(times[0], times[-1]) for times in ticks(tmp_path, "measurement")]
    first, last = min(start for start, _ in spans), max(end for _, end in spans)
    (trained,) = ticks(tmp_path, "training")
    assert not [moment for moment in trained if first <= moment <= last]
    assert trained[0] < first < last < trained[-1]
    assert last - first <= paused < 5.0


def test_no_training_begins_during_a_measurement(tmp_path: Path) -> None:
    measuring = Tick(folder=tmp_path, seconds=0.5, slot="measurement")
    before = len(children())
    with PoolExecutor(2) as pool:
        pool.submit(job(1, measuring))
        wait_until(pool, lambda: list(tmp_path.glob("ticks-measurement-*")))
        for number in (2, 3):
            pool.submit(job(number, Tick(folder=tmp_path, seconds=0.02)))
        # Not even the start of a worker disturbs it.
        assert len(children()) == before + 1
        collect(pool, 3)
    ((*_, end),) = ticks(tmp_path, "measurement")
    assert all(times[0] > end for times in ticks(tmp_path, "training"))


def test_time_spent_paused_is_not_the_trainings(tmp_path: Path) -> None:
    with PoolExecutor(1, limits=Limits(seconds=2.5)) as pool:
        pool.submit(job(1, Tick(folder=tmp_path, seconds=1.5)))
        training_pids(pool, tmp_path, 1)
        for number in (2, 3):
            pool.submit(job(number, Sleep(slot="measurement", seconds={3: 0.8, 4: 0.8})))
        outcomes = {outcome.job: outcome for outcome in collect(pool, 3)}
    assert {outcome.reason for outcome in outcomes.values()} == {None}
    assert (outcomes[1].ended - outcomes[1].started).total_seconds() > 2.6


def test_a_training_stands_still_when_its_measurement_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[list[bool]] = []
    start = WorkerProcess.start

    def note(worker: WorkerProcess, ticket: object) -> None:
        states.append([is_stopped(pid) for pid in pids_in(tmp_path)])
        start(worker, ticket)  # type: ignore[arg-type]

    def late(group: int, number: int) -> None:
        # As a signal is for a thread that is in the middle of a system call.
        Timer(0.1 * (number == signal.SIGSTOP), signal_group, (group, number)).start()

    with PoolExecutor(2) as pool:
        for number in (1, 2):
            pool.submit(job(number, Note(folder=tmp_path, seconds=0.5, spin=True)))
        training_pids(pool, tmp_path, 2)
        monkeypatch.setattr(WorkerProcess, "start", note)
        monkeypatch.setattr(handle, "signal_group", late)
        pool.submit(job(3, Sleep(slot="measurement")))
        collect(pool, 3)
        monkeypatch.undo()
    assert states == [[True, True]]


@pytest.mark.parametrize("end", ["raises", "dies", "over its limit", "fine"])
def test_trainings_go_on_however_a_measurement_ends(tmp_path: Path, end: str) -> None:
    evaluators = {
        "raises": Raise(problem=ValueError("no"), slot="measurement"),
        "dies": Die(folder=tmp_path, slot="measurement"),
        "over its limit": Sleep(slot="measurement", seconds={3: 60.0}),
        "fine": Sleep(slot="measurement"),
    }
    with PoolExecutor(1, attempts=2, backoff=0.01, limits=Limits(seconds=3.0)) as pool:
        pool.submit(job(1, Tick(folder=tmp_path, seconds=0.8)))
        (pid,) = training_pids(pool, tmp_path, 1)
        pool.submit(job(2, evaluators[end]))
        outcomes = {outcome.job: outcome for outcome in collect(pool, 2)}
        assert outcomes[1].reason is None
        assert (outcomes[2].reason is None) == (end == "fine")
        assert state_of(pid) in ("S", "R")


def test_a_paused_training_that_is_killed_is_begun_again(tmp_path: Path) -> None:
    with PoolExecutor(1, backoff=0.01) as pool:
        pool.submit(job(1, Tick(folder=tmp_path, seconds=0.8)))
        (pid,) = training_pids(pool, tmp_path, 1)
        pool.submit(job(2, Sleep(slot="measurement", seconds={3: 0.3})))
        wait_until(pool, lambda: state_of(pid) == "T")
        os.kill(pid, signal.SIGKILL)
        outcomes = {outcome.job: outcome for outcome in collect(pool, 2)}
    assert {outcome.reason for outcome in outcomes.values()} == {None}
    assert (outcomes[1].attempts, outcomes[2].attempts) == (2, 1)


def test_an_interrupt_leaves_no_training_standing_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PoolExecutor(1) as pool:
        pool.submit(job(1, Tick(folder=tmp_path, seconds=0.8)))
        (pid,) = training_pids(pool, tmp_path, 1)
        pool.submit(job(2, Sleep(slot="measurement", seconds={3: 0.5})))
        wait_until(pool, lambda: state_of(pid) == "T")
        with monkeypatch.context() as patch:
            patch.setattr(PoolExecutor, "_turn", _interrupt)
            with pytest.raises(KeyboardInterrupt):
                pool.wait()
        until(lambda: state_of(pid) in ("S", "R"))
        outcomes = collect(pool, 2)
    assert [(o.reason, o.attempts) for o in outcomes] == [(None, 1)] * 2


def _interrupt(pool: PoolExecutor, timeout: float | None) -> None:
    raise KeyboardInterrupt


def test_closing_ends_paused_trainings(tmp_path: Path) -> None:
    pool = PoolExecutor(1)
    pool.submit(job(1, Tick(folder=tmp_path, seconds=60.0)))
    (pid,) = training_pids(pool, tmp_path, 1)
    pool.submit(job(2, Sleep(slot="measurement", seconds={3: 60.0})))
    wait_until(pool, lambda: state_of(pid) == "T")
    start = time.monotonic()
    pool.close()
    assert time.monotonic() - start < 3.0
    assert state_of(pid) == ""


def test_a_measurement_that_waits_for_a_paused_training_makes_way(tmp_path: Path) -> None:
    """Both compile the same kernel, say; the training was stopped while it held the lock."""
    path = tmp_path / "lock"
    with PoolExecutor(1) as pool:
        pool.submit(job(1, Lock(path=path, seconds=1.5)))
        wait_until(pool, (tmp_path / "lock-training").exists)
        pool.submit(job(2, Lock(path=path, slot="measurement")))
        outcomes = collect(pool, 2, seconds=20.0)
    assert [(outcome.job, outcome.reason) for outcome in outcomes] == [(1, None), (2, None)]
    assert outcomes[1].started > outcomes[0].ended
    assert not waits_for_lock(os.getpid())


def test_settling_comes_between_the_pause_and_the_measurement(tmp_path: Path) -> None:
    with PoolExecutor(1, settle=0.4) as pool:
        pool.submit(job(1, Tick(folder=tmp_path, seconds=0.8)))
        training_pids(pool, tmp_path, 1)
        pool.submit(job(2, Tick(folder=tmp_path, seconds=0.05, slot="measurement")))
        collect(pool, 2)
    (trained,) = ticks(tmp_path, "training")
    ((start, *_),) = ticks(tmp_path, "measurement")
    assert start - max(moment for moment in trained if moment < start) >= 0.4


def test_trainings_of_another_process_stand_still_for_a_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two pools stand for two drivers: what they know of each other goes by locks of the system."""
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))
    device = detect("cpu")
    with PoolExecutor(1, device=device) as trains, PoolExecutor(1, device=device) as measures:
        for number in (1, 2):
            trains.submit(job(number, Tick(folder=tmp_path, seconds=1.0)))
        training_pids(trains, tmp_path, 1)
        measures.submit(job(3, Tick(folder=tmp_path, seconds=0.3, slot="measurement")))
        # A driver that is about to measure sleeps for as long as others need to notice.
        with ThreadPoolExecutor(1) as other:
            trained_ones = other.submit(collect, trains, 2)
            done = collect(measures, 1) + trained_ones.result()
        assert {outcome.reason for outcome in done} == {None}
        assert trains.paused_seconds > 0.3
    ((first, *_, last),) = ticks(tmp_path, "measurement")
    trained = sorted(moment for times in ticks(tmp_path, "training") for moment in times)
    assert trained[0] < first
    assert trained[-1] > last
    assert not [moment for moment in trained if first <= moment <= last]
