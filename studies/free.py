"""What a study knows of a candidate before it pays: objectives and bounds found by arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from evaluators.analytic import AnalyticEvaluator
from search_spaces.space import Candidate
from studies.config import StudyConfig
from studies.funnel import Stage
from studies.samplers import Free


def make_free(config: StudyConfig, stages: Sequence[Stage]) -> Callable[[Candidate], Free] | None:
    """Return what says of a candidate what is free; None where the study asks for nothing such.

    Args:
        config: the settings.
        stages: of the study; what a user's evaluator gives is not taken to be free.
    """
    evaluators = [item for stage in stages for item in stage.evaluators]
    analytic = next((item for item in evaluators if isinstance(item, AnalyticEvaluator)), None)
    if analytic is None:
        return None
    bounds = [item for item in config.bounds if str(item.metric) in analytic.metrics]
    if not bounds and not set(config.names) & set(analytic.metrics):
        return None

    def free(candidate: Candidate) -> Free:
        found = {item.metric: item.value for item in analytic.evaluate(candidate.architecture)}
        values = [found.get(name, math.nan) for name in config.names]
        return Free(
            tuple(value if math.isfinite(value) else math.nan for value in values),
            all(bound.violation(found[str(bound.metric)]) <= 0 for bound in bounds),
        )

    return free
