"""The joint rankings of a space's candidates as one figure each."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from hashlib import blake2b
from random import Random

from evaluators.analytic import described
from evaluators.protocol import EvaluationError, Measured, Slot
from evaluators.proxies.fusion import (
    DESCRIPTION,
    FUSED,
    FUSED_PROBED,
    PROBED,
    Reference,
    Scores,
)
from evaluators.proxies.untrained import UntrainedEvaluator
from search_spaces.architecture import Architecture
from search_spaces.space import DataSpec, Space
from search_spaces.zoo import load_space

_SAMPLE = 300
"""Random candidates that others are ranked among: a share is then off by 3 % (one deviation)."""
_PROBED_SAMPLE = 100
"""The same where each costs a third of a second; off by 5 %."""
_SEED = 0
_FRESH = tuple(name for name in PROBED if name not in DESCRIPTION)

_Figures = Callable[[Architecture], dict[str, float]]


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

    def cache_key(self, architecture: Architecture) -> str:
        """Return nothing: computing again is cheaper than looking up."""
        return ""

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        """Return the joint score; the first call draws the others, a millisecond or more each.

        Raises:
            EvaluationError: nothing of the input reaches the output.
        """
        _refuse_dead(architecture)
        return [Measured(FUSED, self._reference.score(described(architecture)))]

    @cached_property
    def _reference(self) -> Reference:
        return _reference(self._space, self._data, _SAMPLE, DESCRIPTION, described)


class ProbedJointEvaluator:
    """The same with scores of fresh networks, for which each candidate is built and run once.

    Args:
        space: as :func:`search_spaces.zoo.load_space` takes it, for another process to find.
        data: what the space must know of the data.
        seed: of the weights.
        device: where networks run.
    """

    metrics: tuple[str, ...] = (FUSED_PROBED,)
    slot: Slot = "training"

    def __init__(self, space: str, data: DataSpec, *, seed: int, device: str) -> None:
        self._space, self._data, self._seed = space, data, seed
        self._fresh = UntrainedEvaluator(_FRESH, seed=seed, device=device)

    def cache_key(self, architecture: Architecture) -> str:
        """See :class:`evaluators.protocol.Evaluator`."""
        space = load_space(self._space)
        parts = [self._fresh.cache_key(architecture), space.name, str(space.version)]
        parts += [str(self._data), str((_PROBED_SAMPLE, dict(PROBED)))]
        return blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        """Return the joint score; the first call in a process runs the others: half a minute.

        Raises:
            EvaluationError: nothing of the input reaches the output, or it reads no image.
        """
        _refuse_dead(architecture)
        return [Measured(FUSED_PROBED, self._reference.score(self._figures(architecture)))]

    def _figures(self, architecture: Architecture) -> dict[str, float]:
        return {**described(architecture), **self._fresh.scores(architecture)}

    @cached_property
    def _reference(self) -> Reference:
        space = load_space(self._space)
        return _reference(space, self._data, _PROBED_SAMPLE, PROBED, self._figures)


def _refuse_dead(architecture: Architecture) -> None:
    if not architecture.live:
        raise EvaluationError("Nothing of the input reaches the output.")


def _reference(
    space: Space, data: DataSpec, count: int, scores: Scores, figures: _Figures
) -> Reference:
    rng = Random(_SEED)
    drawn = [space.sample(rng, data).architecture for _ in range(count)]
    rows = [figures(item) for item in drawn if item.live]
    return Reference.of({name: [row[name] for row in rows] for name in scores}, scores)
