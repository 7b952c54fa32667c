"""Jobs in worker processes of this machine: trainings side by side, measurements alone."""

from __future__ import annotations

import itertools
import os
import socket
import sys
import time
import weakref
from collections import Counter, deque
from collections.abc import Sequence
from datetime import UTC, datetime
from multiprocessing.connection import wait as wait_readable
from types import TracebackType
from typing import Self

from kernels.device import Device
from kernels.errors import NasError
from studies.executors.handle import Phase, WorkerOptions, WorkerProcess, dispose_all
from studies.executors.outbox import Outbox
from studies.executors.pause import Pause
from studies.executors.pickling import PickledOnce, to_bytes
from studies.executors.processes import has_proc, waits_for_lock
from studies.executors.protocol import Job, Limits, Outcome, WorkerState
from studies.executors.ticket import Ticket, pop_due, times
from studies.executors.wire import Loaded, Ready

_POLL_SECONDS = 0.2
"""How often resident memory is looked at."""

_LOCK_SECONDS = 0.5
"""How often a measurement is asked whether it waits for a lock, and for how long it makes way."""

_START_SECONDS = 300.0
"""More than any start takes: a worker that is not ready to run its job by then never will be."""


class PoolExecutor:
    """See :class:`~studies.executors.Executor`; workers are processes that live until it closes.

    While a measurement runs, every training worker is stopped (SIGSTOP) and does not pay for it in
    its time; measurements that wait are run back to back. A worker that dies has its job begun
    again; a job over a limit is over. Nothing of it outlives this process, not even kill -9. On
    Linux workers also die with the thread that had them started, so it must outlive the executor.

    An evaluator travels to each worker once, as it was when it was first submitted here.

    Args:
        workers: training processes; measurements have one more. They start when needed.
        limits: of each job.
        outbox: where workers keep results before they report them, and their logs; None keeps
            neither.
        attempts: how often a job whose worker died is begun.
        threads: CPU threads of a worker.
        backoff: seconds before a job is begun again; doubles the first few times.
        gpus: whether workers may see the GPUs that this process sees; or UUIDs of equal ones, of
            which trainings get one each in turn, and what is measured the first.
        path: where workers find modules; by default where this process does.
        send_from: see :class:`~studies.executors.wire.WorkerSettings`.
        device: that other processes may measure or train on too: all of them pause for a
            measurement of one. None: nobody else does.
        settle: seconds between the moment the trainings stand still and a measurement, for work
            they left on another device.

    Raises:
        NasError: a number is out of its range.
    """

    def __init__(
        self,
        workers: int,
        *,
        limits: Limits | None = None,
        outbox: Outbox | None = None,
        attempts: int = 3,
        threads: int = 1,
        backoff: float = 0.1,
        settle: float = 0.0,
        gpus: bool | Sequence[str] = True,
        path: Sequence[str] | None = None,
        send_from: str | None = None,
        device: Device | None = None,
    ) -> None:
        for name, number in (("workers", workers), ("attempts", attempts), ("threads", threads)):
            if number < 1:
                raise NasError(f"The number of {name} must be at least 1, got {number}.")
        self._count, self._attempts, self._limits = workers, attempts, limits or Limits()
        self._backoff = backoff
        self._options = WorkerOptions(
            threads=threads,
            outbox=None if outbox is None else outbox.folder,
            memory_bytes=self._limits.memory_bytes,
            path=tuple(sys.path) if path is None else path,
            send_from=send_from,
        )
        self._gpus = [None if gpus else ""] if isinstance(gpus, bool) else [*gpus]
        self._evaluators = PickledOnce()
        self._trainings: deque[Ticket] = deque()
        self._measurements: deque[Ticket] = deque()
        self._workers: list[WorkerProcess] = []
        self._measuring: WorkerProcess | None = None
        self._ordinal = itertools.count(1)
        self._done: list[Outcome] = []
        self._pause = Pause(device, settle)
        self._finalizer = weakref.finalize(self, dispose_all, self._workers, os.getpid())

    @property
    def paused_seconds(self) -> float:
        """How long trainings stood still for measurements so far."""
        return self._pause.seconds

    @property
    def outlives(self) -> bool:
        """See :class:`~studies.executors.Executor`."""
        return False

    @property
    def slots(self) -> int:
        """See :class:`~studies.executors.Executor`."""
        return self._count

    def workers(self) -> list[WorkerState]:
        """See :class:`~studies.executors.Executor`."""
        paused = self._pause.is_on
        return [
            worker.seen(slot="measurement")
            if worker is self._measuring
            else worker.seen(slot="training", paused=paused)
            for worker in self._workers
        ]

    def submit(self, job: Job) -> None:
        """See :class:`~studies.executors.Executor`.

        Raises:
            NasError: it cannot be pickled, the executor is closed, or no process can be started.
        """
        if not self._finalizer.alive:
            raise NasError("This executor is closed; make another one.")
        ticket = Ticket(job, self._evaluators.of(job.evaluator).digest, to_bytes(job.architecture))
        self._queue(job).append(ticket)
        self._assign()

    def wait(self, timeout: float | None = None) -> list[Outcome]:
        """See :class:`~studies.executors.Executor`; an interrupt leaves it open, to be closed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while not self._done and self._busy():
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                self._turn(left)
                if left == 0.0:
                    break
        except BaseException:
            self._break_off()
            raise
        done, self._done = self._done, []
        return sorted(done, key=lambda outcome: outcome.ended)

    def close(self) -> None:
        """See :class:`~studies.executors.Executor`."""
        self._trainings.clear()
        self._measurements.clear()
        self._done.clear()
        self._evaluators.clear()
        self._measuring = None
        self._finalizer()
        self._pause.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _queue(self, job: Job) -> deque[Ticket]:
        return self._measurements if job.evaluator.slot == "measurement" else self._trainings

    def _busy(self) -> bool:
        held = any(worker.ticket is not None for worker in self._workers)
        return held or bool(self._trainings) or bool(self._measurements)

    # One turn: hear what there is to hear, end what is over a limit, hand out what can be.

    def _turn(self, timeout: float | None) -> None:
        self._look()
        self._assign()
        heard = {worker.pipe.fileno(): worker for worker in self._listened()}
        sentinels = {worker.sentinel: worker for worker in heard.values() if worker.sentinel}
        readable = wait_readable([*heard, *sentinels], self._patience(timeout))
        dead = [sentinels[item] for item in readable if item in sentinels]
        for pipe, worker in heard.items():
            # What another said may have paused this one.
            if (worker in dead or pipe in readable) and worker in self._listened():
                self._hear(worker, dead=worker in dead)
        for worker in self._listened():
            self._enforce(worker)
        self._assign()

    def _listened(self) -> list[WorkerProcess]:
        """Return whom to listen to: who answers a stopped worker would give it something to do."""
        if not self._pause.is_on:
            return list(self._workers)
        return [worker for worker in self._workers if worker is self._measuring]

    def _patience(self, timeout: float | None) -> float | None:
        """Return for how long nothing but a message can make a difference; None for ever."""
        now = time.monotonic()
        waits = [ticket.due - now for ticket in (*self._trainings, *self._measurements)]
        # Those that are due wait for a worker, and a worker speaks.
        waits = [seconds for seconds in waits if seconds > 0]
        for worker in self._listened():
            if worker.phase in (Phase.STARTING, Phase.LOADING):
                waits.append(_START_SECONDS - worker.elapsed())
            elif worker.phase is Phase.RUNNING:
                if self._limits.memory_bytes is not None and has_proc():
                    waits.append(_POLL_SECONDS)
                if self._limits.seconds is not None:
                    waits.append(self._limits.seconds - worker.elapsed())
        if self._pause.is_on:
            waits.append(_LOCK_SECONDS)
        if self._pause.patience is not None and self._busy():
            waits.append(self._pause.patience)
        if timeout is not None:
            waits.append(timeout)
        return max(0.0, min(waits)) if waits else None

    def _hear(self, worker: WorkerProcess, *, dead: bool) -> None:
        try:
            while (message := worker.hear()) is not None:
                self._take(worker, message)
        except (EOFError, OSError):
            dead = True
        if dead:
            self._lose(worker)

    def _take(self, worker: WorkerProcess, message: Ready | Loaded | Outcome) -> None:
        ticket = worker.ticket
        worker.enter(Phase.IDLE)
        if isinstance(message, Outcome):
            worker.ticket = None
            self._done.append(message)
        elif isinstance(message, Loaded) and message.problem is not None:
            self._fail(worker, f"The evaluator cannot be loaded in a worker: {message.problem}")
        else:
            if isinstance(message, Loaded):
                worker.held.add(message.digest)
            if ticket is not None:
                self._give(worker, ticket)

    def _enforce(self, worker: WorkerProcess) -> None:
        if worker.phase in (Phase.STARTING, Phase.LOADING):
            if worker.elapsed() > _START_SECONDS:
                self._lose(worker)
        elif worker.phase is Phase.RUNNING:
            seconds, memory = self._limits.seconds, self._limits.memory_bytes
            reason = None
            alone = self._pause.is_on and worker.elapsed() > _LOCK_SECONDS
            if alone and waits_for_lock(worker.pid):
                # A stopped training may hold it, as for a kernel that both compile: make way.
                self._break_off(_LOCK_SECONDS)
                return
            if seconds is not None and worker.elapsed() > seconds:
                reason = f"exceeded the limit of {seconds:g} s"
            elif memory is not None and worker.resident_bytes() > memory:
                reason = f"exceeded the limit of {memory / 2**20:g} MiB"
            if reason is not None:
                worker.kill()
                self._fail(worker, reason)
                self._discard(worker)

    # Handing out.

    def _assign(self) -> None:
        measuring = self._measuring
        if measuring is None or measuring.ticket is None:
            ticket = pop_due(self._measurements)
            if ticket is not None:
                measuring = self._measuring = self._hand(measuring, ticket, "measurement")
        wanted = measuring is not None and measuring.ticket is not None
        if not wanted or (measuring is not None and measuring.phase is Phase.STARTING):
            self._pause.end(self._training_workers())
        elif measuring is not None and measuring.phase is Phase.IDLE and measuring.ticket:
            self._give(measuring, measuring.ticket)  # another process measured
        while not self._pause.is_on:
            free = [item for item in self._training_workers() if item.ticket is None]
            if not free and len(self._training_workers()) >= self._count:
                break
            ticket = pop_due(self._trainings)
            if ticket is None:
                break
            # One that holds the evaluator already comes first.
            digest = ticket.digest
            worker = max(free, key=lambda item: digest in item.held, default=None)
            self._hand(worker, ticket, "training")

    def _training_workers(self) -> list[WorkerProcess]:
        return [worker for worker in self._workers if worker is not self._measuring]

    def _hand(self, worker: WorkerProcess | None, ticket: Ticket, slot: str) -> WorkerProcess:
        """Give a job to a worker, or to a new one."""
        if worker is None:
            name = f"{slot}-{socket.gethostname()}-{os.getpid()}-{next(self._ordinal)}"
            try:
                worker = WorkerProcess(name, self._options, self._gpu_for(slot))
            except BaseException:
                self._queue(ticket.job).appendleft(ticket)
                raise
            self._workers.append(worker)
            if slot == "measurement":
                self._measuring = worker
        worker.ticket = ticket
        ticket.attempts += 1
        ticket.given = datetime.now(UTC)
        if worker.phase is Phase.IDLE:
            self._give(worker, ticket)
        return worker

    def _gpu_for(self, slot: str) -> str | None:
        held = Counter(worker.gpus for worker in self._training_workers())
        return self._gpus[0] if slot == "measurement" else min(self._gpus, key=lambda x: held[x])

    def _give(self, worker: WorkerProcess, ticket: Ticket) -> None:
        """Send a job to a worker that is idle; first its evaluator where it has it not."""
        if ticket.digest not in worker.held:
            worker.lend(ticket.digest, self._evaluators.of(ticket.job.evaluator).content)
            return
        if worker is self._measuring:
            if not self._pause.allows_to_measure():
                return
            self._begin_pause()
        worker.start(ticket)

    # The pause.

    def _begin_pause(self) -> None:
        for worker in self._pause.begin(self._training_workers()):
            self._lose(worker)  # better to train it again than to measure beside it

    def _look(self) -> None:
        """Stand still while another process measures on the device."""
        trainings = self._training_workers()
        at_work = any(worker.ticket is not None for worker in trainings)
        for worker in self._pause.look(trainings, at_work=at_work):
            self._lose(worker)

    def _break_off(self, delay: float = 0.0) -> None:
        """End the pause and what is measured in it, which is begun again after some seconds."""
        if not self._pause.is_on or self._pause.is_for_others:
            return
        if self._measuring is not None:
            ticket = self._measuring.ticket
            self._discard(self._measuring)
            if ticket is not None:
                ticket.attempts -= 1
                ticket.due = time.monotonic() + delay
                self._measurements.appendleft(ticket)
        self._pause.end(self._training_workers())

    # Ends.

    def _lose(self, worker: WorkerProcess) -> None:
        """A worker died, or is as good as dead: its job is begun again, or is over."""
        ticket = worker.ticket
        if ticket is not None:
            ending, words = worker.kill(), worker.last_words()
            if ticket.attempts < self._attempts:
                worker.ticket = None
                ticket.put_off(self._backoff)
                self._queue(ticket.job).appendleft(ticket)
            else:
                ready = worker.phase not in (Phase.STARTING, Phase.LOADING)
                at_start = "" if ready else " before it was ready"
                said = f"; its last words: {words}" if words else ""
                self._fail(
                    worker, f"the worker died {times(ticket.attempts)} ({ending}){at_start}{said}"
                )
        self._discard(worker)

    def _fail(self, worker: WorkerProcess, reason: str) -> None:
        ticket, worker.ticket = worker.ticket, None
        if ticket is not None:
            name = f"{socket.gethostname()}:{worker.pid}"
            span = (ticket.given, datetime.now(UTC))
            self._done.append(Outcome(ticket.job.id, (), reason, *span, name, ticket.attempts))

    def _discard(self, worker: WorkerProcess) -> None:
        worker.dispose()
        self._workers.remove(worker)
        if worker is self._measuring:
            self._measuring = None
