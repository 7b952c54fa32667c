"""The stages a candidate passes, cheapest first, and what each of them lets through."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan

import numpy as np
import numpy.typing as npt

from evaluators.protocol import Evaluator
from evaluators.proxies.agreement import kendall
from evaluators.proxies.fusion import FUSED_PROBED
from kernels.errors import NasError
from studies.config import GateConfig, StudyConfig
from studies.metrics import SCREEN, UNTRAINED, Constraint, Direction, parse_metric
from studies.rungs import Rung
from studies.samplers.ranking import crowding

_WINDOW = 500
"""Newest candidates that a gate compares with."""
_PEERS = 50
"""The same of a rung: a search gets better, and is stopped by what it finds now. With all 500 the
table of NAS-Bench-201 lost the same and saved a sixth less."""
TRAINED_ENOUGH = 20
"""Trained candidates from which the use of a proxy is judged."""
_RANK = {SCREEN: 0.7, "latency_ms": 1, "peak_memory_mb": 2, "energy_mj": 4, "accuracy": 5}
_UNTRAINED_RANK = 0.5
"""Of scores of fresh networks: half a second each, before what must be measured alone."""
_SLOT_RANK = {"inline": 0, "measurement": 2, "training": 5}


class Gate:
    """Lets the better share of the candidates through; see :class:`~studies.config.GateConfig`.

    A candidate is compared with those that came here before it: its place is the share of them
    that fewer candidates dominate, by the gate's metric and the objectives known by then. One
    that none dominates always goes on. What is looked at follows from trial numbers alone, so
    that a study is the same however its trials were interleaved.

    Attributes:
        config: the settings.
        names: metrics that are compared, the gate's own first.
        passed: how many candidates went on.
        rung: the moment of a training that it judges at; None where it judges something else.
    """

    def __init__(
        self,
        config: GateConfig,
        names: Sequence[str],
        directions: Sequence[Direction],
        rung: Rung | None = None,
    ) -> None:
        self.config, self.rung = config, rung
        self.names, self._directions = tuple(names), tuple(directions)
        self.passed = 0
        self._came: dict[int, tuple[float, ...]] = {}
        self._numbers: list[int] = []

    def arrive(self, number: int, figures: Mapping[str, float]) -> None:
        """Note a candidate that came here."""
        signs = [1.0 if item == "min" else -1.0 for item in self._directions]
        row = (sign * figures[name] for sign, name in zip(signs, self.names, strict=True))
        if number not in self._came:
            insort(self._numbers, number)
        self._came[number] = tuple(row)

    def came(self, before: int) -> list[int]:
        """Return the numbers of the newest candidates below ``before`` that came here."""
        end = bisect_left(self._numbers, before)
        window = _WINDOW if self.rung is None else _PEERS
        return self._numbers[max(0, end - window) : end]

    def verdict(self, number: int, before: int) -> str | None:
        """Return why a candidate that came is dropped; None where it goes on.

        Args:
            number: of the candidate.
            before: only candidates of lower numbers are compared with.
        """
        others = self.came(before)
        if len(others) < self.config.after:
            return None
        rows = np.array([self._came[item] for item in [*others, number]])
        place = _place(rows, to_the_share=self.rung is not None)
        if place < self.config.keep:
            return None
        return (
            f"{self.names[0]} {abs(self._came[number][0]):.4g}: {100 * place:.0f} % of "
            f"{len(others)} candidates before it are better; the stage keeps "
            f"{100 * self.config.keep:.0f} %"
        )


def _place(rows: npt.NDArray[np.float64], *, to_the_share: bool) -> float:
    """Return the share of the rows before the last one that are better than it.

    Better is who is dominated by fewer. To keep no more than a share, of those that are dominated
    by as many the ones with more room around them are the better ones; else the last one has the
    place of the best of them, and one that none dominates is always among the best.
    """
    counts = _dominators(rows)
    better = counts[:-1] < counts[-1]
    if to_the_share:
        equal = np.flatnonzero(counts == counts[-1])
        room = crowding(rows[equal])
        better[equal[:-1][room[:-1] > room[-1]]] = True
    return float(np.mean(better))


def _dominators(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Return by how many of the rows each is dominated; smaller is better."""
    no_worse = (rows[:, None] <= rows[None]).all(axis=2)
    better = (rows[:, None] < rows[None]).any(axis=2)
    return np.asarray((no_worse & better).sum(axis=0), dtype=np.intp)


@dataclass(frozen=True, slots=True)
class Stage:
    """Evaluators of one price, and what a candidate must keep to go on.

    Attributes:
        name: its first metric, or ``"cost"`` of what is found by arithmetic.
        evaluators: all of them are run.
        bounds: constraints that can be checked by then.
        gates: judged in order.
    """

    name: str
    evaluators: tuple[Evaluator, ...]
    bounds: tuple[Constraint, ...] = ()
    gates: tuple[Gate, ...] = field(default=())


def make_stages(
    config: StudyConfig,
    evaluators: Sequence[Evaluator],
    *,
    gates: Sequence[GateConfig] | None = None,
    rungs: Sequence[Rung] = (),
) -> tuple[Stage, ...]:
    """Order evaluators by price; constraints and gates stand where their metric becomes known.

    Args:
        config: the settings.
        evaluators: all of them.
        gates: those of the settings, by default, or more.
        rungs: moments of a training that some of the gates judge at.

    Raises:
        NasError: the direction of a gate's metric is not known.
    """
    groups: dict[float, list[Evaluator]] = {}
    final = set(config.names)
    for position, evaluator in enumerate(evaluators):
        groups.setdefault(_price(evaluator, final, position), []).append(evaluator)
    known: set[str] = set()
    moments = {rung.metric: rung for rung in rungs}
    stages = []
    for price in sorted(groups):
        new = {name for evaluator in groups[price] for name in evaluator.metrics}
        known |= new
        stages.append(
            Stage(
                name=groups[price][0].metrics[0] if price else "cost",
                evaluators=tuple(groups[price]),
                bounds=tuple(item for item in config.bounds if str(item.metric) in new),
                gates=tuple(
                    _gate(config, gate, known, moments)
                    for gate in (config.funnel if gates is None else gates)
                    if str(parse_metric(gate.by, own=True)) in new
                ),
            )
        )
    return tuple(stages)


def _price(evaluator: Evaluator, final: set[str], position: int) -> float:
    """Return the place in the order; trainings are stages of their own, the judged ones last."""
    if evaluator.slot == "inline":
        return 0.0
    metric = parse_metric(evaluator.metrics[0], own=True)
    if metric.name in UNTRAINED or metric.name == FUSED_PROBED:
        return _UNTRAINED_RANK
    rank = _RANK.get(metric.name, _SLOT_RANK[evaluator.slot])
    if evaluator.slot == "training":
        ends = (str(parse_metric(name, own=True).after(0)) for name in evaluator.metrics)
        rank = 3 if final.isdisjoint(ends) else 5
        return rank + position / 1000
    return float(rank)


def _gate(
    config: StudyConfig, gate: GateConfig, known: set[str], rungs: Mapping[str, Rung]
) -> Gate:
    metric = parse_metric(gate.by, own=True)
    directions = {str(item.metric): item.direction for item in config.targets}
    if metric.kind is not None:
        directions.setdefault(str(metric), metric.kind.direction)
    if str(metric) in rungs:
        directions[str(metric)] = directions[str(metric.after(0))]
    if str(metric) not in directions:
        raise NasError(
            f"Setting 'funnel': which way is {metric} better? Make it an objective, or judge by "
            "another metric."
        )
    names = [str(metric), *(name for name in config.names if name in known and name != str(metric))]
    return Gate(gate, names, [directions[name] for name in names], rungs.get(str(metric)))


def misleads(
    proxy: Sequence[float], params: Sequence[float], accuracy: Sequence[float]
) -> str | None:
    """Tell why a proxy should not drop candidates: it ranks the trained ones worse than size does.

    Args:
        proxy: its figures for trained candidates, larger meaning better.
        params: their parameter counts.
        accuracy: their accuracies.

    Returns:
        Kendall's tau-b of the two in a sentence; None while the proxy is the better one or fewer
        than 20 candidates are trained.
    """
    if len(accuracy) < TRAINED_ENOUGH:
        return None
    truth = np.asarray(accuracy)
    mine, plain = (kendall(np.asarray(item), truth) for item in (proxy, params))
    if isnan(plain) or mine >= plain:
        return None
    return (
        f"rank correlation with accuracy {mine:.2f} on {len(accuracy)} trained candidates, "
        f"that of params {plain:.2f}"
    )
