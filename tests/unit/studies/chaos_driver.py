"""A study in a process of its own, to be killed by the test: ``python -m ... WORKSPACE DIARY``."""

import sys

from evaluators.analytic import AnalyticEvaluator
from studies.search import run_study
from tests.unit.studies.diary import Diary
from tests.unit.studies.fakes import cheap_config

TRIALS = 30


def config():
    return cheap_config(
        objectives=["accuracy", "latency_ms", "params"],
        sampler="evolution",
        trials=TRIALS,
        workers=3,
        constraints=["params<=20k"],
        funnel=[{"by": "rf_gain", "keep": 0.7, "after": 5}],
    )


def evaluators(diary):
    return [
        AnalyticEvaluator(),
        Diary(diary, metric="latency_ms", seconds=0.01, slot="measurement"),
        Diary(diary, seconds=0.05),
    ]


if __name__ == "__main__":
    run_study(config(), sys.argv[1], evaluators=evaluators(sys.argv[2]))
