"""A study as a driver to be killed: ``python -m tests.chaos.study WORKSPACE NAME JSON``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from evaluators.analytic import AnalyticEvaluator
from evaluators.protocol import Evaluator
from kernels.errors import NasError
from studies.config import StudyConfig
from studies.search import run_study
from tests.chaos.evaluators import Paid

TRAINING_SECONDS, MEASURING_SECONDS = 1.5, 0.05


def settings(name: str, **more: Any) -> StudyConfig:
    return StudyConfig(
        name=name,
        space="mobile-cnn-small",
        data="digits",
        objectives=("accuracy", "latency_ms", "params"),
        constraints=("params<=60k",),
        funnel=("rf_gain:0.7",),
        rungs=("1:0.6",),
        sampler="evolution",
        device="cpu",
        lookahead=16,
        max_failures=1000,
        **more,
    )


def evaluators(diary: Path, *, quick: bool = False) -> list[Evaluator]:
    """Those of the study; quick ones give the same figures at once."""
    training, measuring = (0.0, 0.0) if quick else (TRAINING_SECONDS, MEASURING_SECONDS)
    return [
        AnalyticEvaluator(),
        Paid(diary, "latency_ms", measuring, "measurement"),
        Paid(diary, "accuracy", training, "training"),
    ]


def main() -> None:
    place, name, given = sys.argv[1:]
    more = json.loads(given)
    diary = Path(more.pop("diary"))
    try:
        run_study(settings(name, **more), place, evaluators=evaluators(diary))
    except NasError as problem:
        sys.exit(f"{type(problem).__name__}: {problem}")


if __name__ == "__main__":
    main()
