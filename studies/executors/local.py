"""One job after the other, in this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from studies.deadline import DeadlineError, deadline
from studies.executors.protocol import Job, Outcome, WorkerState
from studies.executors.run import run, this_worker


class LocalExecutor:
    """See :class:`~studies.executors.Executor`; :meth:`wait` runs the next queued job.

    A job cannot be left alone, so a timeout is not looked at.

    Args:
        seconds: limit of a job, which is interrupted where the system can: in a Unix main thread,
            and only while Python code runs. None for no limit.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._queue: deque[Job] = deque()
        self._seconds = seconds

    @property
    def outlives(self) -> bool:
        """See :class:`~studies.executors.Executor`."""
        return False

    @property
    def slots(self) -> int:
        """See :class:`~studies.executors.Executor`."""
        return 0

    def workers(self) -> Sequence[WorkerState]:
        """See :class:`~studies.executors.Executor`."""
        return ()

    def submit(self, job: Job) -> None:
        """See :class:`~studies.executors.Executor`."""
        self._queue.append(job)

    def wait(self, timeout: float | None = None) -> list[Outcome]:
        """See :class:`~studies.executors.Executor`."""
        return [self._run(self._queue.popleft())] if self._queue else []

    def _run(self, job: Job) -> Outcome:
        started = datetime.now(UTC)
        try:
            with nullcontext() if self._seconds is None else deadline(self._seconds, "The job"):
                return run(job)
        except DeadlineError:
            reason = f"exceeded the limit of {self._seconds:g} s"
            return Outcome(job.id, (), reason, started, datetime.now(UTC), this_worker())

    def close(self) -> None:
        """See :class:`~studies.executors.Executor`."""
        self._queue.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
