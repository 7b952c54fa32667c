"""A search that does nothing but record: the fastest driver there is. Run as a script.

Arguments: the workspace, the study's name, and how many trials. Prints the seconds they took.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from evaluators.analytic import AnalyticEvaluator
from studies.config import StudyConfig
from studies.search import run_study


def main() -> None:
    """Run the study and print how long its trials took."""
    place, name, trials = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    config = StudyConfig(
        name=name,
        space="mobile-cnn-small",
        data="digits",
        objectives=["params", "rf_gain", "macs"],
        sampler="random",
        trials=trials,
        device="cpu",
        workers=0,
    )
    begin = time.perf_counter()
    run_study(config, place, evaluators=[AnalyticEvaluator()])
    print(time.perf_counter() - begin)  # noqa: T201


if __name__ == "__main__":
    main()
