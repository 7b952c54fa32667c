"""Pareto evolution over decisions: the best so far have children, and no child is a repeat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from random import Random

import numpy as np

from search_spaces.choose import Option
from search_spaces.errors import SpaceError
from search_spaces.space import DataSpec, Space
from studies.metrics import Direction
from studies.samplers import breeding
from studies.samplers.drafts import Draft, random_drafts
from studies.samplers.protocol import Lesson
from studies.samplers.questions import changeable_names
from studies.samplers.ranking import best
from studies.samplers.window import Window

INITIAL = 20
"""Lessons before the first child; up to then candidates are random."""
PARENTS = (8, 40)
"""Fewest and most of the best in the window that may become parents."""
_SHARE = 10
"""Of how many lessons in the window one may become a parent, between these."""
_NEWCOMERS = 0.05
"""Share of random candidates among the children, so that no answer is lost for good."""
_CROSSED = 0.25
"""Share of children of two parents."""
_CHILDREN = 60
"""Drafts of one ask that are children."""
_WIDER = 10
"""Children met before after which one more answer is changed."""
_RANDOM = 40
"""Drafts of one ask that are random, after the children."""


class Evolution:
    """Breeds from the best of the front and of the newest lessons.

    A parent is the better of two drawn from the best by feasibility, non-dominated rank and
    crowding distance. A child has some of its parent's answers changed, or takes those of
    some scopes from a second parent. See :class:`~studies.samplers.Drafter`.
    """

    def __init__(
        self,
        space: Space,
        data: DataSpec,
        *,
        directions: Sequence[Direction],
        constraints: Sequence[str],
    ) -> None:
        self._space, self._data = space, data
        self._objectives = len(directions)
        self._window = Window(directions, constraints)
        self._parents: list[Lesson] | None = None
        self._changeable: dict[int, tuple[str, ...]] = {}

    def learn(self, lesson: Lesson) -> None:
        """See :class:`~studies.samplers.Drafter`."""
        if self._window.add(lesson) is not None:
            self._parents = None

    def drafts(
        self, rng: Random, number: int, pending: Sequence[Mapping[str, Option]]
    ) -> Iterator[Draft]:
        """See :class:`~studies.samplers.Drafter`."""
        if self._window.count >= INITIAL:
            yield from self._children(rng)
        yield from random_drafts(self._space, self._data, rng, _RANDOM)

    def _children(self, rng: Random) -> Iterator[Draft]:
        parents = self._ranked()
        for attempt in range(_CHILDREN if parents else 0):
            try:
                if rng.random() < _NEWCOMERS:
                    yield from random_drafts(self._space, self._data, rng, 1)
                elif len(parents) > 1 and rng.random() < _CROSSED:
                    yield from self._crossed(parents, rng)
                else:
                    yield from self._mutated(parents, rng, more=attempt // _WIDER)
            except SpaceError:
                return  # the rules reject all that is near: random drafts say which, or find one

    def _mutated(self, parents: list[Lesson], rng: Random, *, more: int) -> Iterator[Draft]:
        parent = parents[_tournament(len(parents), rng)]
        if parent.number not in self._changeable:
            self._changeable[parent.number] = changeable_names(
                parent.decisions, self._space, self._data
            )
        names = self._changeable[parent.number]
        if names:
            child = breeding.mutate(
                parent.decisions, names, rng, self._space, self._data, more=more
            )
            change = breeding.changed(parent.decisions, child.decisions)
            yield Draft(child, "mutation", {"parent": parent.number, "change": change})

    def _crossed(self, parents: list[Lesson], rng: Random) -> Iterator[Draft]:
        one = _tournament(len(parents), rng)
        two = _tournament(len(parents) - 1, rng)
        first, second = parents[one], parents[two + (two >= one)]
        child = breeding.cross(first.decisions, second.decisions, rng, self._space, self._data)
        if child is not None:
            change = breeding.changed(first.decisions, child.decisions)
            yield Draft(
                child,
                "crossover",
                {"parent": first.number, "other": second.number, "change": change},
            )

    def _ranked(self) -> list[Lesson]:
        """Return those who may become parents, the best first."""
        if self._parents is None:
            entries = [entry for entry in self._window.entries() if entry.lesson.decisions]
            unknown = np.zeros(self._objectives)
            rows = [unknown if entry.row is None else entry.row for entry in entries]
            violations = [self._window.violation(entry.lesson) for entry in entries]
            values = np.array(rows).reshape(len(rows), self._objectives)
            count = min(max(len(entries) // _SHARE, PARENTS[0]), PARENTS[1])
            positions = best(values, np.array(violations), count)
            self._parents = [entries[position].lesson for position in positions]
            numbers = {lesson.number for lesson in self._parents}
            self._changeable = {
                number: names for number, names in self._changeable.items() if number in numbers
            }
        return self._parents


def _tournament(count: int, rng: Random) -> int:
    """Return the better of two places in the ranking."""
    return min(int(rng.random() * count), int(rng.random() * count))
