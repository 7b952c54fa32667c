"""One worker process as its driver holds it."""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from pathlib import Path
from typing import BinaryIO, Literal

from evaluators.protocol import Slot
from kernels.environment import worker_environment
from kernels.errors import NasError
from studies.executors.channel import Channel
from studies.executors.processes import (
    describe_exit,
    has_proc,
    resident_bytes,
    signal_group,
    wait_stopped,
)
from studies.executors.protocol import Outcome, WorkerState
from studies.executors.ticket import Ticket
from studies.executors.wire import Lend, Loaded, Ready, Task, WorkerSettings

_log = logging.getLogger(__name__)

_START = Path(__file__).with_name("start.py")
_STOP_SECONDS = 10.0
_KILL_SECONDS = 5.0
_TAIL_LINES = 20
_TAIL_BYTES = 8192


class Phase(Enum):
    """What a worker process is at."""

    STARTING = auto()
    IDLE = auto()
    LOADING = auto()
    RUNNING = auto()


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How worker processes are started.

    Attributes:
        threads: CPU threads of their libraries.
        outbox: folder for their results and logs; None keeps neither.
        memory_bytes: limit of the resident memory of each; None for none.
        path: where they find modules.
        send_from: see :class:`~studies.executors.wire.WorkerSettings`.
    """

    threads: int
    outbox: Path | None
    memory_bytes: int | None
    path: Sequence[str]
    send_from: str | None = None


class WorkerProcess:
    """A process, its pipe, its log, its clock, and the job it was given.

    The process leads a group of its own: Ctrl-C in the terminal does not reach it, what it starts
    is stopped and killed with it, and the system itself wakes and ends a stopped group whose
    parent dies.

    Args:
        name: for its log.
        options: how it is started.
        gpus: that it may see, see :func:`kernels.environment.worker_environment`.

    Attributes:
        gpus: likewise.
        pid: its process id, also that of its group.
        pipe: what it says; readable also when it died.
        sentinel: file descriptor that is readable when it died; None where there is no such thing.
        phase: what it is at.
        ticket: the job it was given.
        held: digests of the evaluators it keeps.

    Raises:
        NasError: the system starts no process.
    """

    def __init__(self, name: str, options: WorkerOptions, gpus: str | None = None) -> None:
        self.gpus = gpus
        self._log_path, self._log = _open_log(name, options.outbox)
        mine, theirs = socket.socketpair()
        self.pipe = Channel(mine)
        settings = WorkerSettings(
            pipe=theirs.fileno(),
            threads=options.threads,
            outbox=None if options.outbox is None else str(options.outbox.absolute()),
            memory_bytes=None if has_proc() else options.memory_bytes,
            send_from=options.send_from,
        )
        request = {"parent": os.getpid(), "path": [*options.path], "settings": asdict(settings)}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_START), json.dumps(request)],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[theirs.fileno()],
                process_group=0,
                env=worker_environment(options.threads, gpus),
            )
        except BaseException as problem:
            self.pipe.close()
            self._close_log()
            if isinstance(problem, OSError):
                raise NasError(f"A worker process cannot be started: {problem}.") from None
            raise
        finally:
            theirs.close()
        self.pid = self._process.pid
        self.sentinel = os.pidfd_open(self.pid) if hasattr(os, "pidfd_open") else None
        self.phase = Phase.STARTING
        self.ticket: Ticket | None = None
        self.held: set[str] = set()
        self._since, self._entered = time.monotonic(), datetime.now(UTC)
        self._paused_at: float | None = None
        self._log_mark = 0

    def enter(self, phase: Phase) -> None:
        """Note what it is at now; its clock starts anew."""
        self.phase, self._since, self._entered = phase, time.monotonic(), datetime.now(UTC)

    def lend(self, digest: str, evaluator: bytes) -> None:
        """Send an evaluator."""
        self.enter(Phase.LOADING)
        self._log_mark = self._log_size()
        self._send(Lend(digest, evaluator))

    def start(self, ticket: Ticket) -> None:
        """Send the job it was given."""
        self.enter(Phase.RUNNING)
        self._log_mark = self._log_size()
        task = Task(
            ticket.job.id, ticket.digest, ticket.architecture, ticket.job.key, ticket.attempts
        )
        self._send(task)

    def _send(self, message: Lend | Task) -> None:
        try:
            self.pipe.send(pickle.dumps(message))
        except (BrokenPipeError, ConnectionResetError):
            # It died; its end of the pipe says so to whoever listens.
            _log.debug("Worker %d was gone before it got its job", self.pid)

    def hear(self) -> Ready | Loaded | Outcome | None:
        """Return what it said; None where there is nothing more for now.

        Raises:
            EOFError, OSError: it died, and there is nothing more at all.
        """
        content = self.pipe.poll()
        message: Ready | Loaded | Outcome | None = (
            None if content is None else pickle.loads(content)
        )
        return message

    def elapsed(self) -> float:
        """Return the seconds it has been at what it is at, without those it was paused."""
        now = time.monotonic() if self._paused_at is None else self._paused_at
        return now - self._since

    def seen(self, slot: Slot, *, paused: bool = False) -> WorkerState:
        """Say what it is at, for whoever looks at the study."""
        host = socket.gethostname()
        state: Literal["starting", "idle", "busy", "paused"] = "busy"
        if self.phase in (Phase.STARTING, Phase.IDLE):
            state = "starting" if self.phase is Phase.STARTING else "idle"
        elif paused:
            state = "paused"
        return WorkerState(
            name=f"{host}:{self.pid}",
            node=host,
            slot=slot,
            device="",
            state=state,
            job=None if self.ticket is None else self.ticket.job.id,
            since=self._entered,
        )

    def resident_bytes(self) -> int:
        """Return its resident memory; 0 where the system does not tell."""
        return resident_bytes(self.pid)

    def signal(self, number: int) -> None:
        """Signal it and what it started, unless it was reaped."""
        # A process that is not reaped keeps its number, so the group cannot be a stranger's.
        if self._process.returncode is None:
            signal_group(self.pid, number)

    def pause(self) -> None:
        """Stop it where it is; :meth:`wait_paused` waits until it stands still."""
        self._paused_at = time.monotonic()
        self.signal(signal.SIGSTOP)

    def wait_paused(self) -> bool:
        """Tell whether it stands still, after waiting for it for a few seconds."""
        return wait_stopped(self.pid, _STOP_SECONDS)

    def resume(self) -> None:
        """Let it go on."""
        self.signal(signal.SIGCONT)
        if self._paused_at is not None:
            self._since += time.monotonic() - self._paused_at
            self._paused_at = None

    def kill(self) -> str:
        """End it and what it started, if need be, and reap it; say how it ended."""
        self.signal(signal.SIGKILL)
        try:
            return describe_exit(self._process.wait(_KILL_SECONDS))
        except subprocess.TimeoutExpired:
            _log.warning("Worker %d does not end after SIGKILL; it hangs in the system", self.pid)
            return "killed"

    def last_words(self) -> str:
        """Return the last lines it wrote about its job; empty where it wrote nothing."""
        size = self._log_size()
        start = max(self._log_mark, size - _TAIL_BYTES)
        text = os.pread(self._log.fileno(), size - start, start).decode(errors="replace")
        return "\n".join(text.strip().splitlines()[-_TAIL_LINES:])

    def dispose(self) -> None:
        """Kill it and give back what it took of the driver; a log with something in it stays."""
        self.kill()
        self.pipe.close()
        if self.sentinel is not None:
            os.close(self.sentinel)
            self.sentinel = None
        self._close_log()

    def _log_size(self) -> int:
        return os.fstat(self._log.fileno()).st_size

    def _close_log(self) -> None:
        if self._log.closed:
            return
        if self._log_path is not None and self._log_size() == 0:
            self._log_path.unlink(missing_ok=True)
        self._log.close()


def _open_log(name: str, folder: Path | None) -> tuple[Path | None, BinaryIO]:
    if folder is None:
        return None, tempfile.TemporaryFile()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.log"
    return path, path.open("w+b", buffering=0)


def dispose_all(workers: list[WorkerProcess], owner: int) -> None:
    """Leave no worker behind; a fork of the driver, whose process is ``owner``, has none."""
    if os.getpid() != owner:
        return
    for worker in workers:
        worker.signal(signal.SIGKILL)
    for worker in workers:
        worker.dispose()
    workers.clear()
