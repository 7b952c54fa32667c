"""How fast candidates are drawn and scored, before anything is trained or measured."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from random import Random

from evaluators.cost import analytic_cost
from evaluators.proxies.receptive_field import receptive_field
from search_spaces.space import DataSpec, Space

_BLOCK = 200
_WARM_UP = 400


@dataclass(frozen=True, slots=True)
class Throughput:
    """Candidates a second on one core: sampled, shape-checked, hashed and scored.

    Attributes:
        median: of blocks of 200 candidates, in processor time of this process.
        p10: slow end.
        p90: fast end.
        candidates: how many were drawn.
        nodes: mean number of nodes of a candidate.
    """

    median: float
    p10: float
    p90: float
    candidates: int
    nodes: float


def candidate_throughput(
    space: Space, data: DataSpec, *, seconds: float = 5.0, seed: int = 0
) -> Throughput:
    """Draw random candidates for a while, compute key, cost and 3DRF of each, and count them.

    Args:
        space: where from.
        data: what the space must know of the data.
        seconds: processor time to spend after a warm-up of 400 candidates.
        seed: of the draws.
    """
    rng = Random(seed)
    for _ in range(_WARM_UP):
        _draw_and_score(space, rng, data)
    rates: list[float] = []
    nodes = 0
    begin = time.process_time()
    while time.process_time() - begin < seconds or len(rates) < 3:
        start = time.process_time()
        nodes += sum(_draw_and_score(space, rng, data) for _ in range(_BLOCK))
        rates.append(_BLOCK / (time.process_time() - start))
    deciles = statistics.quantiles(rates, n=10)
    count = _BLOCK * len(rates)
    return Throughput(statistics.median(rates), deciles[0], deciles[-1], count, nodes / count)


def _draw_and_score(space: Space, rng: Random, data: DataSpec) -> int:
    architecture = space.sample(rng, data).architecture
    assert architecture.key
    analytic_cost(architecture)
    receptive_field(architecture)
    return len(architecture.nodes)
