"""The tool from Python: run a study, open a recorded one, and take networks from its front."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernels.device import detect
from kernels.errors import NasError
from nas.jobs.common import chosen_study
from nas.jobs.export import export_point
from search_spaces.architecture import Architecture
from search_spaces.space import Space
from search_spaces.zoo import plain_name
from studies.config import StudyConfig
from studies.front import FrontPoint
from studies.front import front as read_front
from studies.metrics import parse_metric
from studies.storage import TrialRecord
from studies.workspace import Workspace

if TYPE_CHECKING:
    from torch import nn

    from evaluators.protocol import Evaluator
    from studies.flight import Progress
    from studies.own import OwnFunction


@dataclass(frozen=True, slots=True)
class Point:
    """A candidate of a study that was evaluated in full.

    Attributes:
        trial: its number in the study.
        key: of its architecture.
        values: every figure by metric name.
        spread: low and high end of the figures that are not exact.
        architecture: its network.
    """

    trial: int
    key: str
    values: Mapping[str, float]
    spread: Mapping[str, tuple[float, float]]
    architecture: Architecture
    _run: Path
    _found: FrontPoint

    def build(self, *, weights: bool = True) -> nn.Module:
        """Return the network as an ordinary module in evaluation mode.

        Args:
            weights: with the trained weights; False: with random initial ones.

        Raises:
            NasError: there are no trained weights, as where a function of yours evaluated it.
        """
        from search_spaces.build import build, load_weights

        module = build(self.architecture)
        if weights:
            place = Workspace.of(self._run)
            with place.open(create=False) as repository:
                detail = repository.detail(self._found.trial_id, "accuracy")
            if "dense_key" not in detail:
                raise NasError(
                    f"Trial {self.trial} has no trained weights: its evaluator kept none. "
                    "Use build(weights=False)."
                )
            load_weights(module, self.architecture, place.weights.load(detail["dense_key"]))
        return module.eval()

    def export(self, path: Path | str) -> Path:
        """Write the network as plain PyTorch with its trained weights, and reload it as a check.

        Returns:
            the directory.

        Raises:
            NasError: there are no trained weights, or the reloaded network gives other outputs.
        """
        checked = export_point(self._run, self._found, Path(path))
        if not checked["passed"]:
            raise NasError(
                f"The export in {path} gives other outputs: they differ by "
                f"{checked['max_difference']:.1e}."
            )
        return Path(path)


@dataclass(frozen=True, slots=True)
class Study:
    """A recorded study; what it returns is read from the record each time.

    Attributes:
        path: directory of the run.
        name: of the study.
        message: how the run that made this value ended; empty where it was opened.
    """

    path: Path
    name: str
    message: str = ""

    @property
    def config(self) -> StudyConfig:
        """The settings."""
        with Workspace.of(self.path).open(create=False) as repository:
            return StudyConfig(**repository.study(self.name).config)

    def front(self) -> list[Point]:
        """Return the points that no other dominates, the best in the first objective first."""
        return self._points(read_front(self.path, self.name))

    def trials(self) -> list[TrialRecord]:
        """Return every trial in order, those that failed or were dropped too."""
        with Workspace.of(self.path).open(create=False) as repository:
            return repository.trials(repository.study(self.name).id)

    def best(self, metric: str | None = None) -> Point:
        """Return the point of the front that is best in a metric; by default the first objective.

        Raises:
            NasError: the front is empty, or its points have no such figure.
        """
        points = self.front()
        directions = {str(item.metric): item.direction for item in self.config.targets}
        name = next(iter(directions)) if metric is None else str(parse_metric(metric, own=True))
        kind = parse_metric(name, own=True).kind
        direction = directions.get(name) or (kind.direction if kind else None)
        found = [point for point in points if name in point.values]
        if not found or direction is None:
            raise NasError(f"The front of {self.name!r} has no point to compare by {name!r}.")
        sign = 1.0 if direction == "min" else -1.0
        return min(found, key=lambda point: sign * point.values[name])

    def _points(self, found: Sequence[FrontPoint]) -> list[Point]:
        with Workspace.of(self.path).open(create=False) as repository:
            return [
                Point(
                    trial=item.trial,
                    key=item.key,
                    values={name: value.value for name, value in item.values.items()},
                    spread={
                        name: (value.low, value.high)
                        for name, value in item.values.items()
                        if value.low is not None and value.high is not None
                    },
                    architecture=repository.architecture(item.key),
                    _run=self.path,
                    _found=item,
                )
                for item in found
            ]


def open_study(path: Path | str, name: str | None = None) -> Study:
    """Open a recorded study.

    Args:
        path: directory of the run.
        name: of the study, where the run holds several.

    Raises:
        NasError: there is no such record or study.
    """
    run = Path(path)
    with Workspace.of(run).open(create=False) as repository:
        return Study(run, chosen_study(repository, run, name))


def search(
    space: str | Space,
    *,
    data: str,
    objectives: Sequence[str] | Mapping[str, str] = ("accuracy", "latency_ms"),
    evaluate: OwnFunction | None = None,
    out: Path | str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    **settings: Any,
) -> Study:
    """Run a study; the same call goes on where it was interrupted.

    Args:
        space: a name, ``path/to/file.py[:name]``, or a function decorated with ``@space``.
        data: name of a data set.
        objectives: metrics; as a mapping, each with ``"min"`` or ``"max"``, which metrics of your
            own need.
        evaluate: called with each network, its weights fresh, and the data; returns a figure, or
            figures by name, for the objectives that the tool does not know, or else for
            ``accuracy``. One that worker processes cannot import, such as a lambda, runs in this
            process.
        out: directory of the run; ``runs/NAME`` by default.
        on_progress: called after every trial.
        settings: the others of :class:`studies.config.StudyConfig`.

    Raises:
        NasError: a setting is wrong or does not fit what is recorded.
        KeyboardInterrupt: after Ctrl-C, with the record in order.
    """
    from studies.search import run_study

    if not isinstance(space, str | Space):
        raise NasError(
            f"Expected a space by name or a function decorated with @space, got {space!r}."
        )
    known = space if isinstance(space, str) else space.name
    if isinstance(objectives, Mapping):
        objectives = [f"{metric}:{direction}" for metric, direction in objectives.items()]
    if evaluate is not None and not _can_travel(evaluate):
        settings["workers"] = 0
    name = settings.pop("name", None) or (Path(out).resolve().name if out else plain_name(known))
    run = Path(out) if out is not None else Path("runs") / name
    config = StudyConfig(
        name=name, space=known, data=data, objectives=tuple(objectives), **settings
    )
    summary = run_study(
        config,
        run,
        space=space if isinstance(space, Space) else None,
        evaluators=None if evaluate is None else _evaluators(config, run, evaluate),
        on_progress=on_progress,
    )
    return Study(run, summary.study, summary.message)


def _can_travel(function: OwnFunction) -> bool:
    """Tell whether a worker process can import a function."""
    if getattr(function, "__module__", "__main__") == "__main__":
        return False
    try:
        pickle.dumps(function)
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return True


def _evaluators(config: StudyConfig, run: Path, evaluate: OwnFunction) -> list[Evaluator]:
    """Return the user's function, and what gives the metrics that it does not."""
    from evaluators.accuracy.data import load_dataset
    from studies.evaluation import Means, default_evaluators, wanted_metrics
    from studies.own import FunctionEvaluator

    wanted = wanted_metrics(config)
    own = tuple(name for name in wanted if parse_metric(name, own=True).kind is None)
    metrics = own or ("accuracy",)
    if not own and "accuracy" not in wanted:
        raise NasError(
            "What does evaluate return? Name it as an objective: objectives={'NAME': 'min', ...}."
        )
    dataset = load_dataset(config.data)
    means = Means(config, dataset, detect(config.device), Workspace.of(run))
    others = [item for item in default_evaluators(means) if not set(item.metrics) & set(metrics)]
    return [*others, FunctionEvaluator(evaluate, dataset, metrics, config.seed)]
