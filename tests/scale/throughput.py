"""How busy a driver keeps its workers: ``python -m tests.scale.throughput --workers 64``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from evaluators.analytic import AnalyticEvaluator
from studies.config import StudyConfig
from studies.executors import Executor
from studies.placement import make_executor
from studies.search import run_study
from studies.workspace import Workspace
from tests import postgres
from tests.scale.workers import FakeExecutor, Sleeping


@dataclass(frozen=True)
class Busy:
    """How a study went.

    Attributes:
        share: of the workers' time between the first and the last start of an evaluation in which
            they evaluated, once all of them had something to do.
        trials: how many there were.
        seconds: of that time.
    """

    share: float
    trials: int
    seconds: float


def measure(
    place: Workspace, executor: Executor | None, *, workers: int, seconds: float, trials: int
) -> Busy:
    """Run a study of sleeping evaluations."""
    config = settings(workers, trials)
    evaluators = [AnalyticEvaluator(), Sleeping(seconds)]
    run_study(config, place, evaluators=evaluators, executor=executor)
    with place.open() as repository:
        events = repository.events(repository.study("busy").id)
    evaluated = [event.data for event in events if event.kind == "evaluated"]
    spans = sorted(
        tuple(_moment(data[word]) for word in ("started", "ended")) for data in evaluated
    )
    first: dict[str, float] = {}
    for data in evaluated:
        begun = _moment(data["started"])
        first[data["worker"]] = min(begun, first.get(data["worker"], begun))
    begin, end = max(first.values()), spans[-1][0]  # all have begun; one begins a last time
    busy = sum(max(0.0, min(ended, end) - max(started, begin)) for started, ended in spans)
    inside = sum(begin <= started <= end for started, _ in spans)
    return Busy(busy / (workers * (end - begin)), inside, end - begin)


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def settings(workers: int, trials: int, **more: object) -> StudyConfig:
    return StudyConfig(
        name="busy",
        space="mobile-cnn-small",
        data="digits",
        objectives=("accuracy", "params"),
        sampler="evolution",
        trials=trials,
        workers=workers,
        device="cpu",
        **more,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--record", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--on", choices=["fake", "ray"], default="fake")
    given = parser.parse_args()
    with TemporaryDirectory(prefix="busy") as name:
        folder = Path(name)
        folder.chmod(0o755)
        place, server = Workspace(folder / "w"), None
        if given.record == "postgresql":
            (folder / "db").mkdir()
            server = postgres.Server(folder / "db", options="")  # with fsync, as it ships
            server.start()
            place = Workspace(folder / "w", server.make())
        try:
            found = _measure(place, given)
        finally:
            if server is not None:
                server.stop()
    row = f"{given.on}, {given.record}: {given.workers} workers x {given.seconds:g} s"
    rate = found.trials / found.seconds
    sys.stdout.write(
        f"{row}: {100 * found.share:.1f} % busy, {found.trials} trials, {rate:.1f} a second\n"
    )


def _measure(place: Workspace, given: argparse.Namespace) -> Busy:
    sizes = {"workers": given.workers, "seconds": given.seconds, "trials": given.trials}
    if given.on == "fake":
        return measure(place, FakeExecutor(given.workers), **sizes)
    from kernels.environment import prepare_ray

    prepare_ray()
    import ray

    # More processors than there are: those who sleep need none.
    ray.init(
        address="local",
        num_cpus=given.workers,
        include_dashboard=False,
        configure_logging=False,
        log_to_driver=False,
    )
    executor = make_executor(settings(given.workers, given.trials, ray="auto"), place)
    return measure(place, executor, **sizes)


if __name__ == "__main__":
    main()
