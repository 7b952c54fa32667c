"""An executor that tells a board what is in work."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from nas.live.board import Board
from studies.executors import Executor, Job, Outcome, WorkerState


class WatchedExecutor:
    """See :class:`~studies.executors.Executor`; does what another one does, and tells of it.

    Args:
        inner: the executor that does the work.
        board: who is told.
    """

    def __init__(self, inner: Executor, board: Board) -> None:
        self._inner, self._board = inner, board

    @property
    def slots(self) -> int:
        """See :class:`~studies.executors.Executor`."""
        return self._inner.slots

    @property
    def outlives(self) -> bool:
        """See :class:`~studies.executors.Executor`."""
        return self._inner.outlives

    def workers(self) -> Sequence[WorkerState]:
        """See :class:`~studies.executors.Executor`."""
        return self._inner.workers()

    def submit(self, job: Job) -> None:
        """See :class:`~studies.executors.Executor`."""
        self._inner.submit(job)
        self._board.submitted(job, self._inner.slots)

    def wait(self, timeout: float | None = None) -> list[Outcome]:
        """See :class:`~studies.executors.Executor`."""
        outcomes = self._inner.wait(timeout)
        self._board.returned(outcomes)
        return outcomes

    def close(self) -> None:
        """See :class:`~studies.executors.Executor`."""
        self._inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
