"""Evaluations that only take time, and an executor that only counts it."""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from evaluators.protocol import Measured, Slot
from search_spaces.architecture import Architecture
from studies.executors import Job, Outcome, WorkerState


@dataclass(frozen=True)
class Sleeping:
    """Takes its time, and gives a function of the network."""

    seconds: float
    metrics: tuple[str, ...] = ("accuracy",)
    slot: Slot = "training"

    def cache_key(self, architecture: Architecture) -> str:
        return f"sleeping-{architecture.key}"

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        time.sleep(self.seconds)
        return self.figures(architecture)

    def figures(self, architecture: Architecture) -> list[Measured]:
        return [Measured("accuracy", int(architecture.key[:8], 16) / 16**8)]


class FakeExecutor:
    """Workers that are nothing but a time at which they are done.

    Args:
        workers: how many.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._queue: list[Job] = []
        self._running: list[tuple[float, str, Job, datetime]] = []
        self._free = [f"fake:{number}" for number in range(workers)]

    @property
    def outlives(self) -> bool:
        """See :class:`~studies.executors.Executor`."""
        return False

    @property
    def slots(self) -> int:
        return self._workers

    def workers(self) -> Sequence[WorkerState]:
        return ()

    def submit(self, job: Job) -> None:
        self._queue.append(job)
        self._assign()

    def _assign(self) -> None:
        while self._queue and len(self._running) < self._workers:
            job = self._queue.pop(0)
            assert isinstance(job.evaluator, Sleeping)
            end = time.monotonic() + job.evaluator.seconds
            heapq.heappush(self._running, (end, self._free.pop(), job, datetime.now(UTC)))

    def wait(self, timeout: float | None = None) -> list[Outcome]:
        if self._running:
            left = self._running[0][0] - time.monotonic()
            time.sleep(max(0.0, left if timeout is None else min(left, timeout)))
        done = []
        while self._running and self._running[0][0] <= time.monotonic():
            _, name, job, started = heapq.heappop(self._running)
            self._free.append(name)
            assert isinstance(job.evaluator, Sleeping)
            figures = tuple(job.evaluator.figures(job.architecture))
            done.append(Outcome(job.id, figures, None, started, datetime.now(UTC), name))
        self._assign()
        return done

    def close(self) -> None:
        self._queue.clear()
        self._running.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
