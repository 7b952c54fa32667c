"""Reads a study's record into what the figures of its front are drawn from."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from dashboards.front_data import FrontData, Point
from dashboards.words import metric_words
from studies.config import StudyConfig
from studies.front import front_of
from studies.storage import TrialRecord, TrialState
from studies.workspace import Workspace

_OTHERS = ("accuracy", "loss", "test_loss", "latency_ms", "params", "macs", "rf_gain")


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
        objectives=tuple(metric_words(str(item.metric), item.direction) for item in config.targets),
        points=tuple(_point(trial, on_front=trial.number in front) for trial in complete),
        counts=Counter(str(trial.state) for trial in trials),
        created=datetime.now(UTC).date(),
        others=tuple(
            metric_words(name)
            for name in _OTHERS
            if name not in config.names and any(name in trial.values for trial in complete)
        ),
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
