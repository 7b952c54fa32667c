"""One job after the other, in this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from studies.executors.protocol import Job, Outcome, WorkerState
from studies.executors.run import run


class LocalExecutor:
    """See :class:`~studies.executors.Executor`; :meth:`wait` runs the next queued job.

    Nothing can stop a job that runs in this process, so a timeout is not looked at.
    """

    def __init__(self) -> None:
        self._queue: deque[Job] = deque()

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
        return [run(self._queue.popleft())] if self._queue else []

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
