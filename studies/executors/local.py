"""One job after the other, in this process."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime

from evaluators.protocol import Measured
from kernels.errors import NasError
from studies.executors.protocol import Job, Outcome

_log = logging.getLogger(__name__)


class LocalExecutor:
    """See :class:`~studies.executors.Executor`; a job runs when its outcome is asked for."""

    def __init__(self) -> None:
        self._queue: deque[Job] = deque()

    def submit(self, job: Job) -> None:
        """See :class:`~studies.executors.Executor`."""
        self._queue.append(job)

    def results(self) -> Iterator[Outcome]:
        """See :class:`~studies.executors.Executor`."""
        while self._queue:
            yield _run(self._queue.popleft())


def _run(job: Job) -> Outcome:
    started = datetime.now(UTC)
    measured: tuple[Measured, ...] = ()
    reason = None
    try:
        measured = tuple(job.evaluator.evaluate(job.architecture))
    except NasError as problem:
        reason = str(problem)
    except Exception as problem:
        # An evaluator may be a user's: whatever it raises fails its candidate, not the study.
        _log.exception("Evaluating %s failed", job.architecture.key)
        reason = f"{type(problem).__name__}: {problem}"
    return Outcome(measured, reason, started, datetime.now(UTC))
