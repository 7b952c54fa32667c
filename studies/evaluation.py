"""The evaluators that a study's settings ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evaluators.accuracy.data import AnyDataset, Dataset
from evaluators.accuracy.evaluator import AccuracyEvaluator, Start
from evaluators.accuracy.recipe_reference import find_recipe
from evaluators.accuracy.tasks import metrics_of
from evaluators.analytic import AnalyticEvaluator
from evaluators.energy import EnergyEvaluator
from evaluators.joint import JointEvaluator, ProbedJointEvaluator
from evaluators.latency.latency import LatencyEvaluator
from evaluators.latency.screen import LayersEvaluator
from evaluators.memory import PeakMemoryEvaluator
from evaluators.protocol import Evaluator
from evaluators.proxies.fusion import FUSED, FUSED_PROBED
from kernels.device import Device
from kernels.errors import NasError
from search_spaces.space import Space
from search_spaces.zoo import load_space
from studies.config import StudyConfig
from studies.executors.files import send
from studies.metrics import QUALITIES, SCREEN, UNTRAINED, Metric, parse_metric
from studies.own import load_own_evaluators
from studies.repeat import RepeatedEvaluator
from studies.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Means:
    """What evaluators are made from."""

    config: StudyConfig
    dataset: AnyDataset
    device: Device
    place: Workspace
    start: Start | None = None
    space: Space | None = None


def default_evaluators(means: Means) -> list[Evaluator]:
    """Return what gives every metric that objectives, constraints and the funnel name.

    Raises:
        NasError: a user's evaluator cannot be loaded.
    """
    wanted = list(wanted_metrics(means.config))
    found: list[Evaluator] = [AnalyticEvaluator()]
    own = tuple(name for name in wanted if parse_metric(name, own=True).kind is None)
    found += load_own_evaluators(
        means.config.evaluators,
        means.dataset,
        metrics=own,
        seed=means.config.seed,
        start=means.start,
    )
    given = {name for evaluator in found for name in evaluator.metrics}
    for name in wanted:
        metric = parse_metric(name, own=True)
        if name not in given and metric.name in (MEASURES.keys() | _FAMILIES.keys()):
            found.append(_repeated(means, metric))
            given |= {*found[-1].metrics}
    return found


def wanted_metrics(config: StudyConfig) -> dict[str, None]:
    """Return the names of all metrics the settings ask for, in order, once each."""
    names = [*config.names]
    names += [str(bound.metric) for bound in config.bounds]
    names += [str(parse_metric(gate.by, own=True)) for gate in config.funnel]
    return dict.fromkeys(names)


def _repeated(means: Means, metric: Metric) -> Evaluator:
    if metric.name in MEASURES:
        return measuring_evaluator(metric, means.device, means.config.repeat)
    make = _FAMILIES[metric.name]
    count = means.config.repeat
    if metric.name in QUALITIES:
        count = max(count, int(metric.qualifier("seeds")))
    if count == 1:
        return make(means, metric, 0)
    return RepeatedEvaluator(tuple(make(means, metric, index) for index in range(count)))


MEASURES: dict[str, Callable[..., Evaluator]] = {
    "latency_ms": LatencyEvaluator,
    "energy_mj": EnergyEvaluator,
    "peak_memory_mb": PeakMemoryEvaluator,
    SCREEN: LayersEvaluator,
}
"""What measures a metric, by its name."""


def measuring_evaluator(metric: Metric, device: Device, repeat: int = 1) -> Evaluator:
    """Return what measures a metric of :data:`MEASURES` on a device.

    Args:
        metric: with the conditions that it is measured under.
        device: where.
        repeat: how often, each of which is paid.

    Raises:
        NasError: it cannot be measured under these conditions there.
    """
    parts = [MEASURES[metric.name](device, **dict(metric.qualifiers)) for _ in range(repeat)]
    return parts[0] if repeat == 1 else RepeatedEvaluator(tuple(parts))


def _quality(means: Means, metric: Metric, index: int) -> Evaluator:
    recipe = str(metric.qualifier("recipe")) or means.config.recipe
    names = metrics_of(means.dataset)
    if metric.name not in names:
        raise NasError(
            f"Training on {means.config.data!r} gives {', '.join(names)}, not {metric.name}."
        )
    evaluator = AccuracyEvaluator(
        means.dataset,
        find_recipe(recipe, means.dataset.input_shape),
        seed=means.config.seed + index,
        device=means.device.torch_name,
        threads=means.config.threads,
        save=means.place.weights.save,
        checkpoints=means.place.root / "checkpoints",
        metric=names[0] + str(metric.after(0)).removeprefix(metric.name),
        start=means.start,
        send=send,
        load=means.place.weights.load,
    )
    epoch = int(metric.qualifier("epoch"))
    if epoch > evaluator.steps:
        raise NasError(f"{metric}: the recipe {evaluator.recipe.name!r} takes {evaluator.steps}.")
    if not epoch:
        return evaluator
    moments = (parse_metric(name).after(epoch) for name in evaluator.metrics)
    return evaluator.until(epoch, tuple(map(str, moments)))


def _untrained(means: Means, _: Metric, index: int) -> Evaluator:
    from evaluators.proxies.untrained import IMAGES, UntrainedEvaluator

    wanted = tuple(name for name in wanted_metrics(means.config) if name in UNTRAINED)
    dataset = means.dataset
    images = dataset.train.batch(slice(0, IMAGES)) if isinstance(dataset, Dataset) else None
    return UntrainedEvaluator(
        wanted, seed=means.config.seed + index, device=means.device.torch_name, images=images
    )


def _joint(means: Means, _: Metric, __: int) -> Evaluator:
    space = means.space or load_space(means.config.space)
    return JointEvaluator(space, means.dataset.spec)


def _probed(means: Means, _: Metric, index: int) -> Evaluator:
    return ProbedJointEvaluator(
        means.config.space,
        means.dataset.spec,
        seed=means.config.seed + index,
        device=means.device.torch_name,
    )


_FAMILIES: dict[str, Callable[[Means, Metric, int], Evaluator]] = {
    FUSED: _joint,
    FUSED_PROBED: _probed,
    **dict.fromkeys(UNTRAINED, _untrained),
    **dict.fromkeys(QUALITIES, _quality),
}
"""What makes the evaluator of another metric that costs something, by the metric's name."""


def check_coverage(config: StudyConfig, evaluators: Sequence[Evaluator]) -> None:
    """Refuse evaluators that leave a metric without a figure, or give one twice.

    Raises:
        NasError: names the metric.
    """
    given: set[str] = set()
    for name in (name for evaluator in evaluators for name in evaluator.metrics):
        if name in given:
            raise NasError(f"The evaluators give {name!r} twice; leave one of them out.")
        given.add(name)
    for name in wanted_metrics(config):
        if name not in given:
            raise NasError(
                f"No evaluator gives {name!r}; they give {', '.join(sorted(given))}. "
                "A metric of your own needs an evaluator (--evaluator FILE.py:NAME)."
            )
