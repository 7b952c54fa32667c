"""What every executor does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Literal, Protocol, Self

from evaluators.protocol import Evaluator, Measured, Slot
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
class File:
    """A file that an evaluation leaves: its name below the workspace, and its content."""

    name: str
    content: bytes = field(repr=False)


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
        files: what it leaves, from a worker that shares no folder with the driver.
    """

    job: int
    measured: tuple[Measured, ...]
    reason: str | None
    started: datetime
    ended: datetime
    worker: str = ""
    attempts: int = 1
    files: tuple[File, ...] = ()


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


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker of an executor.

    Attributes:
        name: of its process, ``host:pid``, or of what is to become one.
        node: the machine it is on; empty where that is not known yet.
        slot: what it does.
        device: what it does it on.
        state: ``starting``, ``idle``, ``busy`` or ``paused``.
        job: id of the job it is at; None where there is none.
        since: when it came into this state, UTC.
    """

    name: str
    node: str
    slot: Slot
    device: str
    state: Literal["starting", "idle", "busy", "paused"]
    job: int | None
    since: datetime


class Executor(Protocol):
    """Runs jobs; beside a job of the slot ``measurement`` nothing else runs on the device.

    A job that raises is an outcome with a reason; only an interrupt gets through.
    """

    @property
    def slots(self) -> int:
        """How many jobs it can run beside this process now, measurements aside."""
        ...

    @property
    def outlives(self) -> bool:
        """Whether jobs go on when this process dies."""
        ...

    def workers(self) -> Sequence[WorkerState]:
        """Return who is there; nobody where jobs run in this process."""
        ...

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

        Raises:
            NasError: jobs can no longer be run at all; says why.
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
