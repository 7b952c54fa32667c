"""Which evaluations run, for how long, and which still wait for a worker."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from evaluators.protocol import Slot
from studies.executors import Job, Outcome


@dataclass(slots=True)
class _Entry:
    metric: str
    slot: Slot
    begun: float | None = None


class Work:
    """The evaluations that an executor was given and has not returned.

    An executor does not say when it begins one, but begins them in order: as many trainings at
    once as it has workers, and one measurement.

    Args:
        workers: that train at once.
    """

    def __init__(self, workers: int) -> None:
        self._most: dict[Slot, int] = {"training": workers, "measurement": 1, "inline": 1}
        self._entries: dict[int, _Entry] = {}

    def submitted(self, job: Job, workers: int = 0) -> None:
        """Note an evaluation that is to be made, and how many train at once now, where known."""
        self._most["training"] = workers or self._most["training"]
        self._entries[job.id] = _Entry(job.evaluator.metrics[0], job.evaluator.slot)
        self._begin()

    def returned(self, outcomes: Sequence[Outcome]) -> None:
        """Note evaluations that were made."""
        for outcome in outcomes:
            self._entries.pop(outcome.job, None)
        self._begin()

    def running(self) -> dict[str, tuple[int, float]]:
        """Return those that run by their first metric: how many, and seconds of the longest."""
        now = time.monotonic()
        found: dict[str, tuple[int, float]] = {}
        for entry in self._entries.values():
            if entry.begun is not None:
                count, longest = found.get(entry.metric, (0, 0.0))
                found[entry.metric] = (count + 1, max(longest, now - entry.begun))
        return found

    def waiting(self) -> int:
        """Return how many wait."""
        return sum(entry.begun is None for entry in self._entries.values())

    def _begin(self) -> None:
        free = dict(self._most)
        for entry in self._entries.values():
            if free[entry.slot] and entry.begun is None:
                entry.begun = time.monotonic()
            free[entry.slot] = max(0, free[entry.slot] - 1)
