"""What the tests of studies share: small spaces in files, and evaluators that cost nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluators.analytic import AnalyticEvaluator
from evaluators.protocol import Measured, Slot
from search_spaces.architecture import Architecture
from studies.config import StudyConfig
from studies.workspace import Workspace

_SPACE = """
from search_spaces.builder import NetworkBuilder
from search_spaces.space import space

@space("{name}", version=1)
def some_space(choose, data):
    net = NetworkBuilder(data.input_shape)
    width = choose("width", {widths})
    choose.require({rule}, "{rule}")
    return net.classifier(net.conv(net.input, width, kernel=3), data.classes)
"""


def space_file(folder: Path, widths: list[int], *, rule: str = "width > 0") -> str:
    path = folder / "some_space.py"
    path.write_text(_SPACE.format(name="some-space", widths=widths, rule=rule))
    return str(path)


def cheap_config(**settings: Any) -> StudyConfig:
    """A study of exact, deterministic objectives."""
    defaults: dict[str, Any] = {
        "name": "cheap",
        "space": "mobile-cnn-small",
        "data": "digits",
        "objectives": ["macs", "params"],
        "trials": 12,
        "device": "cpu",
        "sampler": "random",
        "workers": 0,
    }
    return StudyConfig(**{**defaults, **settings})


class FakeEvaluator:
    """Gives ``accuracy`` by a function and notes which networks it was paid for."""

    slot: Slot = "training"

    def __init__(
        self, function: Callable[[Architecture], float], *, metric: str = "accuracy"
    ) -> None:
        self.metrics: tuple[str, ...] = (metric,)
        self.paid: list[str] = []
        self._function = function

    def cache_key(self, architecture: Architecture) -> str:
        return f"fake-{self.metrics[0]}-{architecture.key}"

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        value = self._function(architecture)
        self.paid.append(architecture.key)
        return [Measured(self.metrics[0], value, value - 0.1, value + 0.1, {"fake": True})]


def size_score(architecture: Architecture) -> float:
    """Stands in for an accuracy: grows with the network."""
    return 1.0 - 100.0 / (100.0 + architecture.params)


def with_costs(evaluator: FakeEvaluator) -> list[Any]:
    return [AnalyticEvaluator(), evaluator]


def recorded(place, name="cheap"):
    with Workspace.of(place).open(create=False) as repository:
        return repository.trials(repository.study(name).id)


def counted(trials):
    """What an interruption must not change: everything but times and row numbers."""
    return [
        (
            trial.number,
            trial.state,
            trial.reason,
            trial.stage,
            trial.key,
            dict(trial.decisions),
            dict(trial.values),
            dict(trial.rejections),
            dict(trial.origin),
        )
        for trial in trials
    ]
