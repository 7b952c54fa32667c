"""Asking a sampler in a thread of its own, so that the driver can see to its workers meanwhile."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue

from kernels.errors import NasError
from search_spaces.choose import Option
from studies.deadline import deadline, too_late
from studies.samplers import Lesson, Proposal, Sampler

ASK_SECONDS = 120.0
"""How long a space function and a sampler may take over one proposal."""


class Question:
    """A proposal that was asked for.

    Args:
        number: of the trial it is for.
        limit: seconds it may take.
        what: begins the message where it takes longer.
        file: the message names the line that this source file was at.
    """

    def __init__(self, number: int, limit: float, what: str, file: str) -> None:
        self.number = number
        self._limit, self._what, self._file = limit, what, file
        self._done = threading.Event()
        self._proposal: Proposal | None = None
        self._problem: BaseException | None = None
        self._begun: float | None = None
        self._thread = 0

    def wait(self, seconds: float) -> bool:
        """Tell whether the answer is there, after waiting for it for some seconds.

        Raises:
            DeadlineError: it took longer than it may.
        """
        if self._done.wait(seconds):
            return True
        if self._begun is not None and time.monotonic() - self._begun > self._limit:
            frame = sys._current_frames().get(self._thread)
            raise too_late(self._what, self._limit, frame, self._file)
        return False

    @property
    def proposal(self) -> Proposal:
        """The answer.

        Raises:
            NasError: what the sampler or the space raised.
        """
        if self._problem is not None:
            raise self._problem
        assert self._proposal is not None, "only after wait() said so"
        return self._proposal

    def answer(self, propose: Callable[[], Proposal]) -> None:
        """Work out the answer, in this thread; whatever it raises is the answer too."""
        self._thread, self._begun = threading.get_ident(), time.monotonic()
        try:
            self._proposal = propose()
        except BaseException as problem:
            self._problem = problem
        self._done.set()


class Asker:
    """Tells a sampler and asks it, one thing after the other in the order they were given.

    Args:
        sampler: used by nobody else from now on.
        background: whether in a thread; otherwise each ask is answered when it returns.
        what: what is asked, for messages.
        file: that it is written in, if any.
    """

    def __init__(self, sampler: Sampler, *, background: bool, what: str, file: str = "") -> None:
        self._sampler, self._what, self._file = sampler, what, file
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._problem: NasError | None = None
        self._thread: threading.Thread | None = None
        if background:
            self._thread = threading.Thread(target=self._work, name="sampler", daemon=True)
            self._thread.start()

    def tell(self, lesson: Lesson) -> None:
        """Have the sampler told; what it raises is raised by the next ask."""
        self._do(lambda: self._learn(lesson))

    def ask(self, number: int, pending: Sequence[Mapping[str, Option]]) -> Question:
        """Have the sampler asked."""
        question = Question(number, ASK_SECONDS, self._what, self._file)
        self._do(lambda: question.answer(lambda: self._propose(number, pending)))
        return question

    def close(self) -> None:
        """End the thread, also one that is in a function that never ends."""
        if self._thread is None:
            return
        self._queue.put(None)
        self._thread.join(0.2)
        if self._thread.is_alive() and self._thread.ident is not None:
            # Python code stops at this; deep in foreign code it stops when that returns.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self._thread.ident), ctypes.py_object(SystemExit)
            )

    def _do(self, task: Callable[[], None]) -> None:
        if self._thread is None:
            task()
        else:
            self._queue.put(task)

    def _work(self) -> None:
        while (task := self._queue.get()) is not None:
            task()

    def _learn(self, lesson: Lesson) -> None:
        try:
            self._sampler.tell(lesson)
        except NasError as problem:
            self._problem = problem

    def _propose(self, number: int, pending: Sequence[Mapping[str, Option]]) -> Proposal:
        if self._problem is not None:
            raise self._problem
        if self._thread is not None:
            return self._sampler.ask(number, pending)
        with deadline(ASK_SECONDS, self._what, file=self._file):
            return self._sampler.ask(number, pending)
