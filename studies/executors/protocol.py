"""What every executor does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from evaluators.protocol import Evaluator, Measured
from search_spaces.architecture import Architecture


@dataclass(frozen=True, slots=True)
class Job:
    """One evaluation to be done."""

    evaluator: Evaluator
    architecture: Architecture


@dataclass(frozen=True, slots=True)
class Outcome:
    """One evaluation that was done.

    Attributes:
        measured: its figures; empty where it failed.
        reason: why it failed; None otherwise.
        started: UTC.
        ended: UTC.
    """

    measured: tuple[Measured, ...]
    reason: str | None
    started: datetime
    ended: datetime


class Executor(Protocol):
    """Runs jobs; beside a job whose evaluator is exclusive nothing else runs on the device."""

    def submit(self, job: Job) -> None:
        """Queue a job."""
        ...

    def results(self) -> Iterator[Outcome]:
        """Yield the outcome of every queued job, in the order they were submitted.

        A job that raises is an outcome with a reason; only an interrupt gets through.
        """
        ...
