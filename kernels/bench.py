"""How cases of record are measured: ours beside what a user would pick instead, in one run.

CUDA graphs, buffers rotated beyond the cache, baselines and ours interleaved round by round; the
fastest baseline counts. Each kernel system names its own cases; their records are kept in
``kernels/results``.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

import torch

from kernels.timing import Call, JsonValue, TimingPolicy, cold_sets, time_interleaved

POLICY = TimingPolicy(mode="graph", rounds=5, samples_per_round=10, max_seconds=2.0)
"""How cases of record are timed."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Functions to time side by side.

    Attributes:
        case: the case of record.
        baseline: what the baseline is.
        ours: one function per buffer set.
        baselines: name to the same; the fastest counts.
        moved_bytes: what one call must read and write at least; 0 where that says nothing.
        error: computes the relative error of ours against float64, where there is one.
        cold: whether buffers rotate beyond the cache.
        beside: name to functions that are timed and kept with the record, and not compared. They
            run afterwards: a power limit lets one function slow down the next.
        figures: what else the record keeps.
        sample_us: how long a sample of each function lasts at least. Clocks settle under a load:
            a function that is sampled shortly after a long sample of another runs at its clocks.
    """

    case: str
    baseline: str
    ours: Sequence[Call]
    baselines: dict[str, Sequence[Call]]
    moved_bytes: int = 0
    error: Callable[[], float] | None = None
    cold: bool = True
    beside: dict[str, Sequence[Call]] | None = None
    figures: Callable[[], dict[str, JsonValue]] | None = None
    sample_us: float = 0.0


Case = tuple[str, Callable[[], Comparison]]
"""A name, and what makes the comparison."""


def measure(
    system: str,
    cases: Iterable[Case],
    *,
    only: str = "",
    commit: str = "",
    policy: TimingPolicy = POLICY,
) -> list[JsonValue]:
    """Measure cases on torch's current GPU, TF32 off and cuDNN's algorithms measured.

    Args:
        system: whose cases they are.
        cases: names, and what makes each comparison.
        only: measure the cases whose names contain this.
        commit: of the code, for the records.
        policy: how to time.

    Returns:
        One record per case, see ``kernels/results``.
    """
    saved = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = True, False
    try:
        return [_record(system, make(), commit, policy) for name, make in cases if only in name]
    finally:
        torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = saved


Turns = dict[str, Sequence[Call]]
"""Names to functions that are timed in turn, one per buffer set."""

SCOUTING = replace(POLICY, rounds=3, max_seconds=0.2, warmup_max_seconds=0.2)
"""How plans are timed to find the fastest."""


@dataclass(frozen=True, slots=True)
class Contest:
    """A case before its plan is chosen.

    Attributes:
        baseline: what the baseline is.
        ours: plan to one function per buffer set.
        baselines: name to the same.
        error: computes the relative error of a plan against float64.
        beside: see :class:`Comparison`.
    """

    baseline: str
    ours: Turns
    baselines: Turns
    error: Callable[[str], float]
    beside: Turns | None = None


def settle(
    system: str,
    case: str,
    contest: Contest,
    *,
    commit: str = "",
    policy: TimingPolicy = POLICY,
    scouting: TimingPolicy = SCOUTING,
) -> JsonValue:
    """Time all plans and baselines, then the fastest of both for the record.

    Args:
        system: whose case it is.
        case: the case of record.
        contest: what is tried.
        commit: of the code, for the record.
        policy: how to time for the record.
        scouting: how to find the fastest.

    Returns:
        The record; ``plan`` is the one that ran, ``plans_us`` has what each took when tried.
    """
    turns = {**contest.ours, **contest.baselines}
    with torch.no_grad():
        timings = time_interleaved(turns, device="cuda", policy=scouting)
    took: dict[str, JsonValue] = {name: timing.median_us for name, timing in timings.items()}
    best, fastest = (
        min(names, key=lambda name: timings[name].median_us)
        for names in (contest.ours, contest.baselines)
    )
    compared = Comparison(
        case,
        contest.baseline,
        contest.ours[best],
        {fastest: contest.baselines[fastest]},
        error=partial(contest.error, best),
        beside=contest.beside,
    )
    (record,) = measure(system, [(case, lambda: compared)], commit=commit, policy=policy)
    assert isinstance(record, dict)
    return {**record, "plan": best, "plans_us": took}


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the norm of the difference over the norm of what is expected, in float64."""
    wanted = expected.double()
    return float((found.double() - wanted).norm() / wanted.norm())


def _record(system: str, compared: Comparison, commit: str, policy: TimingPolicy) -> JsonValue:
    beside = compared.beside or {}
    turns = {"ours": compared.ours, **compared.baselines}
    if compared.moved_bytes:
        turns["copy"] = _copies(compared.moved_bytes)
    how = policy if compared.cold else replace(policy, cache="warm")
    how = replace(how, min_sample_us=max(how.min_sample_us, compared.sample_us))
    with torch.no_grad():
        error = None if compared.error is None else compared.error()
        figures = {} if compared.figures is None else compared.figures()
        timings = time_interleaved(turns, device="cuda", policy=how)
        if beside:
            timings |= time_interleaved(beside, device="cuda", policy=how)
    ours = timings["ours"]
    fastest = min(compared.baselines, key=lambda name: timings[name].median_us)
    record: dict[str, JsonValue] = {
        "system": system,
        "case": compared.case,
        "ours_us": ours.median_us,
        "p10_us": ours.p10_us,
        "p90_us": ours.p90_us,
        "baseline": f"{compared.baseline} ({fastest})",
        "baseline_us": timings[fastest].median_us,
        "ratio": timings[fastest].median_us / ours.median_us,
        "roofline_us": timings["copy"].median_us if "copy" in timings else None,
        "error": error,
        "device": torch.cuda.get_device_name(),
        "versions": {
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "python": platform.python_version(),
        },
        "commit": commit,
        "date": datetime.now(UTC).date().isoformat(),
        **figures,
    }
    if beside:
        record["beside_us"] = {name: timings[name].median_us for name in beside}
    return record


def _copies(moved_bytes: int) -> list[Call]:
    """Copy half as many bytes: one pass over memory that moves as much."""
    sets = cold_sets(moved_bytes)
    pairs = [torch.empty(2, moved_bytes // 2, dtype=torch.int8, device="cuda") for _ in range(sets)]
    return [partial(pair[0].copy_, pair[1]) for pair in pairs]
