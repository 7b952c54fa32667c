"""The stations that a driver holds, found by what they do and are at.

A large cluster must not be looked through for each job.
"""

from __future__ import annotations

from collections.abc import Iterator

from evaluators.protocol import Slot
from studies.executors.ray.member import Member, Phase


class Crowd:
    """Stations, each in the order in which it came into its phase."""

    def __init__(self) -> None:
        self._places: dict[tuple[Slot, Phase], dict[Member, None]] = {}
        self._leaving: dict[Slot, set[Member]] = {"training": set(), "measurement": set()}

    def add(self, member: Member) -> None:
        """Take one in."""
        self._place(member.slot, member.phase)[member] = None
        member.moved = self._move

    def remove(self, member: Member) -> None:
        """Let one go."""
        self._place(member.slot, member.phase).pop(member, None)
        self._leaving[member.slot].discard(member)
        member.moved = None

    def lead_out(self, member: Member) -> None:
        """Note that one is to go when its job is done."""
        member.leaving = True
        self._leaving[member.slot].add(member)

    def __contains__(self, member: Member) -> bool:
        return member in self._place(member.slot, member.phase)

    def __iter__(self) -> Iterator[Member]:
        for place in self._places.values():
            yield from place

    def __bool__(self) -> bool:
        return any(self._places.values())

    def of(self, slot: Slot, phase: Phase) -> list[Member]:
        """Return those of a slot that are in a phase."""
        return list(self._place(slot, phase))

    def count(self, slot: Slot, *phases: Phase) -> int:
        """Return how many of a slot are in one of some phases."""
        return sum(len(self._place(slot, phase)) for phase in phases)

    def leaving(self, slot: Slot) -> int:
        """Return how many of a slot are to go when their jobs are done."""
        return len(self._leaving[slot])

    def at_work(self) -> bool:
        """Tell whether one is at a job of this driver's."""
        slots: tuple[Slot, ...] = ("training", "measurement")
        return any(item.ticket for slot in slots for item in self._place(slot, Phase.BUSY))

    def _place(self, slot: Slot, phase: Phase) -> dict[Member, None]:
        return self._places.setdefault((slot, phase), {})

    def _move(self, member: Member, phase: Phase) -> None:
        self._place(member.slot, member.phase).pop(member, None)
        self._place(member.slot, phase)[member] = None
