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
from search_spaces.architecture import Architecture
from search_spaces.space import Space
from search_spaces.zoo import plain_name
from studies.config import StudyConfig
from studies.front import FrontPoint
from studies.front import front as read_front
from studies.metrics import parse_metric, quality_of
from studies.storage import TrialRecord
from studies.workspace import Workspace

if TYPE_CHECKING:
    from torch import nn

    from evaluators.audit.values import Audit
    from evaluators.protocol import Evaluator
    from studies.exports import Exported
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
    _study: str
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
                quality = quality_of(self.values)
                detail = repository.detail(self._found.trial_id, quality) if quality else {}
            if "dense_key" not in detail:
                raise NasError(
                    f"Trial {self.trial} has no trained weights: its evaluator kept none. "
                    "Use build(weights=False)."
                )
            load_weights(module, self.architecture, place.weights.load(detail["dense_key"]))
        return module.eval()

    def export(
        self,
        path: Path | str | None = None,
        *,
        form: str = "plain",
        to: str | Sequence[str] = ("python",),
        device: str | None = None,
        latency_tolerance: float = 0.15,
    ) -> Path:
        """Write the trained network to a folder, reload it in a clean process, and measure again.

        Args:
            path: the folder; below ``exports`` in the run by default.
            form: ``plain`` (torch alone) or ``packed`` (this package's kernels).
            to: any of ``python``, ``pt2``, ``onnx`` and ``safetensors``.
            device: where to measure; that of the study by default.
            latency_tolerance: how much slower than the study's spread a packed export may be.

        Returns:
            the folder.

        Raises:
            NasError: it cannot be exported, or its audit failed; :meth:`audits` has the figures.
        """
        from studies.exports import export_trial, folder_name

        made = export_trial(
            self._run,
            self._study,
            self.trial,
            path or self._run / "exports" / folder_name(self._study, self.key, form),
            form=form,
            to=_names(to),
            device=device,
            latency_tolerance=latency_tolerance,
        )
        if not made.audit.passed:
            raise NasError(_failed(made))
        return made.directory

    def audits(self) -> list[Audit]:
        """Return what the audits of its exports found, oldest first."""
        from studies.audits import audits

        return [record.audit for record in audits(self._run, self._study, self.trial)]


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

    def export(
        self,
        directory: Path | str | None = None,
        *,
        form: str = "plain",
        to: str | Sequence[str] = ("python",),
        device: str | None = None,
        latency_tolerance: float = 0.15,
    ) -> list[Path]:
        """Export the whole front, each point to a folder of its own; see :meth:`Point.export`.

        Called again after an interruption, it goes on where it was.

        Args:
            directory: that the folders are made in; ``exports`` in the run by default.
            form: see :meth:`Point.export`; so are the others.
            to: formats.
            device: where to measure.
            latency_tolerance: of packed exports.

        Returns:
            the folders, in the order of the front.

        Raises:
            NasError: a point cannot be exported, or its audit failed; the others are done.
        """
        from studies.exports import Refused, export_points

        refused: list[Refused] = []
        found = export_points(
            self.path,
            self.name,
            None,
            directory or self.path / "exports",
            form=form,
            to=_names(to),
            device=device,
            latency_tolerance=latency_tolerance,
            on_refused=refused.append,
        )
        made = list(found)
        problems = [f"Trial {item.trial}: {item.reason}" for item in refused]
        problems += [_failed(item) for item in made if not item.audit.passed]
        if problems:
            raise NasError(" ".join(problems))
        return [item.directory for item in made]

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
                    _study=self.name,
                    _found=item,
                )
                for item in found
            ]


def _names(formats: str | Sequence[str]) -> list[str]:
    """Return formats as a list; text has commas between them, as on the command line."""
    given = formats.split(",") if isinstance(formats, str) else formats
    return [item.strip() for item in given if item.strip()]


def _failed(made: Exported) -> str:
    """Say in one line what an audit found wrong."""
    checks = [
        f"{check.name}{f' ({check.note})' if check.note else ''}" for check in made.audit.failures
    ]
    return f"The export in {made.directory} failed its audit: {'; '.join(checks)}."


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
            ``accuracy`` (``loss`` of a text). One that worker processes cannot import, such as a
            lambda, runs in this process.
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
    from evaluators.accuracy.tasks import metrics_of
    from studies.evaluation import Means, default_evaluators, wanted_metrics
    from studies.own import FunctionEvaluator

    wanted = wanted_metrics(config)
    own = tuple(name for name in wanted if parse_metric(name, own=True).kind is None)
    dataset = load_dataset(config.data)
    metrics = own or metrics_of(dataset)[:1]
    if not own and metrics[0] not in wanted:
        raise NasError(
            "What does evaluate return? Name it as an objective: objectives={'NAME': 'min', ...}."
        )
    means = Means(config, dataset, detect(config.device), Workspace.of(run))
    others = [item for item in default_evaluators(means) if not set(item.metrics) & set(metrics)]
    return [*others, FunctionEvaluator(evaluate, dataset, metrics, config.seed)]
