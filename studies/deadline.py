"""A limit for code that cannot be asked to stop: a user's function in this process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from kernels.errors import NasError


class DeadlineError(NasError):
    """Something did not return in time."""


@contextmanager
def deadline(seconds: float, what: str) -> Iterator[None]:
    """Interrupt the block after some seconds, where the system can: in a Unix main thread.

    Raises:
        DeadlineError: the block took longer; ``what`` begins the message.
    """
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_: int, __: FrameType | None) -> None:
        raise DeadlineError(f"{what} did not return within {seconds:.0f} s.")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
