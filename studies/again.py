"""Latencies of a front measured again with trained weights, where those decide what runs.

A search measures a variant before its training, with random weights of the declared density and
balance. What training left may be balanced otherwise, so the points that are reported are measured
with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from evaluators.latency.latency import LatencyEvaluator
from kernels.device import detect
from studies.config import StudyConfig
from studies.front import FrontPoint, front
from studies.metrics import parse_metric, quality_of
from studies.workspace import Workspace

TRAINED = "trained_"
"""Before the name of a latency: measured with the trained weights."""

SHOWN = 0.03
"""A gap above this share is shown."""

_LATENCY = "latency_ms"


@dataclass(frozen=True, slots=True)
class Gap:
    """A latency that training changed.

    Attributes:
        trial: whose.
        key: of its architecture.
        metric: the latency.
        searched_ms: with random weights of the declared density.
        trained_ms: with the trained ones.
    """

    trial: int
    key: str
    metric: str
    searched_ms: float
    trained_ms: float

    @property
    def share(self) -> float:
        """How much slower the trained network is, relative."""
        return self.trained_ms / self.searched_ms - 1

    def __str__(self) -> str:
        return (
            f"trial {self.trial} {self.key[:8]}: {self.metric} {self.trained_ms:.4g} with its "
            f"trained weights, {self.searched_ms:.4g} in the search ({100 * self.share:+.1f} %)"
        )


def measure_again(workspace: Workspace | Path | str, study: str) -> list[FrontPoint]:
    """Measure every latency of the front's variants once more, and return the front.

    Raises:
        NasError: there is no such study, weights are missing, or a network cannot be measured.
    """
    place = Workspace.of(workspace)
    with place.open(create=False) as repository:
        config = StudyConfig(**repository.study(study).config)
        quality = quality_of(config.names)
        for point in front(place, study):
            architecture = repository.architecture(point.key)
            names = [name for name in point.values if _is_latency(name)]
            missing = [name for name in names if TRAINED + name not in point.values]
            if quality is None or not architecture.regions or not missing:
                continue
            weights = place.weights.load(repository.detail(point.trial_id, quality)["dense_key"])
            for name in missing:
                figure = _evaluator(name, config).measure(architecture, weights)
                repository.add_values(point.trial_id, [replace(figure, metric=TRAINED + name)])
    return front(place, study)


def _is_latency(name: str) -> bool:
    return parse_metric(name, own=True).name == _LATENCY


def _evaluator(name: str, config: StudyConfig) -> LatencyEvaluator:
    qualifiers = dict(parse_metric(name).qualifiers)
    return LatencyEvaluator(detect(config.device), **qualifiers)  # type: ignore[arg-type]


def gaps(points: Iterable[FrontPoint], *, above: float = SHOWN) -> Iterator[Gap]:
    """Yield the latencies that differ by more than a share from those of the search."""
    for point in points:
        for name, value in point.values.items():
            again = point.values.get(TRAINED + name)
            if again is not None:
                found = Gap(point.trial, point.key, name, value.value, again.value)
                if abs(found.share) > above:
                    yield found
