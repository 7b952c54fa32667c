"""The front of a study: its points, their test accuracy, and a table of them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from evaluators.accuracy.data import load_dataset
from evaluators.accuracy.evaluator import measure_test
from kernels.device import detect
from kernels.errors import NasError
from search_spaces.choose import Option
from studies.config import StudyConfig
from studies.metrics import QUALITIES, quality_of
from studies.pareto import non_dominated
from studies.storage import Repository, StudyRecord, TrialRecord, TrialState, Value
from studies.workspace import Workspace

Ids = npt.NDArray[np.int64]
Points = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """A candidate that no other of its study dominates, or a baseline beside them.

    Attributes:
        key: of its architecture.
        text: one-line form of its architecture.
        decisions: the answers that lead to it.
        values: all its figures by metric name, with the ends of their spread.
        trial: its number in the study.
        trial_id: its number in the record.
        samples_ms: p10 and p90 of the samples of each latency, where the record was read for them.
        name: what a baseline is called; empty for a point of the front.
    """

    key: str
    text: str
    decisions: Mapping[str, Option]
    values: Mapping[str, Value]
    trial: int
    trial_id: int
    samples_ms: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    name: str = ""


def front_of(trials: Sequence[TrialRecord], config: StudyConfig) -> list[FrontPoint]:
    """Return the front of complete trials that keep the constraints, baselines left out.

    Returns:
        the best in the first objective first.
    """
    names = _read_metrics(config)
    complete = [
        trial
        for trial in trials
        if trial.state is TrialState.COMPLETE
        and trial.origin.get("by") != "baseline"
        and trial.values.keys() >= set(names)
    ]
    figures = [[trial.values[name].value for name in names] for trial in complete]
    rows = np.array(figures, dtype=np.float64).reshape(len(complete), len(names))
    kept, points = _feasible(rows, config)
    return [_point(complete[kept[index]]) for index in _best_first(points, config)]


def feasible_points(repository: Repository, record: StudyRecord) -> tuple[Ids, Points]:
    """Return the complete trials of a study that keep its constraints, baselines left out.

    Returns:
        their ids (n,) and objectives (n, objectives), in order of number.

    Raises:
        NasError: the study's settings cannot be read.
    """
    config = StudyConfig(**record.config)
    ids, _, rows = repository.objective_rows(record.id, _read_metrics(config))
    kept, points = _feasible(rows, config)
    return ids[kept], points


def front(workspace: Workspace | Path | str, study: str) -> list[FrontPoint]:
    """Return the front of a recorded study, best in the first objective first.

    Raises:
        NasError: there is no such record or study.
    """
    with Workspace.of(workspace).open(create=False) as repository:
        return _front(repository, repository.study(study))


def baselines(workspace: Workspace | Path | str, study: str) -> list[FrontPoint]:
    """Return the baselines of a recorded study that were evaluated in full, in order.

    Raises:
        NasError: there is no such record or study.
    """
    with Workspace.of(workspace).open(create=False) as repository:
        return _baselines(repository, repository.study(study))


def finish_front(workspace: Workspace | Path | str, study: str) -> list[FrontPoint]:
    """Evaluate each front point and baseline once on the test split, and return the front.

    Raises:
        NasError: there is no such study, it trained nothing, or weights are missing.
    """
    place = Workspace.of(workspace)
    with place.open(create=False) as repository:
        record = repository.study(study)
        config = StudyConfig(**record.config)
        quality = quality_of(config.names)
        if quality is None:
            raise NasError(
                f"Study {study!r} trained nothing: none of {', '.join(QUALITIES)} is an objective."
            )
        for point in (*_front(repository, record), *_baselines(repository, record)):
            if f"test_{quality}" not in point.values:
                _test(repository, place, config, point, quality)
        return _front(repository, record)


def _test(
    repository: Repository, place: Workspace, config: StudyConfig, point: FrontPoint, quality: str
) -> None:
    dataset = load_dataset(config.data)
    detail = repository.detail(point.trial_id, quality)
    if "dense_key" not in detail:
        raise NasError(f"Trial {point.trial} has no trained weights: its evaluator kept none.")
    if detail["data_fingerprint"] != dataset.fingerprint:
        raise NasError(f"The data {config.data!r} changed since trial {point.trial} was trained.")
    figures = measure_test(
        repository.architecture(point.key),
        place.weights.load(detail["dense_key"]),
        dataset,
        device=detect(config.device).torch_name,
    )
    repository.add_values(point.trial_id, figures)


_COLUMNS = {
    "validation_accuracy": ("accuracy", "value"),
    "test_accuracy": ("test_accuracy", "value"),
    "latency_ms": ("latency_ms", "value"),
    "latency_ms_p10": ("latency_ms", "p10"),
    "latency_ms_p90": ("latency_ms", "p90"),
    "params": ("params", "value"),
    "macs": ("macs", "value"),
    "bytes_moved": ("bytes_moved", "value"),
    "gain": ("rf_gain", "value"),
    "test_accuracy_low": ("test_accuracy", "low"),
    "test_accuracy_high": ("test_accuracy", "high"),
    "latency_ms_low": ("latency_ms", "low"),
    "latency_ms_high": ("latency_ms", "high"),
}
_TRIAL_AFTER = "macs"


def write_front_csv(points: Sequence[FrontPoint], path: Path | str) -> None:
    """Write a table of front points: UTF-8, a header, one row a point; unknown figures are empty.

    Columns: key, text, validation_accuracy, test_accuracy, latency_ms, latency_ms_p10,
    latency_ms_p90, params, macs, trial, bytes_moved, gain, test_accuracy_low, test_accuracy_high,
    latency_ms_low, latency_ms_high, then every other metric by its name, with p10 and p90 of a
    latency under other conditions, and low and high where it has them. Latencies are in ms; low
    and high hold the median of another run with 95 % probability.
    """
    columns = dict(_COLUMNS)
    told = {metric for metric, _ in columns.values()}
    for name in sorted({name for point in points for name in point.values} - told):
        columns[name] = (name, "value")
        if name.startswith("latency_ms["):
            columns |= {f"{name}_{part}": (name, part) for part in ("p10", "p90")}
        if any(name in point.values and point.values[name].low is not None for point in points):
            columns |= {f"{name}_{part}": (name, part) for part in ("low", "high")}
    split = list(columns).index(_TRIAL_AFTER) + 1
    header = ["key", "text", *list(columns)[:split], "trial", *list(columns)[split:]]
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, header)
        table.writeheader()
        for point in points:
            row = {column: _cell(point, *source) for column, source in columns.items()}
            table.writerow({"key": point.key, "text": point.text, "trial": point.trial, **row})


def _cell(point: FrontPoint, metric: str, part: str) -> str:
    if part in ("p10", "p90"):
        ends = point.samples_ms.get(metric)
        return "" if ends is None else repr(ends[part == "p90"])
    value: float | None = getattr(point.values.get(metric), part, None)
    if value is None:
        return ""
    return str(int(value)) if value.is_integer() and metric in _COUNTS else repr(value)


_COUNTS = {"params", "macs", "bytes_moved"}


def _front(repository: Repository, record: StudyRecord) -> list[FrontPoint]:
    """Find the front from the objectives alone, and read only its trials."""
    ids, points = feasible_points(repository, record)
    chosen = [int(ids[index]) for index in _best_first(points, StudyConfig(**record.config))]
    return [_with_samples(repository, _point(trial)) for trial in repository.trials_of(chosen)]


def _baselines(repository: Repository, record: StudyRecord) -> list[FrontPoint]:
    return [
        replace(_with_samples(repository, _point(trial)), name=str(trial.origin["name"]))
        for trial in repository.trials(record.id, baselines=True)
        if trial.state is TrialState.COMPLETE
    ]


def _with_samples(repository: Repository, point: FrontPoint) -> FrontPoint:
    found = {}
    for name in point.values:
        if name.startswith("latency_ms"):
            detail = repository.detail(point.trial_id, name)
            if "p10_us" in detail and "p90_us" in detail:
                found[name] = (detail["p10_us"] / 1e3, detail["p90_us"] / 1e3)
    return replace(point, samples_ms=found)


def _read_metrics(config: StudyConfig) -> list[str]:
    """Return what a front is found by: the objectives, then what else constraints bound."""
    bounded = [str(bound.metric) for bound in config.bounds]
    return list(dict.fromkeys([*config.names, *bounded]))


def _feasible(rows: Points, config: StudyConfig) -> tuple[Ids, Points]:
    """Return the positions of the rows that keep the constraints, and their objectives.

    Args:
        rows: (trials, metrics), the metrics as :func:`_read_metrics` orders them.
        config: the settings.
    """
    metrics = _read_metrics(config)
    kept = np.arange(len(rows))
    for bound in config.bounds:
        column = rows[kept, metrics.index(str(bound.metric))].tolist()
        kept = kept[[bound.violation(value) <= 0 for value in column]]
    return kept, rows[kept, : len(config.names)]


def _best_first(points: Points, config: StudyConfig) -> list[int]:
    """Return the positions of the points on the front, the best in the first objective first."""
    directions = [target.direction for target in config.targets]
    sign = -1.0 if directions[0] == "max" else 1.0
    front = non_dominated(points.tolist(), directions)
    return sorted(front, key=lambda index: sign * points[index, 0])


def _point(trial: TrialRecord) -> FrontPoint:
    return FrontPoint(trial.key, trial.text, trial.decisions, trial.values, trial.number, trial.id)
