"""Who works for a study, as it is recorded for whoever looks at it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from studies.executors import Executor, WorkerState
from studies.storage import WorkerRecord

_LOOK_SECONDS = 2.0
_SHOW_SECONDS = 30.0
"""How often they are recorded although nothing changed, so that it is seen that they are there."""
_A_SECOND = 500
"""Workers recorded a second at most: a large cluster is looked at less often."""


class Crew:
    """Looks now and then at the workers of an executor.

    Args:
        executor: theirs.
        trial_of: the number of the trial that a job is for.
    """

    def __init__(self, executor: Executor, trial_of: Callable[[int], int | None]) -> None:
        self._executor, self._trial_of = executor, trial_of
        self._last: list[WorkerRecord] = []
        self._shown = self._next = time.monotonic()

    def changed(self) -> list[WorkerRecord] | None:
        """Return the workers if it is time to record them again."""
        now = time.monotonic()
        if now < self._next:
            return None
        workers = [self._record(worker) for worker in self._executor.workers()]
        self._next = now + max(_LOOK_SECONDS, len(workers) / _A_SECOND)
        seen = [
            replace(worker, seen=last.seen)
            for worker, last in zip(workers, self._last, strict=False)
        ]
        if seen == self._last and len(workers) == len(seen) and now < self._shown + _SHOW_SECONDS:
            return None
        self._last, self._shown = workers, now
        return workers

    def _record(self, worker: WorkerState) -> WorkerRecord:
        return WorkerRecord(
            name=worker.name[:255],
            node=worker.node[:255],
            slot=worker.slot,
            device=worker.device[:255],
            state=worker.state,
            trial=None if worker.job is None else self._trial_of(worker.job),
            since=worker.since,
            seen=datetime.now(UTC),
        )
