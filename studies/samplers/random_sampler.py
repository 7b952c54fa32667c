"""Uniform random search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from random import Random

from search_spaces.choose import Option
from search_spaces.space import DataSpec, Space
from studies.samplers.drafts import Draft, random_drafts
from studies.samplers.protocol import Lesson

_TRIES = 100


class RandomSearch:
    """Draws uniformly over answers and learns nothing; see :class:`~studies.samplers.Drafter`."""

    def __init__(self, space: Space, data: DataSpec) -> None:
        self._space, self._data = space, data

    def learn(self, lesson: Lesson) -> None:
        """Do nothing."""

    def drafts(
        self, rng: Random, number: int, pending: Sequence[Mapping[str, Option]]
    ) -> Iterator[Draft]:
        """See :class:`~studies.samplers.Drafter`."""
        yield from random_drafts(self._space, self._data, rng, _TRIES)
