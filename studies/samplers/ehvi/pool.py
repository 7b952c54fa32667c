"""Points that could be next: some random, some bred from the best, some found on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from studies.samplers.ehvi.domain import Domain, Point
from studies.samplers.protocol import ask_seed

GENERATION = 8
"""Lessons after which a new generation joins the pool; the best of the last two are in it."""
_TIMES, _MOST = 32, 800
"""Points of a generation: so many times as many as may be drawn in an ask, at most so many."""
_CROSSED = 0.2
"""Share of a generation's children that have two parents."""
_STEP = 48
"""Most points of a step of a climb."""
_SEED = 1 << 32
"""Apart from the numbers of trials."""


def generation(domain: Domain, count: int, parents: Sequence[Point], seed: int) -> list[Point]:
    """Return a generation of points, half of them random, each once.

    It is made once for all asks of a time: to draw a point costs more than to judge it.

    Args:
        domain: what points are.
        count: lessons kept when it is made; names it.
        parents: the best by then.
        seed: of the study.
    """
    rng = Random(ask_seed(seed, _SEED + count))
    size = min(_TIMES * domain.pace, _MOST)
    found: dict[str, Point] = {}
    for number in range(size):
        point = _child(domain, parents, rng) if number % 2 and parents else None
        point = point or domain.sample(rng)
        found.setdefault(point.key, point)
    return list(found.values())


def climb(
    domain: Domain, starts: Sequence[Point], rng: Random, is_new: Callable[[Point], bool]
) -> list[Point]:
    """Return new points near those that are worth most, each once, some for each of them."""
    found: dict[str, Point] = {}
    for number in range(min(domain.pace // 2, _STEP)):
        point = domain.change(starts[number % len(starts)], rng)
        if point is not None and is_new(point):
            found.setdefault(point.key, point)
    return list(found.values())


def _child(domain: Domain, parents: Sequence[Point], rng: Random) -> Point | None:
    first = rng.choice(parents)
    if len(parents) > 1 and rng.random() < _CROSSED:
        return domain.cross(first, rng.choice(parents), rng)
    return domain.change(first, rng)
