"""The worker's side: does one job after the other until its driver is gone."""

from __future__ import annotations

import logging
import os
import pickle
import socket
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from evaluators.protocol import Evaluator
from studies.executors import files
from studies.executors.channel import Channel
from studies.executors.outbox import Outbox
from studies.executors.processes import kill_own_group, limit_memory
from studies.executors.protocol import Job, Outcome
from studies.executors.run import run, this_worker
from studies.executors.wire import Lend, Loaded, Ready, Task, WorkerSettings

_log = logging.getLogger(__name__)


def serve(settings: WorkerSettings) -> None:
    """Work; never returns, as the end of the pipe ends the process."""
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    if settings.memory_bytes is not None:
        limit_memory(settings.memory_bytes)
    if settings.send_from is not None:
        files.send_from(Path(settings.send_from))
    # A program that an evaluator starts must not hold the pipe open.
    os.set_inheritable(settings.pipe, False)
    pipe = Channel(socket.socket(fileno=settings.pipe))
    inbox: SimpleQueue[bytes] = SimpleQueue()
    Thread(target=_listen, args=(pipe, inbox), name="listener", daemon=True).start()
    outbox = None if settings.outbox is None else Outbox(Path(settings.outbox))
    bench = _Bench(settings.threads, outbox)
    pipe.send(pickle.dumps(Ready()))
    try:
        while True:
            pipe.send(bench.answer(pickle.loads(inbox.get())))
            if bench.failed and _gpu_is_lost():
                _log.error("The GPU cannot be used by this process any more; another one goes on")
                sys.stderr.flush()
                os._exit(1)
    except SystemExit:
        # An evaluator that asks for the end gets it at once, whatever threads it left running.
        _log.exception("An evaluator ended its worker")
        sys.stderr.flush()
        os._exit(1)


def _listen(pipe: Channel, inbox: SimpleQueue[bytes]) -> None:
    """Read ahead, as only who reads notices that the driver is gone while a job runs."""
    try:
        while True:
            inbox.put(pipe.receive())
    except (EOFError, OSError):
        kill_own_group()


def _gpu_is_lost() -> bool:
    """Tell whether a fault, such as an illegal address, has spoilt the GPU for this process.

    Whatever is asked of it would then fail, of every candidate that follows.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


class _Bench:
    """The evaluators that were lent, and the place where they are applied.

    Attributes:
        failed: whether the last job did.
    """

    def __init__(self, threads: int, outbox: Outbox | None) -> None:
        self._threads, self._outbox = threads, outbox
        self._evaluators: dict[str, Evaluator] = {}
        self.failed = False

    def answer(self, message: Lend | Task) -> bytes:
        if isinstance(message, Lend):
            return pickle.dumps(self._load(message))
        outcome = replace(self._run(message), files=files.taken())
        self.failed = outcome.reason is not None
        self._keep(message.key, outcome)
        try:
            return pickle.dumps(outcome)
        except Exception as problem:
            reason = f"The figures cannot be sent: {type(problem).__name__}: {problem}"
            return pickle.dumps(replace(outcome, measured=(), reason=reason))

    def _load(self, lend: Lend) -> Loaded:
        try:
            self._evaluators[lend.digest] = pickle.loads(lend.evaluator)
        except Exception as problem:
            _log.exception("An evaluator cannot be loaded")
            return Loaded(lend.digest, f"{type(problem).__name__}: {problem}")
        torch = sys.modules.get("torch")
        if torch is not None:
            torch.set_num_threads(self._threads)
        return Loaded(lend.digest, None)

    def _run(self, task: Task) -> Outcome:
        try:
            architecture = pickle.loads(task.architecture)
        except Exception as problem:
            _log.exception("An architecture cannot be loaded")
            reason = f"The architecture cannot be loaded: {type(problem).__name__}: {problem}"
            now = datetime.now(UTC)
            return Outcome(task.job, (), reason, now, now, this_worker(), task.attempts)
        job = Job(task.job, self._evaluators[task.digest], architecture, task.key)
        return run(job, attempts=task.attempts)

    def _keep(self, key: str, outcome: Outcome) -> None:
        if self._outbox is None:
            return
        try:
            self._outbox.put(key, outcome)
        except Exception:
            # The driver is about to get the result itself; only its spare copy is missing.
            _log.exception("The result %s could not be kept in the outbox", key)
