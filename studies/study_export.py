"""A study for other tools: a table, or one JSON document with everything."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kernels.errors import NasError
from studies.storage import Repository, TrialRecord
from studies.workspace import Workspace

FORMAT = 1
"""Version of the JSON document."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        target: path or URL that it was written to.
        trials: how many trials are in it.
        skipped: trials left out, because they still run.
    """

    target: str
    trials: int
    skipped: int = 0


def export_csv(workspace: Workspace | Path | str, study: str, path: Path | str) -> Exported:
    """Write a table in UTF-8: a header, then one row a trial; what is not known is empty.

    Columns: number, state, key, text, started, ended (UTC), stage, reason, origin, then value, low
    and high of every metric (``NAME``, ``NAME.low``, ``NAME.high``), then ``choice NAME`` of every
    decision. An answer is written as JSON, so that text is told from numbers.

    Raises:
        NasError: there is no such record or study, or the file cannot be written.
    """
    with Workspace.of(workspace).open(create=False) as repository:
        trials = repository.trials(repository.study(study).id)
    metrics = sorted({name for trial in trials for name in trial.values})
    choices = sorted({name for trial in trials for name in trial.decisions})
    header = ["number", "state", "key", "text", "started", "ended", "stage", "reason", "origin"]
    header += [name + part for name in metrics for part in ("", ".low", ".high")]
    header += [f"choice {name}" for name in choices]
    try:
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, header, restval="")
            table.writeheader()
            table.writerows(_row(trial) for trial in trials)
    except OSError as problem:
        raise _unwritable(path, problem) from None
    return Exported(str(path), len(trials))


def _row(trial: TrialRecord) -> dict[str, Any]:
    row: dict[str, Any] = {
        "number": trial.number,
        "state": str(trial.state),
        "key": trial.key,
        "text": trial.text,
        "started": trial.started.isoformat(),
        "ended": trial.ended.isoformat() if trial.ended else "",
        "stage": trial.stage,
        "reason": trial.reason,
        "origin": trial.origin.get("by"),
    }
    for name, figure in trial.values.items():
        row |= {name: figure.value, f"{name}.low": figure.low, f"{name}.high": figure.high}
    row |= {f"choice {name}": json.dumps(answer) for name, answer in trial.decisions.items()}
    return row


def export_json(workspace: Workspace | Path | str, study: str, path: Path | str) -> Exported:
    """Write everything that is recorded of a study as one JSON document.

    It holds ``format``, ``study``, ``architectures`` by key (each reads back with
    ``Architecture.from_json``), ``trials`` with their values, evaluations and artifacts, and
    ``events``. Moments are ISO 8601 in UTC; a figure that is not finite is null.

    Raises:
        NasError: there is no such record or study, or the file cannot be written.
    """
    with Workspace.of(workspace).open(create=False) as repository:
        record = repository.study(study)
        trials = repository.trials(record.id)
        document = {
            "format": FORMAT,
            "study": asdict(record),
            "architectures": {
                key: repository.architecture(key).to_json()
                for key in sorted({trial.key for trial in trials})
            },
            "trials": [_trial(repository, trial) for trial in trials],
            "events": [asdict(event) for event in repository.events(record.id)],
        }
    try:
        with Path(path).open("w", encoding="utf-8") as file:
            json.dump(document, file, default=_moment, allow_nan=False)
    except OSError as problem:
        raise _unwritable(path, problem) from None
    return Exported(str(path), len(trials))


def _trial(repository: Repository, trial: TrialRecord) -> dict[str, Any]:
    evaluations = [asdict(item) for item in repository.evaluations(trial.id)]
    for evaluation in evaluations:
        for figure in evaluation["figures"]:
            if figure["value"] != figure["value"]:  # the record has NaN where it has no number
                figure["value"] = None
    artifacts = [asdict(item) for item in repository.artifacts(trial.id)]
    return {**asdict(trial), "evaluations": evaluations, "artifacts": artifacts}


def _moment(value: Any) -> str:
    text: str = value.isoformat()
    return text


def _unwritable(path: Path | str, problem: OSError) -> NasError:
    return NasError(f"Cannot write {path}: {problem.strerror or problem}.")
