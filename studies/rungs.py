"""Early stopping: trainings that are looked at on their way, and which of them go on.

A rung is a stage of the funnel that judges by an objective as it is after some epochs, together
with the objectives known by then: by Pareto rank among the candidates that got there before. The
training stands still meanwhile, as a file, and no worker waits for the verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from evaluators.protocol import Evaluator, Stepwise
from kernels.errors import NasError
from studies.config import GateConfig, RungConfig, StudyConfig
from studies.metrics import parse_metric
from studies.repeat import RepeatedEvaluator


@dataclass(frozen=True, slots=True)
class Rung:
    """A moment of a training.

    Attributes:
        metric: the objective's, as it is then.
        epoch: after which.
        epochs: of the whole training.
    """

    metric: str
    epoch: int
    epochs: int


def with_rungs(
    config: StudyConfig, evaluators: Sequence[Evaluator]
) -> tuple[list[Evaluator], list[Rung], tuple[GateConfig, ...]]:
    """Add to the evaluators those that stop at the rungs of the settings.

    Returns:
        all evaluators, the rungs, and the gates of the settings and of the rungs.

    Raises:
        NasError: no objective comes from a training that can be looked at on its way, or one ends
            before a rung.
    """
    found: list[Evaluator] = []
    rungs: list[Rung] = []
    gates: list[GateConfig] = []
    for evaluator in evaluators:
        part = as_stepwise(evaluator)
        wanted = [name for name in evaluator.metrics if name in config.names]
        if part is not None and part.slot == "training" and wanted:
            for epoch, item in _moments(config, part.steps, wanted[0]).items():
                names = tuple(_after(name, epoch) for name in evaluator.metrics)
                found.append(part.until(epoch, names))
                new = [Rung(_after(name, epoch), epoch, part.steps) for name in wanted]
                gates += [GateConfig(by=it.metric, keep=item.keep, after=item.after) for it in new]
                rungs += new
        found.append(evaluator)
    if config.rungs and not rungs:
        raise NasError(
            "Setting 'rungs': no objective comes from a training that can be stopped; name one "
            "such as 'accuracy', or leave the rungs out."
        )
    return found, rungs, (*config.funnel, *gates)


def _moments(config: StudyConfig, epochs: int, metric: str) -> dict[int, RungConfig]:
    """Return the rungs of a training by their epochs; shares that come to none are left out."""
    found = {item.of(epochs): item for item in config.rungs}
    late = max(found, default=0)
    if late >= epochs:
        raise NasError(
            f"Setting 'rungs': the training of {metric!r} ends after {epochs} epochs, so nothing "
            f"can be stopped after epoch {late}."
        )
    return {epoch: item for epoch, item in sorted(found.items()) if epoch}


def is_control(seed: int, number: int, share: float) -> bool:
    """Tell whether a trial is trained to the end even if a rung would stop it.

    It follows from the study's seed and the trial's number alone.
    """
    return Random(f"control {seed} {number}").random() < share


def _after(name: str, epoch: int) -> str:
    return str(parse_metric(name, own=True).after(epoch))


def as_stepwise(evaluator: Evaluator) -> Stepwise | None:
    """Return the evaluator if it can be looked at on its way."""
    if isinstance(evaluator, RepeatedEvaluator) and not evaluator.is_stepwise:
        return None
    return evaluator if isinstance(evaluator, Stepwise) else None
