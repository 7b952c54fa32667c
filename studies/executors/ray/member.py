"""One station as its driver holds it, and how it is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any, Literal
from uuid import uuid4

from evaluators.protocol import Slot
from studies.executors.protocol import WorkerState
from studies.executors.ray.station import Assignment, Greeting, StationSettings
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
        term_begun: when its term began, by ``time.monotonic``.
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
    term_begun: float = field(default_factory=time.monotonic)
    _since: float = field(default_factory=time.monotonic)
    _entered: datetime = field(default_factory=lambda: datetime.now(UTC))

    def enter(self, phase: Phase) -> None:
        """Note what it is at now."""
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

    def run(self, ticket: Ticket, evaluator: Any) -> None:
        """Give it a job."""
        ticket.attempts += 1
        ticket.given = datetime.now(UTC)
        self.ticket = ticket
        self.enter(Phase.BUSY)
        assignment = Assignment(
            slot=self.slot,
            digest=ticket.digest,
            architecture=ticket.architecture,
            key=ticket.job.key,
            attempts=ticket.attempts,
        )
        self._listen(self.actor.run.remote(assignment, [evaluator]))

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


@dataclass(frozen=True, slots=True)
class Needs:
    """What a station asks the cluster for.

    Attributes:
        cpus: so many.
        gpus: so many, or a share of one.
        memory_bytes: declared memory; None for none.
        accelerator: type of the GPU, as Ray calls it; None for any.
        node: id of the only machine it may be on; None for any.
    """

    cpus: float
    gpus: float = 0.0
    memory_bytes: int | None = None
    accelerator: str | None = None
    node: str | None = None

    def fit(self, resources: dict[str, float]) -> int:
        """Return how many times they fit into resources, as Ray names these."""
        limits = [
            resources.get(name, 0.0) / number
            for name, number in (
                ("CPU", self.cpus),
                ("GPU", self.gpus),
                ("memory", self.memory_bytes or 0.0),
            )
            if number
        ]
        return int(min(limits) + 1e-6) if limits else 1

    def options(self) -> dict[str, Any]:
        """Return them as Ray takes them."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        found: dict[str, Any] = {
            "num_cpus": self.cpus,
            "num_gpus": self.gpus,
            "scheduling_strategy": "SPREAD"
            if self.node is None
            else NodeAffinitySchedulingStrategy(self.node, soft=False),
        }
        if self.memory_bytes is not None:
            found["memory"] = self.memory_bytes
        if self.accelerator is not None:
            found["accelerator_type"] = self.accelerator
        return found


def ask_for(
    needs: Needs, slot: Slot, settings: StationSettings, namespace: str, listener: Listener
) -> Member:
    """Ask the cluster for a station; it starts when there is room for it."""
    from studies.executors.ray.remote import STATION

    name = f"{slot}-{uuid4().hex[:12]}"
    options = {"name": name, "namespace": namespace, "lifetime": "detached", **needs.options()}
    actor = STATION.options(**options).remote(settings, slot)
    member = Member(actor, name, slot, listener)
    member.greet()
    return member


def rejoin_all(
    settings: StationSettings, namespace: str, listener: Listener, *, seconds: float
) -> list[Member]:
    """Return the stations that a dead driver left; those of other settings are ended."""
    import ray
    from ray.util import list_named_actors

    found: dict[Any, Member] = {}
    for entry in list_named_actors(all_namespaces=True):
        if entry["namespace"] != namespace:
            continue
        name = entry["name"]
        try:
            actor = ray.get_actor(name, namespace=namespace)
        except ValueError:  # it has gone since
            continue
        slot: Slot = "measurement" if name.startswith("measurement") else "training"
        found[actor.greet.remote(settings)] = Member(actor, name, slot, listener)
    if not found:
        return []
    answered, silent = ray.wait(list(found), num_returns=len(found), timeout=seconds)
    joined = []
    for reference in answered:
        member = found[reference]
        try:
            greeting = ray.get(reference)
        except ray.exceptions.RayError:
            continue
        if greeting is None:
            member.kill()
        else:
            member.rejoin(greeting)
            joined.append(member)
    for reference in silent:
        found[reference].kill()
    return joined
