"""What a driver itself takes at 10,000 GPUs, without any: ``python -m tests.scale.ten_thousand``.

Measured are the parts that grow with workers or with trials; ``docs/results.md`` adds them up.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import tracemalloc
from concurrent.futures import Future
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from evaluators.analytic import AnalyticEvaluator
from search_spaces.space import DataSpec
from search_spaces.zoo import load_space
from studies.config import StudyConfig
from studies.executors import Job, Limits
from studies.executors.ray.asking import Needs, Terms
from studies.executors.ray.executor import RayExecutor
from studies.executors.ray.member import Member, Phase
from studies.executors.ray.station import Greeting, StationSettings
from studies.flight import begun_trial
from studies.ledger import Ledger
from studies.samplers import make_sampler
from studies.search import run_study
from studies.storage import TrialState, Value
from studies.workspace import Workspace
from tests.scale.throughput import settings
from tests.scale.workers import FakeExecutor, Sleeping

DIGITS = DataSpec((1, 8, 8), 10)


class _Method:
    def remote(self, *_: Any) -> _Method:
        return self

    def future(self) -> Future[Any]:
        return Future()


class _Actor:
    """Takes calls and answers none."""

    greet = run = outcome = leave = _Method()


class _Cluster(RayExecutor):
    """Has as much room as it is told, and no Ray."""

    def _free(self) -> dict[str, float]:
        return {"GPU": 0.0, "CPU": 0.0}

    def _reference(self, ticket: Any) -> Any:
        return ticket.digest

    def _join(self) -> None:
        self._joined = True


def turn_of(stations: int, folder: Path) -> float:
    """Return ms that a driver needs to give a job to one of so many stations and take the last."""
    terms = StationSettings(str(folder), "", (), 1, Limits(), 3, True, None, 600.0, "")
    needs = Needs(cpus=1, gpus=1)
    cluster = _Cluster(
        terms,
        namespace="n",
        training=needs,
        measuring=needs,
        workers=stations,
        terms=Terms(idle=1e9, term=1e9),
    )
    made = []
    for number in range(stations):
        member = Member(_Actor(), f"m{number}", "training", cluster._note)
        member.greeting = Greeting(f"h:{number}", "h", "GPU 0", True)
        member.enter(Phase.IDLE)
        cluster._members.add(member)
        made.append(member)
    network = load_space("mobile-cnn").sample(Random(0), DIGITS).architecture
    evaluator = Sleeping(1.0)
    for number in range(stations):
        cluster.submit(Job(number, evaluator, network, f"k{number}"))
    cluster._tend()
    times = []
    for number in range(200):
        begin = time.perf_counter()
        made[number % stations].enter(Phase.IDLE)
        cluster.submit(Job(stations + number, evaluator, network, f"l{number}"))
        cluster.wait(0.0)
        times.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(times)


def ask_of(pending: int) -> tuple[float, float]:
    """Return s of the first and ms of each further ask of the default sampler with so many waiting.

    The first is that of a driver that takes a study over.
    """
    space, rng = load_space("mobile-cnn"), Random(0)
    waiting = [space.sample(rng, DIGITS).decisions for _ in range(pending)]
    name = StudyConfig.model_fields["sampler"].default
    sampler = make_sampler(name, space, DIGITS, directions=["max", "min"], constraints=[], seed=0)
    times = []
    for number in range(41):
        begin = time.perf_counter()
        sampler.ask(number, waiting)
        times.append(time.perf_counter() - begin)
    return times[0], 1e3 * statistics.median(times[1:])


def rate_of(workers: int, trials: int, folder: Path) -> float:
    """Return how many trials a second a driver begins, evaluates for nothing, records and tells."""
    config = settings(workers, trials)
    evaluators = [AnalyticEvaluator(), Sleeping(0.0)]
    place = Workspace(folder)
    begin = time.perf_counter()
    run_study(config, place, evaluators=evaluators, executor=FakeExecutor(workers))
    return trials / (time.perf_counter() - begin)


def bytes_of(trials: int) -> float:
    """Return the memory that a trial takes in a driver, in bytes."""
    space, rng = load_space("mobile-cnn"), Random(0)
    config = settings(1, trials)
    ledger = Ledger(config, 1, lambda _: None)
    tracemalloc.start()
    for number in range(trials):
        candidate = space.sample(rng, DIGITS)
        trial = begun_trial(number, candidate, {"by": "sampler", "kind": "child", "told": number})
        trial.values.update({name: Value(rng.random()) for name in ("accuracy", "params", "macs")})
        ledger.begin(number, trial.key, baseline=False)
        ledger.end(_ended(trial))
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return size / trials


def _ended(trial: Any) -> Any:
    from dataclasses import replace

    return replace(trial, state=TrialState.COMPLETE)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--stations", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--trials", type=int, default=3_000)
    given = parser.parse_args()
    with TemporaryDirectory(prefix="large") as name:
        for stations in given.stations:
            turn = turn_of(stations, Path(name))
            sys.stdout.write(f"{stations:,} stations: {turn:.2f} ms to give one its next job\n")
        waiting = 4 * max(given.stations)
        first, others = ask_of(waiting)
        sys.stdout.write(
            f"{waiting:,} in flight: {others:.1f} ms an ask, the first {first:.1f} s\n"
        )
        rate = rate_of(256, given.trials, Path(name) / "w")
        sys.stdout.write(f"a driver begins, records and tells {rate:.0f} trials a second at most\n")
    sys.stdout.write(f"{bytes_of(2_000) / 1e3:.1f} kB of memory a trial\n")


if __name__ == "__main__":
    main()
