"""Jobs on a Ray cluster: stations are asked for as there is work and room, and given back."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self

from evaluators.protocol import Slot
from kernels.errors import NasError
from studies.executors import files
from studies.executors.outbox import Outbox
from studies.executors.pickling import PickledOnce, to_bytes
from studies.executors.protocol import File, Job, Outcome, WorkerState
from studies.executors.ray import cluster
from studies.executors.ray.asking import Needs, Terms, ask_for, rejoin_all, why_it_died
from studies.executors.ray.crowd import Crowd
from studies.executors.ray.member import Member, Phase
from studies.executors.ray.station import Luggage, StationSettings
from studies.executors.ticket import Ticket, pop_due, times

_POLL_SECONDS = 0.5
_JOIN_SECONDS = 15.0
"""How long stations of a dead driver have to answer."""
_ROOM_SECONDS = 1.0
"""How often the cluster is asked for its free resources."""
_AT_ONCE = 16
"""Stations that start at a time,"""
_GROWTH = 4
"""or a share of those that are there, so that a large cluster is not long in coming."""
_LEAVE_SECONDS = 0.3
"""How long stations have to leave in order."""
_REFUSALS = 5
"""How often in a row none may start before it is said that none can."""
_MOVE_SECONDS = 2.0
"""How long a measurement waits for a GPU before a training makes way after its job."""

_log = logging.getLogger(__name__)


class RayExecutor:
    """See :class:`~studies.executors.Executor`; this process is connected to a cluster.

    A job that dies with its station is begun again on another. A driver that comes after one that
    died takes over its stations and what they are at.

    Args:
        settings: of all stations.
        namespace: of the study's actors.
        training: what a training station asks for.
        measuring: what a measuring station asks for.
        workers: trainings at once; None for as many as the cluster has room for.
        measurers: measurements at once.
        attempts: how often a job whose station died is begun.
        terms: how long stations are kept.
        luggage: arrays that each machine is to have once, such as a data set.
        owns: whether the cluster was started by this process, and ends with the executor.
    """

    def __init__(
        self,
        settings: StationSettings,
        *,
        namespace: str,
        training: Needs,
        measuring: Needs,
        workers: int | None = None,
        measurers: int = 1,
        attempts: int = 3,
        terms: Terms | None = None,
        luggage: Sequence[Luggage] = (),
        owns: bool = False,
    ) -> None:
        self._settings, self._namespace = settings, namespace
        self._needs: dict[Slot, Needs] = {"training": training, "measurement": measuring}
        self._workers, self._measurers = workers, measurers
        self._attempts, self._terms, self._owns = attempts, terms or Terms(), owns
        self._root = Path(settings.root)
        self._outbox = Outbox(self._root / "outbox")
        self._evaluators = PickledOnce()
        self._references: dict[str, Any] = {}
        self._luggage = {item.name: item for item in luggage}
        self._loaded: dict[str, Any] = {}
        self._queues: dict[Slot, deque[Ticket]] = {"training": deque(), "measurement": deque()}
        self._members = Crowd()
        self._inherited: dict[str, Member] = {}
        self._heard: SimpleQueue[tuple[Member, Future[Any]]] = SimpleQueue()
        self._done: list[Outcome] = []
        self._room: dict[str, float] = {}
        self._room_at = self._beat_at = 0.0
        self._refused: list[str] = []
        self._not_before = 0.0
        self._joined = False

    @property
    def outlives(self) -> bool:
        """See :class:`~studies.executors.Executor`."""
        return True

    @property
    def slots(self) -> int:
        """See :class:`~studies.executors.Executor`."""
        if self._workers is not None:
            return self._workers
        needs = self._needs["training"]
        return sum(needs.fit({"CPU": node.cpus, "GPU": node.gpus}) for node in cluster.nodes())

    def workers(self) -> Sequence[WorkerState]:
        """See :class:`~studies.executors.Executor`."""
        return [member.state() for member in self._members]

    def submit(self, job: Job) -> None:
        """See :class:`~studies.executors.Executor`.

        Raises:
            NasError: it cannot be pickled.
        """
        self._join()
        pickled = self._evaluators.of(job.evaluator)
        ticket = Ticket(job, pickled.digest, to_bytes(job.architecture))
        member = self._inherited.pop(job.key, None)
        if member is not None and member in self._members and member.key == job.key:
            member.ticket, member.key = ticket, None
            ticket.attempts += 1
            return
        self._queue(ticket).append(ticket)  # who submits waits next, and then it is handed out

    def wait(self, timeout: float | None = None) -> list[Outcome]:
        """See :class:`~studies.executors.Executor`."""
        self._join()
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            self._tend()
            self._listen(0.0)
            if self._done or not self._is_busy():
                break
            left = _POLL_SECONDS if end is None else min(_POLL_SECONDS, end - time.monotonic())
            if left <= 0:
                break
            self._listen(left)
        done, self._done = self._done, []
        return sorted(done, key=lambda outcome: outcome.ended)

    def close(self) -> None:
        """See :class:`~studies.executors.Executor`."""
        import ray

        members, self._members = list(self._members), Crowd()
        for member in members:
            member.dismiss()
        if members:
            time.sleep(_LEAVE_SECONDS)
        for member in members:
            member.kill()
        for queue in self._queues.values():
            queue.clear()
        self._evaluators.clear()
        self._references.clear()
        self._loaded.clear()
        self._done.clear()
        if self._owns:
            self._owns = False
            ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # What is there

    def _join(self) -> None:
        """Take over what a dead driver left; the study's lease is this process's by now."""
        if self._joined:
            return
        self._joined = True
        found = rejoin_all(self._settings, self._namespace, self._note, seconds=_JOIN_SECONDS)
        for member in found:
            self._members.add(member)
            if member.key:
                self._inherited[member.key] = member

    def _note(self, member: Member, answer: Future[Any]) -> None:
        self._heard.put((member, answer))

    def _queue(self, ticket: Ticket) -> deque[Ticket]:
        slot = ticket.job.evaluator.slot
        return self._queues["measurement" if slot == "measurement" else "training"]

    def _is_busy(self) -> bool:
        return any(self._queues.values()) or self._members.at_work()

    # Hearing

    def _listen(self, seconds: float) -> None:
        """Take all that stations said, after waiting for something."""
        try:
            heard = self._heard.get(timeout=seconds) if seconds else self._heard.get_nowait()
            while True:
                self._take(*heard)
                heard = self._heard.get_nowait()
        except Empty:
            return

    def _take(self, member: Member, answer: Future[Any]) -> None:
        if member.phase is Phase.GONE or member not in self._members:
            return
        problem = answer.exception()
        if problem is not None:
            self._lose(member, problem)
        elif member.phase is Phase.STARTING:
            member.greeting = answer.result()
            member.enter(Phase.IDLE)
            self._refused.clear()
        else:
            self._finish(member, answer.result())

    def _finish(self, member: Member, outcome: Outcome) -> None:
        ticket, member.ticket = member.ticket, None
        key, member.key = member.key, None
        member.enter(Phase.IDLE)
        try:
            outcome = self._unpacked(outcome)
            if ticket is not None:
                self._done.append(replace(outcome, job=ticket.job.id))
            elif key:
                self._outbox.put(key, outcome)  # who needs it looks there first
        except OSError as problem:
            raise NasError(f"Cannot write what a worker left: {problem}.") from None

    def _unpacked(self, outcome: Outcome) -> Outcome:
        try:
            files.unpack(self._root, outcome.files)
        except NasError as problem:
            return replace(outcome, measured=(), reason=str(problem), files=())
        return replace(outcome, files=())

    def _lose(self, member: Member, problem: BaseException) -> None:
        """A station died, or is as good as dead: its job is begun again, or is over."""
        self._members.remove(member)
        member.kill()
        ticket, why = member.ticket, why_it_died(problem)
        now = time.monotonic()
        if member.greeting is None and now >= self._not_before:  # those that fell at once are one
            self._not_before = now + self._terms.backoff * 2 ** len(self._refused)
            self._refused.append(why)
        if ticket is None:
            return
        kept = self._outbox.get(ticket.job.key) if ticket.job.key else None
        if kept is not None:  # it was done, but for the answer
            self._done.append(replace(kept, job=ticket.job.id))
        elif ticket.attempts < self._attempts:
            ticket.put_off(self._terms.backoff)
            self._queue(ticket).appendleft(ticket)
        else:
            self._fail(ticket, f"the worker died {times(ticket.attempts)} ({why})")

    def _fail(self, ticket: Ticket, reason: str) -> None:
        now = datetime.now(UTC)
        given = min(ticket.given, now) if ticket.attempts else now
        name = cluster.own_name()
        self._done.append(Outcome(ticket.job.id, (), reason, given, now, name, ticket.attempts))

    # Handing out, and asking for more or less

    def _tend(self) -> None:
        now = time.monotonic()
        for slot in ("measurement", "training"):
            self._assign(slot)
            self._give_back(slot)
            if now >= self._not_before:
                self._grow(slot)
        if now - self._beat_at > self._settings.silence / 5:
            self._beat_at = now
            for member in self._members:
                if member.phase is not Phase.STARTING:
                    member.beat()

    def _assign(self, slot: Slot) -> None:
        for member in self._members.of(slot, Phase.IDLE):
            if member.leaving or self._is_due(member):
                continue
            ticket = pop_due(self._queues[slot])
            if ticket is None:
                return
            member.run(ticket, self._reference(ticket), self._load(), self._states(member, ticket))

    def _reference(self, ticket: Ticket) -> Any:
        """Return where the evaluator lies in the object store, once for all who need it."""
        if ticket.digest not in self._references:
            import ray

            content = self._evaluators.of(ticket.job.evaluator).content
            self._references[ticket.digest] = ray.put(content)
        return self._references[ticket.digest]

    def _load(self) -> dict[str, Any]:
        """Return where the arrays lie in the object store; each node fetches them once."""
        if self._luggage and not self._loaded:
            import ray

            self._loaded = {name: ray.put(item) for name, item in self._luggage.items()}
        return self._loaded

    def _states(self, member: Member, ticket: Ticket) -> tuple[File, ...]:
        """Return the files that a job goes on from, for a station that cannot read them."""
        evaluator = ticket.job.evaluator
        apart = member.greeting is not None and not member.greeting.shared
        if not apart or not hasattr(evaluator, "state_files"):
            return ()
        paths = [path for path in evaluator.state_files(ticket.job.architecture) if path.is_file()]
        root = self._root.absolute()
        return tuple(
            File(path.absolute().relative_to(root).as_posix(), path.read_bytes()) for path in paths
        )

    def _is_due(self, member: Member) -> bool:
        """Tell whether a station is to make way for whoever else waits for room."""
        begun = member.term_begun
        if begun is None or time.monotonic() - begun < self._terms.term:
            return False
        if self._needs[member.slot].fit(self._free()) >= 1:
            member.term_begun = None  # nobody waits
            return False
        return True

    def _give_back(self, slot: Slot) -> None:
        measures = slot == "measurement"
        patience = self._terms.idle_measuring if measures else self._terms.idle
        for member in self._members.of(slot, Phase.IDLE):
            unused = not self._queues[slot] and member.elapsed > patience
            if unused or member.leaving or (self._queues[slot] and self._is_due(member)):
                self._members.remove(member)
                member.dismiss()
        # A measurement that waits for a GPU gets one that a training gives back.
        waiting = self._members.of("measurement", Phase.STARTING)
        late = sum(item.elapsed > _MOVE_SECONDS for item in waiting)
        more = late - self._members.leaving("training")
        if measures and self._shares_gpus() and more > 0:
            staying = (m for m in self._members.of("training", Phase.BUSY) if not m.leaving)
            for member in islice(staying, more):
                self._members.lead_out(member)

    def _shares_gpus(self) -> bool:
        return all(needs.gpus > 0 for needs in self._needs.values())

    def _grow(self, slot: Slot) -> None:
        members, queued = self._members, len(self._queues[slot])
        starting, busy = members.count(slot, Phase.STARTING), members.count(slot, Phase.BUSY)
        leaving = members.leaving(slot)
        there = starting + busy + members.count(slot, Phase.IDLE) - leaving
        if slot == "measurement":
            wanted = min(self._measurers, 1 + queued // 4) if queued else 0
        else:
            wanted = busy - leaving + queued
            if self._workers is not None:
                wanted = min(wanted, self._workers)
            if self._shares_gpus() and members.count("measurement", Phase.STARTING):
                return
        most = max(_AT_ONCE, there // _GROWTH)
        if wanted <= there or starting >= most:
            return
        # One more than there is room for: a cluster that can grow sees that it should.
        room = max(1, self._needs[slot].fit(self._free()))
        for _ in range(min(wanted - there, room - starting, most - starting)):
            made = ask_for(self._needs[slot], slot, self._settings, self._namespace, self._note)
            members.add(made)
        self._give_up(slot)

    def _give_up(self, slot: Slot) -> None:
        """End where no station can be started at all: that is no candidate's fault."""
        if len(self._refused) < _REFUSALS or self._members.count(slot, Phase.IDLE, Phase.BUSY):
            return
        raise NasError(
            f"No worker can be started on the cluster ({self._refused[-1]}). Mend it and give the "
            "same command to go on."
        )

    def _free(self) -> dict[str, float]:
        """Return the resources that nobody has, as of a moment ago."""
        now = time.monotonic()
        if now - self._room_at > _ROOM_SECONDS:
            self._room, self._room_at = cluster.free(), now
        return self._room
