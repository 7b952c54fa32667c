"""Uniform random search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from search_spaces.choose import Option
from search_spaces.space import Candidate, DataSpec, Space
from studies.samplers.protocol import ask_seed


class RandomSampler:
    """Draws uniformly over answers and learns nothing; see :class:`~studies.samplers.Sampler`."""

    def __init__(self, space: Space, data: DataSpec, seed: int) -> None:
        self._space, self._data, self._seed = space, data, seed

    def ask(self, number: int) -> Candidate:
        """See :class:`~studies.samplers.Sampler`."""
        return self._space.sample(Random(ask_seed(self._seed, number)), self._data)

    def tell(self, decisions: Mapping[str, Option], values: Sequence[float] | None) -> None:
        """Do nothing."""
