"""Asking a cluster for stations: what they need, for how long, and those that are there already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from evaluators.protocol import Slot
from studies.executors.ray.member import Listener, Member
from studies.executors.ray.station import StationSettings


@dataclass(frozen=True, slots=True)
class Terms:
    """How long stations are kept.

    Attributes:
        idle: seconds without work after which one is given back.
        idle_measuring: the same for one that measures: it holds a whole device.
        term: seconds after which one is given back between two jobs, if the cluster is full, so
            that others have their turn.
        backoff: seconds before a job is begun again; doubles the first few times.
    """

    idle: float = 30.0
    idle_measuring: float = 5.0
    term: float = 300.0
    backoff: float = 1.0


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


def why_it_died(problem: BaseException) -> str:
    """Return the sentence of an error of Ray's that says why."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    for line in lines:
        if line.startswith(("The actor is dead because", "The actor died because")):
            return lines[-1][:300] if "creation task" in line else line[:300]
    return f"{type(problem).__name__}: {lines[0][:300] if lines else ''}"
