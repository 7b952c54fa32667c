from __future__ import annotations

from datetime import UTC, datetime

import pytest

from evaluators.protocol import EvaluationError
from kernels.errors import NasError
from studies.executors import Limits, LocalExecutor
from tests.unit.studies.executors.helpers import Base, Raise, Sleep, collect, job


def test_jobs_run_one_by_one_in_the_order_they_came() -> None:
    with LocalExecutor() as executor:
        for number in (4, 2, 7):
            executor.submit(job(number, Sleep()))
        before = datetime.now(UTC)
        outcomes = [executor.wait(), executor.wait(0.0), executor.wait(1.0)]
        assert [[outcome.job for outcome in each] for each in outcomes] == [[4], [2], [7]]
        assert executor.wait() == []
        (first,) = outcomes[0]
        assert first.measured[0].value == 5 / 3
        assert (first.reason, first.attempts) == (None, 1)
        assert before <= first.started <= first.ended <= datetime.now(UTC)


def test_nothing_runs_before_it_is_waited_for_nor_after_the_end() -> None:
    executor = LocalExecutor()
    executor.submit(job(0, Raise(problem=AssertionError("it ran"))))
    executor.close()
    assert executor.wait() == []


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (EvaluationError("The loss is not finite."), "The loss is not finite."),
        (NasError("Too wide."), "Too wide."),
        (ValueError("no such thing"), "ValueError: no such thing"),
        (KeyError("k"), "KeyError: 'k'"),
        (MemoryError("8 GB"), "out of memory: 8 GB"),
        (MemoryError(), "out of memory: MemoryError"),
    ],
)
def test_what_a_job_raises_is_its_reason(problem: Exception, reason: str) -> None:
    with LocalExecutor() as executor:
        executor.submit(job(0, Raise(problem=problem)))
        (outcome,) = collect(executor, 1)
    assert (outcome.measured, outcome.reason) == ((), reason)


def test_torch_running_out_of_memory_is_called_so() -> None:
    torch = pytest.importorskip("torch")
    with LocalExecutor() as executor:
        executor.submit(job(0, Raise(problem=torch.OutOfMemoryError("CUDA out of memory."))))
        (outcome,) = collect(executor, 1)
    assert outcome.reason == "out of memory: CUDA out of memory."


@pytest.mark.parametrize("problem", [KeyboardInterrupt(), SystemExit(3)])
def test_an_interrupt_comes_through(problem: BaseException) -> None:
    with LocalExecutor() as executor:
        executor.submit(job(0, Raise(problem=problem)))
        executor.submit(job(1, Sleep()))
        with pytest.raises(type(problem)):
            executor.wait()
        assert [outcome.job for outcome in executor.wait()] == [1]


def test_an_evaluator_without_figures_fails_its_candidate() -> None:
    with LocalExecutor() as executor:
        executor.submit(job(0, Base()))
        (outcome,) = executor.wait()
    assert outcome.reason is not None
    assert outcome.reason.startswith("NotImplementedError")


@pytest.mark.parametrize(
    ("seconds", "memory", "named"),
    [
        (0.0, None, "seconds"),
        (-1.0, None, "seconds"),
        (float("nan"), None, "seconds"),
        (None, 0, "memory_bytes"),
        (None, -5, "memory_bytes"),
    ],
)
def test_limits_must_be_positive(seconds: float | None, memory: int | None, named: str) -> None:
    with pytest.raises(NasError, match=named):
        Limits(seconds, memory)
