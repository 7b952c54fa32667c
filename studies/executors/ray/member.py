"""One station as its driver holds it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any, Literal

from evaluators.protocol import Slot
from studies.executors.protocol import File, WorkerState
from studies.executors.ray.station import Assignment, Greeting
from studies.executors.ticket import Ticket

Listener = Callable[["Member", "Future[Any]"], None]
"""Called, in a thread of Ray's, when a station answered."""


class Phase(Enum):
    """What a station is at, as far as its driver knows."""

    STARTING = auto()
    IDLE = auto()
    BUSY = auto()
    GONE = auto()


@dataclass(slots=True, eq=False)
class Member:
    """A station.

    Attributes:
        actor: Ray's handle.
        name: of the actor.
        slot: what it does.
        listener: who is told when it answers.
        phase: what it is at.
        greeting: what it said of itself; None while it starts.
        ticket: the job it was given; None also while it is at one that a dead driver gave it.
        key: of the job that a dead driver gave it.
        leaving: whether it is to go when its job is done.
        moved: told before it comes into another phase.
        term_begun: when it got the first job of its term, by ``time.monotonic``; None before.
    """

    actor: Any
    name: str
    slot: Slot
    listener: Listener
    phase: Phase = Phase.STARTING
    greeting: Greeting | None = None
    ticket: Ticket | None = None
    key: str | None = None
    leaving: bool = False
    term_begun: float | None = None
    moved: Callable[[Member, Phase], None] | None = None
    _since: float = field(default_factory=time.monotonic)
    _entered: datetime = field(default_factory=lambda: datetime.now(UTC))

    def enter(self, phase: Phase) -> None:
        """Note what it is at now."""
        if self.moved is not None:
            self.moved(self, phase)
        self.phase, self._since, self._entered = phase, time.monotonic(), datetime.now(UTC)

    @property
    def elapsed(self) -> float:
        """Seconds it has been at what it is at."""
        return time.monotonic() - self._since

    def greet(self) -> None:
        """Ask it who it is; the answer comes when it has started."""
        self._listen(self.actor.greet.remote())

    def beat(self) -> None:
        """Tell it that its driver lives; nobody waits for the answer."""
        self.actor.greet.remote()

    def run(
        self, ticket: Ticket, evaluator: Any, luggage: Mapping[str, Any], files: tuple[File, ...]
    ) -> None:
        """Give it a job.

        Args:
            ticket: the job.
            evaluator: where its evaluator lies in the cluster's store.
            luggage: where arrays lie, by name.
            files: that it goes on from.
        """
        ticket.attempts += 1
        ticket.given = datetime.now(UTC)
        self.ticket = ticket
        self.term_begun = self.term_begun or time.monotonic()
        self.enter(Phase.BUSY)
        assignment = Assignment(
            slot=self.slot,
            digest=ticket.digest,
            architecture=ticket.architecture,
            key=ticket.job.key,
            attempts=ticket.attempts,
            luggage=tuple(luggage),
            files=files,
        )
        # In lists, or Ray would fetch them before each call.
        self._listen(self.actor.run.remote(assignment, [evaluator], list(luggage.values())))

    def rejoin(self, greeting: Greeting) -> None:
        """Take it over from a dead driver, with what it is at."""
        self.greeting = greeting
        self.enter(Phase.IDLE)
        if greeting.key is not None:
            self.key = greeting.key
            self.enter(Phase.BUSY)
            self._listen(self.actor.outcome.remote())

    def dismiss(self) -> None:
        """Have it end, with its files in order."""
        self.phase = Phase.GONE
        self.actor.leave.remote()

    def kill(self) -> None:
        """End it, whatever it is at."""
        import ray

        self.phase = Phase.GONE
        ray.kill(self.actor, no_restart=True)

    def state(self) -> WorkerState:
        """Say what it is at, for whoever looks at the study."""
        words: dict[Phase, Literal["starting", "idle", "busy"]] = {
            Phase.STARTING: "starting",
            Phase.IDLE: "idle",
        }
        greeting = self.greeting
        return WorkerState(
            name=self.name if greeting is None else greeting.name,
            node="" if greeting is None else greeting.node,
            slot=self.slot,
            device="" if greeting is None else greeting.device,
            state=words.get(self.phase, "busy"),
            job=None if self.ticket is None else self.ticket.job.id,
            since=self._entered,
        )

    def _listen(self, reference: Any) -> None:
        reference.future().add_done_callback(lambda done: self.listener(self, done))
