"""Recorded studies as a search leaves them, made in a second; shared with the browser tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import uvicorn

from dashboards.app import make_app
from evaluators.analytic import AnalyticEvaluator
from evaluators.protocol import Measured, Slot
from search_spaces.architecture import Architecture
from search_spaces.space import Candidate
from studies.config import StudyConfig
from studies.search import run_study
from studies.storage import Evaluation, TrialState
from studies.workspace import Workspace
from tests.unit.studies.fakes import size_score

OBJECTIVES = ("accuracy", "latency_ms", "params")
ONE_MORE = "input 1x8x8; conv {width} k3 bn relu; gap; flatten; linear 10"


class FakeTraining:
    """Accuracy by size, with the history that a training leaves."""

    slot: Slot = "training"
    metrics: tuple[str, ...] = ("accuracy",)

    def cache_key(self, architecture: Architecture) -> str:
        return f"accuracy-{architecture.key}"

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        value = size_score(architecture)
        history = [
            {"epoch": n, "train_loss": 2 / n, "validation": value * (1 - 1 / (n + 1))}
            for n in range(1, 9)
        ]
        detail = {"recipe": "fake", "seed": 0, "device": "cpu", "history": history}
        return [Measured("accuracy", value, value - 0.02, value + 0.01, detail)]


class FakeLatency:
    """Latency by layers and key, with the samples that a timing leaves."""

    slot: Slot = "measurement"
    metrics: tuple[str, ...] = ("latency_ms",)

    def cache_key(self, architecture: Architecture) -> str:
        return f"latency-{architecture.key}"

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        value = 0.05 * len(architecture.nodes) + int(architecture.key[:4], 16) / 65536
        samples = [1000 * value * (1 + 0.01 * ((n % 5) - 2)) for n in range(30)]
        detail = {
            "samples_us": samples,
            "round_index": [n // 10 for n in range(30)],
            "inner_repeats": 4,
            "device": "cpu (fake)",
            "drift": 0.001,
        }
        return [Measured("latency_ms", value, value * 0.98, value * 1.03, detail)]


def record_study(
    place: Workspace | Path, name: str = "digits", *, trials: int = 24, **settings: object
) -> None:
    """Run a small search with evaluators that cost nothing."""
    config = StudyConfig(
        **{
            "name": name,
            "space": "mobile-cnn-small",
            "data": "digits",
            "objectives": list(OBJECTIVES),
            "trials": trials,
            "device": "cpu",
            "workers": 0,
            "funnel": ["rf_gain:0.7"],
            **settings,
        }
    )
    run_study(config, place, evaluators=[AnalyticEvaluator(), FakeLatency(), FakeTraining()])


def add_trial(
    place: Workspace | Path,
    study: str,
    *,
    width: int,
    accuracy: float,
    latency_ms: float,
    regions: str = "",
) -> int:
    """Record one more complete trial, as a driver does; return its number."""
    net = Architecture.parse(ONE_MORE.format(width=width) + regions)
    now = datetime.now(UTC)
    with Workspace.of(place).open(create=False) as repository:
        record = repository.study(study)
        number = len(repository.trials(record.id))
        trial = repository.add_trial(
            record.id, number, Candidate(net, {"stem": width}), origin={"by": "sampler"}
        )
        figures = (
            Measured("accuracy", accuracy, accuracy - 0.01, accuracy + 0.001),
            Measured("latency_ms", latency_ms, latency_ms * 0.9, latency_ms * 1.1),
            Measured("params", float(net.params)),
        )
        repository.add_evaluation(trial, Evaluation("fake", None, figures, now, now, "w"))
        repository.finish_trial(trial, TrialState.COMPLETE)
    return number


@contextmanager
def serving(place: Path) -> Iterator[int]:
    """Serve a workspace's dashboard and give the port."""
    settings = uvicorn.Config(make_app(place), port=0, log_level="error", access_log=False)
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        assert time.monotonic() < deadline, "the server did not start in 30 s"
        time.sleep(0.02)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(timeout=20)
