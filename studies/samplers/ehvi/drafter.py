"""The search as an algorithm of studies; see :class:`~studies.samplers.Drafter`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from random import Random

from search_spaces.choose import Option
from search_spaces.space import Candidate, DataSpec, Space
from studies.metrics import Direction
from studies.samplers.drafts import Draft, random_drafts
from studies.samplers.ehvi.search import Search
from studies.samplers.ehvi.space_domain import Ask, Identify, SpaceDomain
from studies.samplers.protocol import Lesson

_RANDOM = 40
"""Drafts of one ask that are random, after those of the search."""


class ExpectedImprovement:
    """Drafts the candidates that are expected to make the front grow most.

    Args:
        space: what is searched.
        data: what the space must know of the data.
        directions: of the objectives.
        constraints: their texts.
        seed: of the study.
        identify: what tells candidates apart.
        free: says what is known of a candidate without payment.
    """

    def __init__(
        self,
        space: Space,
        data: DataSpec,
        *,
        directions: Sequence[Direction],
        constraints: Sequence[str],
        seed: int,
        identify: Identify,
        free: Ask | None,
    ) -> None:
        self._space, self._data = space, data
        self._domain = SpaceDomain(
            space, data, directions=directions, seed=seed, identify=identify, free=free
        )
        self._search = Search(
            self._domain, directions=directions, constraints=constraints, seed=seed
        )

    def learn(self, lesson: Lesson) -> None:
        """See :class:`~studies.samplers.Drafter`."""
        self._search.learn(lesson)

    def drafts(
        self, rng: Random, number: int, pending: Sequence[Mapping[str, Option]]
    ) -> Iterator[Draft]:
        """See :class:`~studies.samplers.Drafter`."""
        waiting = [point for item in pending if (point := self._domain.point(item)) is not None]
        for kind, point in self._search.points(number, waiting):
            found = self._space.replay(point.decisions, self._data)
            yield Draft(Candidate(found.architecture, found.decisions, point.rejections), kind)
        yield from random_drafts(self._space, self._data, rng, _RANDOM)
