"""Jobs in real processes: every one is answered once, whatever becomes of the workers."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from evaluators.protocol import EvaluationError, Measured
from kernels.errors import NasError
from studies.executors import Limits, Outbox, PoolExecutor
from tests.unit.studies.executors.helpers import (
    Answer,
    Base,
    Child,
    Die,
    Environment,
    Half,
    Heavy,
    Hog,
    LoseGpu,
    Note,
    Raise,
    Sleep,
    alive,
    children,
    collect,
    job,
    network,
    pids_in,
    state_of,
    until,
)

MIB = 2**20


@pytest.fixture
def pool() -> Iterator[PoolExecutor]:
    with PoolExecutor(2, backoff=0.01) as executor:
        yield executor


def test_every_job_is_answered_once_and_with_its_own_figures(pool: PoolExecutor) -> None:
    seconds = {width: random.Random(width).uniform(0, 0.03) for width in range(1, 61)}
    evaluator = Sleep(seconds=seconds)
    for number in range(60):
        pool.submit(job(number, evaluator))
    outcomes = collect(pool, 60)
    assert sorted(outcome.job for outcome in outcomes) == list(range(60))
    for outcome in outcomes:
        assert outcome.reason is None
        assert outcome.measured[0].value == (outcome.job + 1) / 3
        assert outcome.worker.endswith(f":{outcome.measured[0].detail['pid']}")
        spent = (outcome.ended - outcome.started).total_seconds()
        assert spent >= seconds[outcome.job + 1] * 0.99
    assert len({outcome.worker for outcome in outcomes}) == 2
    assert pool.wait() == []


@pytest.mark.parametrize("slot", ["training", "measurement"])
def test_a_fault_that_spoils_the_gpu_for_its_process_fails_one_job(slot: str) -> None:
    with PoolExecutor(1, backoff=0.01) as pool:
        for number in range(3):
            pool.submit(job(number, LoseGpu(slot=slot)))
        first, *others = collect(pool, 3)
    assert (first.job, "CUDA error: an illegal memory access" in first.reason) == (0, True)
    assert [item.reason for item in others] == [None, None]
    assert first.worker not in {item.worker for item in others}


def test_what_ends_first_comes_first(pool: PoolExecutor) -> None:
    evaluator = Sleep(seconds={1: 0.6, 2: 0.0, 3: 0.1})
    # Both workers are there before it counts.
    for number in (1, 1):
        pool.submit(job(number, evaluator))
    collect(pool, 2)
    for number in (0, 1, 2):
        pool.submit(job(number, evaluator))
    assert [outcome.job for outcome in collect(pool, 3)] == [1, 2, 0]


def test_waiting_gives_up_in_time_and_does_not_spin(pool: PoolExecutor) -> None:
    pool.submit(job(0, Sleep(seconds={1: 30.0})))
    start, cpu = time.monotonic(), time.process_time()
    assert pool.wait(0.0) == []
    assert time.monotonic() - start < 0.3
    assert pool.wait(1.0) == []
    assert 0.9 < time.monotonic() - start < 3.0
    assert time.process_time() - cpu < 0.2


def test_workers_start_when_needed_and_measuring_has_its_own(tmp_path: Path) -> None:
    before = children()
    with PoolExecutor(3) as pool:
        assert children() == before
        pool.submit(job(0, Note(folder=tmp_path)))
        collect(pool, 1)
        assert len(children() - before) == 1
        pool.submit(job(0, Note(folder=tmp_path, slot="measurement")))
        collect(pool, 1)
        assert len(children() - before) == 2
    assert children() == before
    assert len(pids_in(tmp_path)) == 2


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (EvaluationError("The loss is not finite."), "The loss is not finite."),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (MemoryError("8 GB"), "out of memory: 8 GB"),
    ],
)
def test_what_a_job_raises_is_its_reason_and_the_worker_goes_on(
    pool: PoolExecutor, problem: Exception, reason: str
) -> None:
    pool.submit(job(0, Raise(problem=problem)))
    (outcome,) = collect(pool, 1)
    assert (outcome.reason, outcome.measured, outcome.attempts) == (reason, (), 1)
    pool.submit(job(1, Sleep()))
    (after,) = collect(pool, 1)
    assert after.worker == outcome.worker


def test_figures_that_cannot_be_sent_are_a_reason(pool: PoolExecutor, tmp_path: Path) -> None:
    pool.submit(job(0, Note(folder=tmp_path)))
    collect(pool, 1)
    pool.submit(job(1, _Unsendable()))
    (outcome,) = collect(pool, 1)
    assert outcome.reason is not None
    assert outcome.reason.startswith("The figures cannot be sent:")


class _Unsendable(Base):
    def evaluate(self, architecture: object) -> list[Measured]:
        return [Measured("score", 1.0, None, None, {"function": lambda: None})]


# What travels.


def test_an_evaluator_travels_to_each_worker_once(tmp_path: Path) -> None:
    heavy = Heavy(folder=tmp_path, ballast=bytes(5 * MIB))
    with PoolExecutor(2) as pool:
        for number in range(40):
            pool.submit(job(number, heavy))
        assert {outcome.reason for outcome in collect(pool, 40)} == {None}
    assert heavy.pickled == 1
    loads = [path.read_text() for path in tmp_path.glob("loads-*")]
    assert loads == ["x", "x"]


def test_large_messages_go_both_ways(pool: PoolExecutor) -> None:
    figure = Measured("score", 1.0, None, None, {"history": list(range(300_000))})
    pool.submit(job(0, Answer(figures=[figure])))
    (outcome,) = collect(pool, 1)
    assert outcome.measured == (figure,)


@pytest.mark.parametrize(
    "evaluator",
    [
        Answer(figures=lambda: None),
        Answer(figures=(number for number in ())),
        type("Hidden", (Sleep,), {})(),
    ],
    ids=["lambda", "generator", "class that cannot be imported"],
)
def test_an_evaluator_that_cannot_travel_is_refused_at_once(
    pool: PoolExecutor, evaluator: Base
) -> None:
    with pytest.raises(NasError, match=r"top level of a module.*workers = 0"):
        pool.submit(job(0, evaluator))
    assert pool.wait() == []


def test_an_evaluator_of_the_script_itself_is_refused_at_once(
    pool: PoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = type("Mine", (Sleep,), {"__module__": "__main__"})
    monkeypatch.setattr(sys.modules["__main__"], "Mine", mine, raising=False)
    with pytest.raises(NasError, match=r"Mine is defined in the script.*workers = 0"):
        pool.submit(job(0, mine()))


def test_an_evaluator_whose_module_a_worker_lacks_fails_its_jobs(
    pool: PoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("only_here")
    mine = type("Mine", (Sleep,), {"__module__": "only_here"})
    monkeypatch.setattr(module, "Mine", mine, raising=False)
    monkeypatch.setitem(sys.modules, "only_here", module)
    evaluator = mine()
    for number in range(5):
        pool.submit(job(number, evaluator))
    outcomes = collect(pool, 5)
    expected = (
        "The evaluator cannot be loaded in a worker: "
        "ModuleNotFoundError: No module named 'only_here'"
    )
    assert {(outcome.reason, outcome.attempts) for outcome in outcomes} == {(expected, 1)}


def test_workers_that_cannot_start_are_a_reason_and_not_a_loop(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "studies"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise ImportError('a broken installation')\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with PoolExecutor(1, attempts=2, backoff=0.01) as pool:
        pool.submit(job(0, Sleep()))
        (outcome,) = collect(pool, 1)
        assert children() == set() or not pool.wait(0.0)
    assert outcome.reason is not None
    assert "died 2 times (exit code 1) before it was ready" in outcome.reason
    assert "ImportError: a broken installation" in outcome.reason


# Death.


@pytest.mark.parametrize(
    ("how", "ending"),
    [("kill", "signal 9"), ("segfault", "signal 11"), ("exit", "exit code 3")],
)
def test_a_job_that_kills_its_workers_fails_with_their_last_words(
    tmp_path: Path, how: str, ending: str
) -> None:
    with PoolExecutor(1, attempts=2, backoff=0.01) as pool:
        pool.submit(job(0, Die(folder=tmp_path, how=how)))
        pool.submit(job(1, Sleep()))
        outcomes = {outcome.job: outcome for outcome in collect(pool, 2)}
    dead = outcomes[0]
    assert dead.reason is not None
    assert dead.reason.startswith(f"the worker died 2 times ({ending}); its last words: ")
    assert "line 99" in dead.reason
    assert "line 50" not in dead.reason
    assert (dead.attempts, dead.measured) == (2, ())
    assert (tmp_path / "died-1").read_text() == "xx"
    assert outcomes[1].reason is None


def test_an_exit_asked_for_by_an_evaluator_is_a_death(tmp_path: Path) -> None:
    with PoolExecutor(1, attempts=1) as pool:
        pool.submit(job(0, Die(folder=tmp_path, how="sys.exit")))
        (outcome,) = collect(pool, 1)
    assert outcome.reason is not None
    assert outcome.reason.startswith("the worker died once (exit code 1)")
    assert "SystemExit: 4" in outcome.reason


@pytest.mark.parametrize("slot", ["training", "measurement"])
def test_a_job_whose_worker_died_is_begun_again(tmp_path: Path, slot: str) -> None:
    with PoolExecutor(1, attempts=3, backoff=0.01) as pool:
        pool.submit(job(0, Die(folder=tmp_path, times=2, slot=slot)))  # type: ignore[arg-type]
        (outcome,) = collect(pool, 1)
    assert (outcome.reason, outcome.attempts) == (None, 3)
    assert outcome.measured[0].value == 1 / 3


@pytest.mark.parametrize("seed", range(5))
def test_no_job_is_lost_or_doubled_while_workers_are_killed(seed: int) -> None:
    draw = random.Random(seed)
    before = children()
    evaluator = Sleep(seconds={width: draw.uniform(0.0, 0.1) for width in range(1, 31)})
    measuring = replace(evaluator, slot="measurement")
    with PoolExecutor(2, attempts=50, backoff=0.01) as pool:
        for number in range(30):
            pool.submit(job(number, measuring if number % 5 == 0 else evaluator))
        outcomes = []
        kills = sorted(draw.uniform(0.05, 1.5) for _ in range(6))
        start = time.monotonic()
        while len(outcomes) < 30:
            outcomes += pool.wait(draw.uniform(0.0, 0.05))
            workers = sorted(children() - before)
            if workers and kills and time.monotonic() - start > kills[0]:
                kills.pop(0)
                os.kill(draw.choice(workers), signal.SIGKILL)
        assert pool.wait(0.05) == []
    assert sorted(outcome.job for outcome in outcomes) == list(range(30))
    assert {outcome.reason for outcome in outcomes} == {None}
    assert all(outcome.measured[0].value == (outcome.job + 1) / 3 for outcome in outcomes)
    assert children() == before


def test_an_idle_worker_that_dies_is_replaced_when_there_is_work(pool: PoolExecutor) -> None:
    pool.submit(job(0, Sleep()))
    (first,) = collect(pool, 1)
    pid = int(first.worker.rpartition(":")[2])
    os.kill(pid, signal.SIGKILL)
    until(lambda: state_of(pid) in ("Z", ""))
    pool.submit(job(1, Sleep()))
    (second,) = collect(pool, 1)
    assert second.reason is None
    assert second.worker != first.worker
    assert state_of(pid) == ""


def test_what_an_evaluator_started_dies_with_its_worker(tmp_path: Path) -> None:
    with PoolExecutor(1, attempts=1) as pool:
        pool.submit(job(0, Child(folder=tmp_path)))
        (outcome,) = collect(pool, 1)
        assert outcome.reason is not None
        assert outcome.reason.startswith("the worker died once (signal 9)")
        (child,) = pids_in(tmp_path)
        until(lambda: not alive(child))


def test_a_worker_that_dies_in_the_middle_of_a_word_blocks_nobody() -> None:
    with PoolExecutor(1, attempts=1) as pool:
        pool.submit(job(0, Half()))
        (outcome,) = collect(pool, 1)
    assert outcome.reason == "the worker died once (signal 9)"


# Limits.


def test_a_job_over_its_time_is_over_and_others_are_not(tmp_path: Path) -> None:
    with PoolExecutor(2, limits=Limits(seconds=0.5)) as pool:
        pool.submit(job(0, Note(folder=tmp_path, seconds=60.0, spin=True)))
        pool.submit(job(1, Sleep(seconds={2: 0.2})))
        outcomes = {outcome.job: outcome for outcome in collect(pool, 2)}
        over = outcomes[0]
        assert (over.reason, over.attempts) == ("exceeded the limit of 0.5 s", 1)
        assert 0.5 <= (over.ended - over.started).total_seconds() < 10.0
        assert outcomes[1].reason is None
        (pid,) = pids_in(tmp_path)
        assert state_of(pid) == ""
        # The limit is of each job, not of its worker.
        evaluator = Sleep(seconds=dict.fromkeys(range(10), 0.2))
        for number in range(6):
            pool.submit(job(number, evaluator))
        assert {outcome.reason for outcome in collect(pool, 6)} == {None}


def test_a_job_that_was_done_in_time_counts_however_late_it_is_asked_for() -> None:
    with PoolExecutor(1, limits=Limits(seconds=0.3)) as pool:
        pool.submit(job(0, Sleep()))
        collect(pool, 1)
        pool.submit(job(1, Sleep()))
        time.sleep(0.6)
        (outcome,) = collect(pool, 1)
    assert outcome.reason is None


def test_a_job_over_its_memory_is_over() -> None:
    with PoolExecutor(2, limits=Limits(memory_bytes=150 * MIB)) as pool:
        pool.submit(job(0, Hog(megabytes=400)))
        (outcome,) = collect(pool, 1)
        assert (outcome.reason, outcome.attempts) == ("exceeded the limit of 150 MiB", 1)
        pool.submit(job(1, Sleep(seconds={2: 0.5})))
        (after,) = collect(pool, 1)
        assert after.reason is None


def test_where_memory_is_not_shown_the_address_space_is_limited() -> None:
    code = (
        "from studies.executors.processes import limit_memory\n"
        "limit_memory(300 * 2**20)\n"
        "kept = bytearray(50 * 2**20)\n"
        "try:\n    bytearray(400 * 2**20)\nexcept MemoryError:\n    print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"


# Around.


def test_workers_find_their_surroundings_set() -> None:
    with PoolExecutor(1, threads=3) as pool:
        pool.submit(job(0, Environment()))
        (outcome,) = collect(pool, 1)
    detail = outcome.measured[0].detail
    assert detail["omp"] == "3"
    assert detail["sigint"] is True
    assert not {"torch", "optuna", "sqlalchemy", "numpy", "ray"} & set(detail["modules"])


def test_trainings_share_out_the_gpus_and_measurements_have_the_first() -> None:
    with PoolExecutor(3, gpus=["GPU-a", "GPU-b"]) as pool:
        for number in range(3):
            pool.submit(job(number, Environment()))
        seen = [outcome.measured[0].detail["gpus"] for outcome in collect(pool, 3)]
        assert sorted(seen) == ["GPU-a", "GPU-a", "GPU-b"]
        for number in range(3, 5):
            pool.submit(job(number, Environment(slot="measurement")))
        seen = [outcome.measured[0].detail["gpus"] for outcome in collect(pool, 2)]
        assert seen == ["GPU-a", "GPU-a"]
    with PoolExecutor(1, gpus=False) as pool:
        pool.submit(job(0, Environment()))
        assert collect(pool, 1)[0].measured[0].detail["gpus"] == ""


def test_results_are_kept_before_they_are_reported(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "box")
    evaluator = Sleep()
    with PoolExecutor(1, outbox=box) as pool:
        pool.submit(job(1, evaluator))
        pool.submit(job(2, Raise(problem=ValueError("no")), key="bad"))
        collect(pool, 2)
        pool.submit(job(3, evaluator, key="good"))
        assert until(box.keys) == ["good"]
        (outcome,) = collect(pool, 1)
        assert box.get("good") == outcome
        assert outcome.job == 3


def test_a_result_that_cannot_be_kept_is_still_reported(tmp_path: Path) -> None:
    figure = Measured("score", 1.0, None, None, {"no JSON": b"bytes"})
    with PoolExecutor(1, outbox=Outbox(tmp_path)) as pool:
        pool.submit(job(0, Answer(figures=[figure]), key="a"))
        (outcome,) = collect(pool, 1)
    assert outcome.measured == (figure,)
    (log,) = tmp_path.glob("training-*.log")
    assert "The result a could not be kept" in log.read_text()


def test_what_workers_log_is_in_the_outbox_and_not_on_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with PoolExecutor(1, outbox=Outbox(tmp_path)) as pool:
        pool.submit(job(0, Raise(problem=ValueError("of interest"))))
        collect(pool, 1)
        pool.submit(job(1, Sleep()))
        collect(pool, 1)
    assert capfd.readouterr() == ("", "")
    (log,) = tmp_path.glob("training-*.log")
    text = log.read_text()
    assert f"Evaluating {network(1).key} failed" in text
    assert "ValueError: of interest" in text


def test_a_quiet_worker_leaves_no_log(tmp_path: Path) -> None:
    with PoolExecutor(1, outbox=Outbox(tmp_path)) as pool:
        pool.submit(job(0, Sleep()))
        collect(pool, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["workers", "attempts", "threads"])
def test_numbers_below_one_are_refused(name: str) -> None:
    with pytest.raises(NasError, match=f"number of {name} must be at least 1, got 0"):
        PoolExecutor(**{"workers": 1, name: 0})


# The end.


def test_closing_ends_everything_at_once(tmp_path: Path) -> None:
    before = children()
    pool = PoolExecutor(2)
    evaluator = Note(folder=tmp_path, seconds=60.0)
    for number in range(8):
        pool.submit(job(number, evaluator))
    until(lambda: pool.wait(0.01) == [] and len(pids_in(tmp_path)) == 2)
    start = time.monotonic()
    pool.close()
    assert time.monotonic() - start < 3.0
    assert children() == before
    assert pool.wait() == []
    pool.close()
    with pytest.raises(NasError, match="closed"):
        pool.submit(job(0, evaluator))


def test_an_executor_nobody_holds_leaves_no_process(caplog: pytest.LogCaptureFixture) -> None:
    before = children()
    pool = PoolExecutor(1)
    pool.submit(job(0, Sleep(seconds={1: 60.0})))
    assert children() != before
    with caplog.at_level(logging.WARNING):
        del pool
    assert children() == before
    assert caplog.records == []


def test_the_worker_imports_nothing_heavy() -> None:
    code = "import sys, studies.executors.worker; print(*{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "optuna", "sqlalchemy", "alembic", "numpy", "ray"}
    assert not heavy & set(done.stdout.split())
