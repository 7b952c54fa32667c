"""The joint ranking of a space's candidates as one figure, by arithmetic on the description."""

from __future__ import annotations

from functools import cached_property
from random import Random

from evaluators.analytic import AnalyticEvaluator
from evaluators.protocol import EvaluationError, Measured, Slot
from evaluators.proxies.fusion import DESCRIPTION, FUSED, Reference
from search_spaces.architecture import Architecture
from search_spaces.space import DataSpec, Space

_SAMPLE = 300
"""Random candidates that others are ranked among: a share is then off by 3 % (one deviation)."""
_SEED = 0


class JointEvaluator:
    """Ranks a candidate among random ones of its space; see :mod:`evaluators.proxies.fusion`.

    Args:
        space: where the others are drawn from; always the same ones.
        data: what the space must know of the data.
    """

    metrics: tuple[str, ...] = (FUSED,)
    slot: Slot = "inline"

    def __init__(self, space: Space, data: DataSpec) -> None:
        self._space, self._data = space, data
        self._analytic = AnalyticEvaluator()

    def cache_key(self, architecture: Architecture) -> str:
        """Return nothing: computing again is cheaper than looking up."""
        return ""

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        """Return the joint score; the first call draws the others, a millisecond or more each.

        Raises:
            EvaluationError: nothing of the input reaches the output.
        """
        if not architecture.live:
            raise EvaluationError("Nothing of the input reaches the output.")
        return [Measured(FUSED, self._reference.score(self._figures(architecture)))]

    def _figures(self, architecture: Architecture) -> dict[str, float]:
        return {item.metric: item.value for item in self._analytic.evaluate(architecture)}

    @cached_property
    def _reference(self) -> Reference:
        rng = Random(_SEED)
        drawn = [self._space.sample(rng, self._data).architecture for _ in range(_SAMPLE)]
        rows = [self._figures(item) for item in drawn if item.live]
        return Reference.of(
            {name: [row[name] for row in rows] for name in DESCRIPTION}, DESCRIPTION
        )
