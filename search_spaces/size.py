"""How many candidates a space has: counted, or estimated without bias and with an interval."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from search_spaces.choose import ProbeDecider, Rejected
from search_spaces.errors import SpaceError

_CAUTION = 0.2
"""Share of every preference that stays uniform, so that no answer becomes improbable."""


@dataclass(frozen=True, slots=True)
class Size:
    """How many valid combinations of answers a space has; distinct networks may be fewer.

    Attributes:
        count: the number, or its estimate.
        low: lower end of the 95 % interval.
        high: upper end.
        exact: whether all were counted.
    """

    count: float
    low: float
    high: float
    exact: bool

    def __str__(self) -> str:
        if self.exact:
            return f"{int(self.count):,} (exact)"
        return f"about {self.count:.3g} (95 % interval {self.low:.3g} to {self.high:.3g})"


def measure_size(
    run: Callable[[ProbeDecider], object],
    leaves: Callable[[], Iterator[object]],
    *,
    name: str,
    limit: int,
    probes: int,
    rng: Random,
) -> Size:
    """Count a tree of decisions by enumeration up to ``limit``, beyond it estimate by probes.

    A probe answers at random and is worth one over the probability of its answers, or 0 if it is
    rejected; the expectation is the number of valid leaves whatever the probabilities (Knuth 1975).
    Half of the probes are pilots, first uniform, then better informed, that find out which answers
    have more leaves behind them; the others prefer those answers, which narrows the interval by
    orders of magnitude where depth is a decision. The estimate is of the second half alone.

    Args:
        run: walks the tree once; raises :class:`Rejected` where a rule is broken.
        leaves: enumerates the valid leaves.
        name: of the space, for messages.
        limit: most leaves to count.
        probes: how many random walks to make.
        rng: where the answers come from.

    Raises:
        SpaceError: every probe was rejected.
    """
    quarter = max(2, probes // 4)
    pilot = [_probe(run, ProbeDecider(rng, {})) for _ in range(quarter)]
    if statistics.fmean(worth for worth, _ in pilot) < 10 * limit:
        count = _count(leaves(), limit)
        if count is not None:
            return Size(count, count, count, exact=True)
    preferences = _preferences(pilot)
    second = [_probe(run, ProbeDecider(rng, preferences)) for _ in range(quarter)]
    preferences |= _preferences(second)
    half = 2 * quarter
    worths = [_probe(run, ProbeDecider(rng, preferences))[0] for _ in range(half)]
    mean = statistics.fmean(worths)
    if not mean:
        raise SpaceError(f"{name}: all of {2 * quarter} random probes were rejected.")
    margin = 1.96 * statistics.stdev(worths) / math.sqrt(half)
    return Size(mean, max(float(limit), mean - margin), mean + margin, exact=False)


_Answers = list[tuple[str, int, int]]


def _probe(run: Callable[[ProbeDecider], object], decider: ProbeDecider) -> tuple[float, _Answers]:
    try:
        run(decider)
    except Rejected:
        return 0.0, decider.answers
    return decider.leaves, decider.answers


def _preferences(walks: list[tuple[float, _Answers]]) -> dict[str, list[float]]:
    """Return, by question, probabilities that follow the geometric mean of the leaves behind."""
    logs: dict[tuple[str, int], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for worth, answers in walks:
        if not worth:
            continue
        behind = 0.0
        for question, index, count in reversed(answers):
            logs[question, count][index].append(behind)
            behind += math.log(count)
    return {
        question: _shares([by_answer.get(index, [0.0]) for index in range(count)])
        for (question, count), by_answer in logs.items()
    }


def _shares(samples: list[list[float]]) -> list[float]:
    """Return probabilities from the logs behind each answer, less what noise alone would show."""
    means = [statistics.fmean(values) for values in samples]
    noise = statistics.fmean(
        statistics.variance(values) / len(values) if len(values) > 1 else math.inf
        for values in samples
    )
    between = statistics.variance(means) if len(means) > 1 else 0.0
    trust = max(0.0, 1.0 - noise / between) if between else 0.0
    weights = [math.exp(trust * (mean - max(means))) for mean in means]
    uniform = _CAUTION / len(samples)
    return [uniform + (1 - _CAUTION) * weight / sum(weights) for weight in weights]


def _count(leaves: Iterator[object], limit: int) -> int | None:
    count = 0
    for count, _ in enumerate(leaves, start=1):
        if count > limit:
            return None
    return count
