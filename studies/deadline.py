"""A limit for code that cannot be asked to stop: a user's function in this process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from kernels.errors import NasError
from search_spaces.space import Space

_AGAIN_SECONDS = 1.0
"""Until code that caught the interrupt is interrupted once more."""


class DeadlineError(NasError):
    """Something did not return in time."""


class _Interrupt(BaseException):
    """Gets through ``except Exception``, which a loop that never ends may hold."""

    def __init__(self, error: DeadlineError) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def deadline(seconds: float, what: str, *, file: str = "") -> Iterator[None]:
    """Interrupt the block after some seconds, where the system can: in a Unix main thread.

    Args:
        seconds: that it may take.
        what: begins the message.
        file: the message names the line that this source file was at.

    Raises:
        DeadlineError: the block took longer.
    """
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_: int, frame: FrameType | None) -> None:
        raise _Interrupt(too_late(what, seconds, frame, file))

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_SECONDS)
    try:
        yield
    except _Interrupt as interrupt:
        raise interrupt.error from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def too_late(what: str, seconds: float, frame: FrameType | None, file: str) -> DeadlineError:
    """Return the error of what did not return in time; see :func:`deadline`.

    Args:
        what: begins the message.
        seconds: that it might take.
        frame: where it is now.
        file: the message names the line that this source file is at.
    """
    place = _place(frame, file)
    at = f"; it was at {place}: does a loop never end?" if place else "."
    return DeadlineError(f"{what} did not return within {seconds:.3g} s{at}")


def with_deadline(space: Space, seconds: float) -> Space:
    """Return a space that raises :class:`DeadlineError` where one run of it takes longer."""

    def limited(*arguments: Any, **settings: Any) -> Any:
        with deadline(seconds, f"The space {space.name!r}", file=source_file(space)):
            return space.function(*arguments, **settings)

    return replace(space, function=limited)


def source_file(space: Space) -> str:
    """Return the file that a space's function is written in; empty where it has none."""
    function: Callable[..., Any] = space.function
    while isinstance(function, partial):
        function = function.func
    code = getattr(function, "__code__", None)
    return "" if code is None else str(code.co_filename)


def _place(frame: FrameType | None, file: str) -> str:
    """Return file and line of the innermost call that is written in a file."""
    while frame is not None and frame.f_code.co_filename != file:
        frame = frame.f_back
    return "" if frame is None else f"{Path(file).name}, line {frame.f_lineno}"
