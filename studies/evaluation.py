"""The evaluators that a study's settings ask for, cheapest first."""

from __future__ import annotations

from collections.abc import Sequence

from evaluators.accuracy.data import Dataset
from evaluators.accuracy.evaluator import AccuracyEvaluator, SaveWeights
from evaluators.accuracy.recipe import get_recipe
from evaluators.analytic import AnalyticEvaluator
from evaluators.latency.latency import LatencyEvaluator
from evaluators.protocol import Evaluator
from kernels.device import Device
from kernels.errors import NasError
from studies.config import StudyConfig


def default_evaluators(
    config: StudyConfig, dataset: Dataset, device: Device, *, save: SaveWeights
) -> list[Evaluator]:
    """Return the analytic evaluator, one per latency asked for, and training if asked for.

    Args:
        config: the settings.
        dataset: already loaded.
        device: where latencies are measured and candidates trained.
        save: keeps trained weights.
    """
    metrics = [target.metric for target in config.targets]
    evaluators: list[Evaluator] = [
        AnalyticEvaluator(),
        *(
            LatencyEvaluator(device, batch=metric.qualifier("batch"))
            for metric in metrics
            if metric.name == "latency_ms"
        ),
    ]
    if any(metric.name == "accuracy" for metric in metrics):
        training = AccuracyEvaluator(
            dataset,
            get_recipe(config.recipe),
            seed=config.seed,
            device=device.torch_name,
            threads=config.threads,
            save=save,
        )
        evaluators.append(training)
    return evaluators


def check_coverage(config: StudyConfig, evaluators: Sequence[Evaluator]) -> None:
    """Refuse evaluators that leave an objective without a figure, or give a metric twice.

    Raises:
        NasError: names the metric.
    """
    given: set[str] = set()
    for name in (name for evaluator in evaluators for name in evaluator.metrics):
        if name in given:
            raise NasError(f"The evaluators give {name!r} twice; leave one of them out.")
        given.add(name)
    for name in config.objectives:
        if name not in given:
            raise NasError(
                f"No evaluator gives the objective {name!r}; they give {', '.join(sorted(given))}."
            )
