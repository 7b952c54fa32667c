"""What a driver and a worker process say to each other over their pipe, pickled."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker is started with; all of it can be written as JSON.

    Attributes:
        pipe: its end of the pipe, a file descriptor.
        threads: CPU threads of torch.
        outbox: folder of an :class:`~studies.executors.outbox.Outbox`; None for none.
        memory_bytes: limit of its address space; None for none.
        send_from: folder of a workspace that the driver does not share: what is left there is sent.
    """

    pipe: int
    threads: int
    outbox: str | None
    memory_bytes: int | None
    send_from: str | None = None


@dataclass(frozen=True, slots=True)
class Lend:
    """Driver to worker, before the first job of an evaluator: keep this one.

    Attributes:
        digest: names it from now on.
        evaluator: pickled.
    """

    digest: str
    evaluator: bytes


@dataclass(frozen=True, slots=True)
class Task:
    """Driver to worker: do this job; the answer is an Outcome.

    Attributes:
        job: its id.
        digest: of an evaluator that was lent.
        architecture: pickled.
        key: cache key or empty.
        attempts: how often the job was begun, this time included.
    """

    job: int
    digest: str
    architecture: bytes
    key: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Ready:
    """Worker to driver: started."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Worker to driver: the answer to Lend.

    Attributes:
        digest: that of Lend.
        problem: why the evaluator cannot be loaded; None if it was.
    """

    digest: str
    problem: str | None
