"""How a job becomes an outcome, in whatever process it runs."""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
from datetime import UTC, datetime

from evaluators.protocol import Measured
from kernels.errors import NasError
from studies.executors.protocol import Job, Outcome

NO_ROOM = "no room left on the disk"
"""Begins the reason of an evaluation whose result could not be kept: no fault of the candidate."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
"""What torch says on a CPU, in a bare RuntimeError."""
_log = logging.getLogger(__name__)


def run(job: Job, *, attempts: int = 1) -> Outcome:
    """Evaluate; whatever the evaluator raises becomes the reason, but for an interrupt or exit.

    Args:
        job: what to do.
        attempts: how often it was begun, this time included.
    """
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
        reason = _describe(problem)
    ended = datetime.now(UTC)
    return Outcome(job.id, measured, reason, started, ended, this_worker(), attempts)


def this_worker() -> str:
    """Name this process in an outcome: ``host:pid``."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _describe(problem: Exception) -> str:
    # torch is asked for its error only where an evaluator imported it: loading it takes seconds.
    torch = sys.modules.get("torch")
    kinds = (MemoryError,) if torch is None else (MemoryError, torch.OutOfMemoryError)
    if isinstance(problem, kinds) or any(text in str(problem) for text in _NO_MEMORY):
        return f"out of memory: {str(problem) or type(problem).__name__}"
    if isinstance(problem, OSError) and problem.errno in _FULL:
        return f"{NO_ROOM}: {problem}"
    return f"{type(problem).__name__}: {problem}"
