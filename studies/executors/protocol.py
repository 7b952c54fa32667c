"""What every executor does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self

from evaluators.protocol import Evaluator, Measured
from kernels.errors import NasError
from search_spaces.architecture import Architecture


@dataclass(frozen=True, slots=True)
class Job:
    """One evaluation to be done.

    Attributes:
        id: names the job among those of one executor that are not done.
        evaluator: what to do.
        architecture: whom to.
        key: cache key of the result; empty where it must not be reused.
    """

    id: int
    evaluator: Evaluator
    architecture: Architecture
    key: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """One evaluation that was done.

    Attributes:
        job: its job's id.
        measured: its figures; empty where it failed.
        reason: why it failed; None otherwise.
        started: UTC.
        ended: UTC.
        worker: ``host:pid`` of the process that did it.
        attempts: how often it was begun; more than one where a worker died of it.
    """

    job: int
    measured: tuple[Measured, ...]
    reason: str | None
    started: datetime
    ended: datetime
    worker: str = ""
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What one job may take; None for no limit.

    Attributes:
        seconds: of running; starting a worker and being paused do not count.
        memory_bytes: resident memory of the worker.

    Raises:
        NasError: a limit is not positive.
    """

    seconds: float | None = None
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        for name in ("seconds", "memory_bytes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise NasError(f"The limit {name} must be positive or None, got {value}.")


class Executor(Protocol):
    """Runs jobs; beside a job of the slot ``measurement`` nothing else runs on the device.

    A job that raises is an outcome with a reason; only an interrupt gets through.
    """

    def submit(self, job: Job) -> None:
        """Queue a job.

        Raises:
            NasError: it cannot be run here; says why.
        """
        ...

    def wait(self, timeout: float | None = None) -> list[Outcome]:
        """Return outcomes in the order of completion; block until there is at least one.

        Args:
            timeout: give up after so many seconds; None never does.

        Returns:
            Nothing where nothing is queued, or time is up.
        """
        ...

    def close(self) -> None:
        """Abandon queued and running jobs, and leave no process behind; may be called again."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
