"""One parameter of an Optuna study: its values, drawn, changed, and as numbers."""

from __future__ import annotations

import math
from functools import cached_property
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from studies.samplers.ehvi.answers import encode

Array = npt.NDArray[np.float64]

_VALUES = 30
"""Most values of a parameter that is described value by value; others are continuous."""
_STEP = 0.15
"""Deviation of a change of a continuous parameter, as a share of its range."""


class Parameter:
    """What can be done with one parameter.

    Args:
        distribution: of its values.
    """

    def __init__(self, distribution: BaseDistribution) -> None:
        self._distribution = distribution

    @cached_property
    def values(self) -> tuple[Any, ...]:
        """All values, if they are few; none if the parameter is continuous, or nearly."""
        item = self._distribution
        if isinstance(item, CategoricalDistribution):
            return tuple(item.choices)
        assert isinstance(item, FloatDistribution | IntDistribution)
        if item.single():
            return (item.low,)
        count = 1 if item.step is None else round((item.high - item.low) / item.step) + 1
        if not 1 < count <= _VALUES:
            return ()
        whole = isinstance(item, IntDistribution)
        found = [item.low + number * (item.step or 1) for number in range(count)]
        return tuple(found) if whole else tuple(min(float(value), item.high) for value in found)

    @property
    def single(self) -> bool:
        """Whether there is no other value."""
        return len(self.values) == 1

    def holds(self, value: Any) -> bool:
        """Tell whether it can take a value."""
        item = self._distribution
        if isinstance(item, CategoricalDistribution):
            return value in item.choices
        return bool(item._contains(value))  # what suggest_... asks too; there is no public name

    def vector(self, value: Any) -> Array:
        """Return one of few values as a vector; see :func:`encode`."""
        return encode(self._position(value), self.values)

    def share(self, value: Any) -> float:
        """Return where a continuous value lies in its range, from 0 to 1."""
        low, high = self._bounds
        return (self._flat(value) - low) / (high - low)

    def draw(self, rng: Random) -> Any:
        """Draw a value uniformly, of a logarithmic parameter uniformly by order of magnitude."""
        if self.values:
            return self.values[int(rng.random() * len(self.values))]
        return self._at(rng.random())

    def change(self, value: Any, rng: Random) -> Any:
        """Draw another value; of a continuous parameter mostly one near by."""
        if self.values:
            step = 1 + int(rng.random() * (len(self.values) - 1))
            return self.values[(self._position(value) + step) % len(self.values)]
        moved = self.share(value) + rng.gauss(0.0, _STEP)
        return self._at(abs(moved) if moved < 1 else 2 - moved) if -1 < moved < 2 else value

    def _position(self, value: Any) -> int:
        if isinstance(self._distribution, CategoricalDistribution):
            return self.values.index(value)
        return min(range(len(self.values)), key=lambda place: abs(self.values[place] - value))

    @property
    def _bounds(self) -> tuple[float, float]:
        item = self._distribution
        assert isinstance(item, FloatDistribution | IntDistribution)
        return self._flat(item.low), self._flat(item.high)

    def _flat(self, value: float) -> float:
        assert isinstance(self._distribution, FloatDistribution | IntDistribution)
        return math.log(value) if self._distribution.log else float(value)

    def _at(self, share: float) -> int | float:
        """Return the value at a share of the range."""
        item = self._distribution
        assert isinstance(item, FloatDistribution | IntDistribution)
        low, high = self._bounds
        flat = low + share * (high - low)
        value = math.exp(flat) if item.log else flat
        if item.step is not None:
            value = item.low + round((value - item.low) / item.step) * item.step
        value = min(max(value, item.low), item.high)
        return round(value) if isinstance(item, IntDistribution) else float(value)
