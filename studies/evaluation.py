"""The evaluators that a study's settings ask for, cheapest first."""

from __future__ import annotations

from collections.abc import Sequence

from evaluators.accuracy.data import Dataset
from evaluators.accuracy.evaluator import AccuracyEvaluator, SaveWeights
from evaluators.accuracy.recipe import get_recipe
from evaluators.cost import Cost, analytic_cost
from evaluators.latency.latency import LatencyEvaluator
from evaluators.protocol import Evaluator, Measured
from evaluators.proxies.receptive_field import receptive_field
from kernels.device import Device
from kernels.errors import NasError
from search_spaces.architecture import Architecture
from studies.config import StudyConfig


class AnalyticEvaluator:
    """Costs and 3DRF scores by arithmetic on the description."""

    metrics: tuple[str, ...] = (*Cost._fields, "rf_gain", "rf_volume", "rf_local")
    exclusive = False

    def cache_key(self, architecture: Architecture) -> str:
        """Return nothing: computing again is cheaper than looking up."""
        return ""

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        """Return all figures; the scores are -inf where nothing reaches the output."""
        field = receptive_field(architecture)
        values = {
            **analytic_cost(architecture)._asdict(),
            "rf_gain": field.gain,
            "rf_volume": field.volume,
            "rf_local": field.local,
        }
        return [Measured(name, float(value)) for name, value in values.items()]


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
