"""The job of ``nas profile``: what a space holds, before anything is trained.

Random candidates show what is usual; short searches by mutation show how far the space goes. The
ends they find are found ends: the space may go further, so a constraint that they violate is
reported as not met by anything found.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from evaluators.accuracy.data import load_dataset
from evaluators.analytic import AnalyticEvaluator
from evaluators.latency.latency import LatencyEvaluator
from evaluators.protocol import EvaluationError
from kernels.device import detect
from kernels.errors import NasError
from nas.jobs.common import Json
from nas.jobs.spaces import patient_space, size_json
from search_spaces.choose import Decisions
from search_spaces.space import Candidate, DataSpec, Space
from studies.metrics import Constraint, Metric, parse_constraint
from studies.offers import tables
from studies.workspace import Workspace

COSTS = ("params", "macs", "bytes_moved", "peak_activation_bytes", "layers", "depth", "rf_gain")
LATENCY = "latency_ms"
LATENCY_SECONDS = 120.0
"""Most time spent on measuring latencies."""
_CLIMBS = 3
_MUTATIONS = 150
_CHANGES = (1, 2, 4)
_CHOICES_SHOWN = 6
_RANDOM_TIMED = 5

Say = Callable[[str], None]


class Drawn(NamedTuple):
    """A candidate and its costs."""

    candidate: Candidate
    costs: Mapping[str, float]


def profile(
    space_name: str,
    *,
    data: str,
    constraints: Sequence[str],
    candidates: int,
    seed: int,
    device: str | None,
    out: Path | None = None,
    say: Say,
) -> Json:
    """Look at a space.

    Args:
        space_name: of the space.
        data: name of a data set.
        constraints: bounds to check.
        candidates: how many to draw at random.
        seed: of the draws.
        device: where latencies are measured.
        out: a run, whose tables of what pays are told.
        say: told what is done.

    Raises:
        NasError: a name is unknown, or the space rejects everything.
    """
    bounds = [parse_constraint(text) for text in constraints]
    space, dataset = patient_space(space_name), load_dataset(data)
    spec = dataset.spec
    say(f"Counting {space.name} ...")
    size = space.size(spec)
    say(f"Drawing {candidates:,} random candidates ...")
    rng = Random(seed)
    drawn = [_score(space.sample(rng, spec)) for _ in range(candidates)]
    say("Searching for the ends of each cost ...")
    ends = {cost: _ends(space, spec, drawn, cost, rng) for cost in COSTS}
    cheapest = [low for low, _ in ends.values()]
    timed = {
        str(bound.metric): _time(bound.metric, cheapest, drawn, device, say)
        for bound in bounds
        if bound.metric.name == LATENCY
    }
    return {
        "space": space.name,
        "version": space.version,
        "data": data,
        "input_shape": list(spec.input_shape),
        "classes": spec.classes,
        "size": size_json(size),
        "candidates": candidates,
        "distinct": len({item.candidate.architecture.key for item in drawn}),
        "costs": {cost: _range(cost, drawn, *ends[cost]) for cost in COSTS},
        "latencies": timed,
        "constraints": [_verdict(bound, drawn, ends, timed) for bound in bounds],
        "variants": [] if out is None else [str(item) for item in tables(Workspace.of(out))],
        "choices": _influence(drawn, "macs")[:_CHOICES_SHOWN],
    }


def _score(candidate: Candidate) -> Drawn:
    figures = AnalyticEvaluator().evaluate(candidate.architecture)
    return Drawn(candidate, {item.metric: item.value for item in figures})


def _ends(
    space: Space, data: DataSpec, drawn: Sequence[Drawn], cost: str, rng: Random
) -> tuple[Drawn, Drawn]:
    """Return the candidates found with the smallest and the largest cost."""
    low, high = (_climb(space, data, drawn, cost, sign, rng) for sign in (1.0, -1.0))
    return low, high


def _climb(
    space: Space, data: DataSpec, drawn: Sequence[Drawn], cost: str, sign: float, rng: Random
) -> Drawn:
    """Return the candidate with the smallest ``sign * cost`` that mutation finds from the best."""

    def worth(item: Drawn) -> float:
        return sign * item.costs[cost]

    best = min(drawn, key=worth)
    for start in sorted(drawn, key=worth)[:_CLIMBS]:
        current = start
        for step in range(_MUTATIONS):
            changes = _CHANGES[step % len(_CHANGES)]
            decisions: Decisions = dict(current.candidate.decisions)
            try:
                found = _score(space.mutate(decisions, rng, data, changes=changes))
            except NasError:  # nothing near it is valid
                break
            if worth(found) <= worth(current):
                current = found
        best = min(best, current, key=worth)
    return best


def _range(cost: str, drawn: Sequence[Drawn], low: Drawn, high: Drawn) -> Json:
    values = sorted(item.costs[cost] for item in drawn)
    return {
        "lowest_found": low.costs[cost],
        "min": values[0],
        "median": statistics.median(values),
        "max": values[-1],
        "highest_found": high.costs[cost],
        "lowest_text": low.candidate.architecture.text,
    }


def _time(
    metric: Metric, cheapest: Sequence[Drawn], drawn: Sequence[Drawn], device: str | None, say: Say
) -> Json:
    """Measure the candidates that are cheapest in some way, then some random ones."""
    target = detect(device)
    evaluator = LatencyEvaluator(target, **dict(metric.qualifiers))  # type: ignore[arg-type]
    unique = {item.candidate.architecture.key: item for item in cheapest}
    some = list(drawn[:_RANDOM_TIMED])
    end = time.monotonic() + LATENCY_SECONDS
    say(f"Measuring {metric} of up to {len(unique) + len(some)} candidates on {target} ...")
    found: list[tuple[float, str]] = []
    usual: list[float] = []
    for item in [*unique.values(), *some]:
        if time.monotonic() > end:
            break
        architecture = item.candidate.architecture
        try:
            (figure,) = evaluator.evaluate(architecture)
        except EvaluationError as problem:
            say(f"{architecture.key[:8]}: {problem}")
            continue
        found.append((figure.value, architecture.text))
        if item in some:
            usual.append(figure.value)
    if not found:
        raise NasError(f"No candidate of the space could be measured for {metric}.")
    lowest, text = min(found)
    return {
        "device": str(target),
        "measured": len(found),
        "lowest_found": lowest,
        "lowest_text": text,
        "random": usual,
    }


def _verdict(
    bound: Constraint,
    drawn: Sequence[Drawn],
    ends: Mapping[str, tuple[Drawn, Drawn]],
    timed: Mapping[str, Json],
) -> Json:
    """Tell whether a bound can be met: ``yes``, ``not found`` or ``unknown``."""
    name = str(bound.metric)
    share = best = None
    if name in ends:
        kept = sum(bound.violation(item.costs[name]) <= 0 for item in drawn)
        share = kept / len(drawn)
        best = ends[name][0 if bound.relation == "<=" else 1].costs[name]
    elif name in timed and bound.relation == "<=":
        best = timed[name]["lowest_found"]
    reached = "yes" if best is not None and bound.violation(best) <= 0 else "not found"
    return {
        "constraint": str(bound),
        "metric": name,
        "met": "unknown" if best is None else reached,
        "best_found": best,
        "share": share,
    }


def _influence(drawn: Sequence[Drawn], cost: str) -> list[Json]:
    """Return, by question, the share of a cost's variance that its answers explain.

    Only candidates that were asked the question count; questions of one answer explain nothing.
    """
    groups: dict[str, dict[str, list[float]]] = {}
    for item in drawn:
        for question, answer in item.candidate.decisions.items():
            groups.setdefault(question, {}).setdefault(repr(answer), []).append(item.costs[cost])
    found = []
    for question, answers in groups.items():
        values = [value for group in answers.values() for value in group]
        total = statistics.pvariance(values)
        if len(answers) < 2 or not total:
            continue
        mean = statistics.fmean(values)
        between = sum(len(g) * (statistics.fmean(g) - mean) ** 2 for g in answers.values())
        found.append({"choice": question, "share": between / len(values) / total, "of": cost})
    return sorted(found, key=lambda item: -float(str(item["share"])))
