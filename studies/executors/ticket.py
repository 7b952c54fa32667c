"""A job on its way to a worker, and when it may be begun again."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime

from studies.executors.protocol import Job

_NEVER = datetime.min.replace(tzinfo=UTC)
_DOUBLINGS = 5
"""How often the delay before a new attempt grows."""


@dataclass(slots=True, eq=False)
class Ticket:
    """A job on its way.

    Attributes:
        job: the job.
        digest: names its evaluator.
        architecture: pickled.
        attempts: how often it was given to a worker.
        given: when it was last given to one, UTC.
        due: not to be given before this moment of ``time.monotonic``.
    """

    job: Job
    digest: str
    architecture: bytes
    attempts: int = 0
    given: datetime = _NEVER
    due: float = 0.0

    def put_off(self, seconds: float) -> None:
        """Have it begun again later: twice as late each time, up to a point."""
        delay = seconds * 2.0 ** min(max(0, self.attempts - 1), _DOUBLINGS)
        self.due = time.monotonic() + delay


def pop_due(queue: deque[Ticket]) -> Ticket | None:
    """Take the first job that may be begun now."""
    now = time.monotonic()
    for ticket in queue:
        if ticket.due <= now:
            queue.remove(ticket)
            return ticket
    return None


def times(count: int) -> str:
    """Say how often something happened.

    Example:
        >>> times(1), times(3)
        ('once', '3 times')
    """
    return "once" if count == 1 else f"{count} times"
