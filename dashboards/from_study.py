"""Reads a study's record into what the figures of its front are drawn from."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from dashboards.front_data import FrontData, Metric, Point
from studies.config import StudyConfig
from studies.front import front_of
from studies.metrics import Direction, parse_metric
from studies.storage import TrialRecord, TrialState
from studies.workspace import Workspace

_WORDS = {
    "accuracy": ("Validation accuracy", "%", "95 % interval"),
    "latency_ms": ("Latency", "ms", "p10 to p90"),
    "params": ("Parameters", "", ""),
    "macs": ("Multiply-accumulates", "", ""),
    "bytes_moved": ("Bytes moved", "B", ""),
    "peak_activation_bytes": ("Peak activations", "B", ""),
    "rf_gain": ("3DRF gain", "nats", ""),
}
_OTHERS = ("accuracy", "latency_ms", "params", "macs", "rf_gain")


def read_front(workspace: Workspace | Path | str, study: str) -> FrontData:
    """Return a study's trained candidates as a picture of its front needs them.

    Raises:
        NasError: there is no such record or study, or it has fewer than two objectives.
    """
    with Workspace.of(workspace).open(create=False) as repository:
        record = repository.study(study)
        trials = repository.trials(record.id)
    config = StudyConfig(**record.config)
    front = {point.trial for point in front_of(trials, config)}
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    return FrontData(
        study=study,
        device=record.conditions.get("device", "none: no measured objective"),
        objectives=tuple(_metric(str(item.metric), item.direction) for item in config.targets),
        points=tuple(_point(trial, on_front=trial.number in front) for trial in complete),
        counts=Counter(str(trial.state) for trial in trials),
        created=datetime.now(UTC).date(),
        others=tuple(
            _metric(name)
            for name in _OTHERS
            if name not in config.names and any(name in trial.values for trial in complete)
        ),
    )


def _metric(name: str, direction: Direction | None = None) -> Metric:
    metric = parse_metric(name, own=True)
    label, unit, spread = _WORDS.get(metric.name, (metric.name.replace("_", " "), "", ""))
    conditions = ", ".join(f"{key} {value}" for key, value in metric.qualifiers)
    return Metric(
        name=name,
        label=f"{label}, {conditions}" if conditions else label,
        direction=direction or (metric.kind.direction if metric.kind else "min"),
        unit=unit,
        spread=spread,
    )


def _point(trial: TrialRecord, *, on_front: bool) -> Point:
    test = trial.values.get("test_accuracy")
    return Point(
        key=trial.key,
        number=trial.number,
        text=trial.text,
        values={name: value.value for name, value in trial.values.items()},
        low={name: value.low for name, value in trial.values.items()},
        high={name: value.high for name, value in trial.values.items()},
        on_front=on_front,
        test_accuracy=None if test is None else test.value,
    )
