"""How fast candidates are drawn and scored, and how fast a study records what became of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from evaluators.cost import analytic_cost
from evaluators.proxies.receptive_field import receptive_field
from kernels.errors import NasError
from search_spaces.space import DataSpec, Space

if TYPE_CHECKING:
    from studies.flight import Progress

_BLOCK = 200
_WARM_UP = 400
_EDGE = 1000
"""Trials at the beginning and at the end of a study whose times are compared."""
_TOGETHER = 50
"""Trials that are timed together: a driver stores what it began in a turn with one transaction."""
_READS = 3


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


@dataclass(frozen=True, slots=True)
class RecordCosts:
    """What a study of cheap trials costs, in ms.

    Attributes:
        trials: how many it has.
        first: a trial from ask to tell, all recorded: the median of blocks of the first 1,000.
        last: the same of the last 1,000.
        p90: of blocks of the last 1,000.
        front: the front, from a record that was closed.
        summary: counts, reasons, times and the best trial, likewise.
        resume: from the call of a driver that goes on with the study to its first trial.
    """

    trials: int
    first: float
    last: float
    p90: float
    front: float
    summary: float
    resume: float


def record_costs(space: str, trials: int, *, say: Callable[[str], None]) -> RecordCosts:
    """Run a study of random candidates that are scored by arithmetic, and time its trials.

    Args:
        space: where candidates are drawn from.
        trials: how many; at least 2,000.
        say: told of every tenth of them.

    Raises:
        NasError: there is no such space, or it is too small.
    """
    from studies.config import StudyConfig
    from studies.front import front
    from studies.manage import show_study
    from studies.search import run_study

    ends: list[float] = []

    def note(progress: Progress) -> None:
        ends.append(time.perf_counter())
        if len(ends) % (trials // 10) == 0:
            say(f"{len(ends):,} trials")

    with TemporaryDirectory(prefix="nas-bench-") as folder:
        config = StudyConfig(
            name="bench",
            space=space,
            data="digits",
            objectives=("macs", "params"),
            trials=trials,
            sampler="random",
            workers=0,
            device="cpu",
        )
        run_study(config, folder, on_progress=note)
        reads = {
            read: min(_seconds(read, folder) for _ in range(_READS)) for read in (front, show_study)
        }
        begin, known = time.perf_counter(), len(ends)
        run_study(config.model_copy(update={"trials": trials + 1}), folder, on_progress=note)
        resume = ends[known] - begin
    if known <= 2 * _EDGE:
        raise NasError(f"The space {space!r} gave {len(ends)} trials; 2,000 are needed.")
    blocks = [1e3 * (b - a) / _TOGETHER for a, b in pairwise(ends[:known:_TOGETHER])]
    edge = _EDGE // _TOGETHER
    last = blocks[-edge:]
    return RecordCosts(
        trials=known,
        first=statistics.median(blocks[:edge]),
        last=statistics.median(last),
        p90=statistics.quantiles(last, n=10)[-1],
        front=1e3 * reads[front],
        summary=1e3 * reads[show_study],
        resume=1e3 * resume,
    )


def _seconds(read: Callable[[str, str], object], folder: str) -> float:
    begin = time.perf_counter()
    read(folder, "bench")
    return time.perf_counter() - begin
