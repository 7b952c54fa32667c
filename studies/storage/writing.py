"""What changes trials: rows as values come, in the transaction of the caller."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, exists, func, insert, select, update

from evaluators.protocol import Measured
from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.space import Candidate
from studies.storage.claims import LEASES
from studies.storage.database import insert_if_absent
from studies.storage.models import (
    ArchitectureRow,
    ArtifactRow,
    Base,
    EvaluationRow,
    Event,
    Study,
    Trial,
    ValueRow,
    WorkerRow,
)
from studies.storage.records import Artifact, Evaluation, TrialState, WorkerRecord

_EVALUATIONS = Base.metadata.tables[EvaluationRow.__tablename__]
_ARCHITECTURES = Base.metadata.tables[ArchitectureRow.__tablename__]
# Made once: to build a statement takes longer than SQLite takes to run it.
_KNOWN = select(ArchitectureRow.key).where(ArchitectureRow.key == bindparam("wanted"))
_ADD_TRIAL = insert(Trial).returning(Trial.id)
_FINISH = (
    update(Trial)
    .where(Trial.id == bindparam("wanted"))
    .values({name: bindparam(name) for name in ("state", "reason", "stage", "ended")})
)
_ADD_VALUES = insert(ValueRow)
_ADD_EVENT = insert(Event)
_ADD_ARTIFACTS = insert(ArtifactRow)
_EVALUATION = select(EvaluationRow.key, EvaluationRow.id, EvaluationRow.document)
_AT_ONCE = 500
"""Keys in one query: databases limit how many it may name."""
_VALUE = ("metric", "value", "low", "high", "evaluation_id")


def add_architecture(connection: Connection, architecture: Architecture) -> None:
    """Insert a network if it is new."""
    if connection.execute(_KNOWN, {"wanted": architecture.key}).first() is None:
        network = {
            "key": architecture.key,
            "topology_key": architecture.topology_key,
            "text": architecture.text,
            "document": architecture.to_json(),
        }
        insert_if_absent(connection, _ARCHITECTURES, network)


def add_trial(
    connection: Connection,
    study_id: int,
    number: int,
    candidate: Candidate,
    origin: Mapping[str, Any],
) -> int:
    """Insert a running trial, and its architecture if it is new; return the trial's id."""
    architecture = candidate.architecture
    add_architecture(connection, architecture)
    row = {
        "study_id": study_id,
        "number": number,
        "architecture_key": architecture.key,
        "decisions": dict(candidate.decisions),
        "rejections": dict(candidate.rejections),
        "state": TrialState.RUNNING,
        "started": datetime.now(UTC),
        "baseline": origin.get("by") == "baseline",
        "origin": plain(origin),
    }
    return connection.execute(_ADD_TRIAL, row).scalar_one()


def finish_trial(
    connection: Connection, trial_id: int, state: TrialState, reason: str | None, stage: str | None
) -> None:
    """Say how a trial ended, now."""
    said = None if reason is None else _storable(reason)
    ended = {"state": state, "reason": said, "stage": stage, "ended": datetime.now(UTC)}
    if not connection.execute(_FINISH, {"wanted": trial_id, **ended}).rowcount:
        raise NasError(f"The record has no trial {trial_id}; was its study deleted?")


def add_evaluation(connection: Connection, trial_id: int, evaluation: Evaluation) -> None:
    """Insert an evaluation and the trial's figures."""
    number = insert_evaluation(connection, evaluation, trial_id=trial_id)
    finite = [item for item in evaluation.figures if math.isfinite(item.value)]
    _add_values(connection, trial_id, finite, number)
    add_artifacts(connection, trial_id, evaluation.artifacts)


def insert_evaluation(
    connection: Connection,
    evaluation: Evaluation,
    *,
    trial_id: int | None = None,
    architecture_key: str | None = None,
) -> int | None:
    """Insert an evaluation and return its id.

    NOTE: where the key is there already, two were paid at once. The one that came first is what
    others find; this one is kept without a key, so that each figure has its own details.

    Args:
        connection: of the caller's transaction.
        evaluation: what was found.
        trial_id: of the trial that it was paid for.
        architecture_key: of the network, where there is no trial.
    """
    row = {
        "key": evaluation.key or None,
        "evaluator": evaluation.evaluator,
        "trial_id": trial_id,
        "architecture_key": architecture_key,
        "started": evaluation.started,
        "ended": evaluation.ended,
        "seconds": (evaluation.ended - evaluation.started).total_seconds(),
        "worker": evaluation.worker,
        "document": {item.metric: _document(item) for item in evaluation.figures},
    }
    number = insert_if_absent(connection, _EVALUATIONS, row)
    if number is None:
        number = insert_if_absent(connection, _EVALUATIONS, {**row, "key": None})
    return number


def add_artifacts(connection: Connection, trial_id: int, artifacts: Sequence[Artifact]) -> None:
    """Insert the files that a trial made."""
    rows = [{"trial_id": trial_id, **asdict(item)} for item in artifacts]
    if rows:
        connection.execute(_ADD_ARTIFACTS, rows)


def add_event(connection: Connection, study_id: int, kind: str, data: Mapping[str, Any]) -> None:
    """Insert what happened now."""
    row = {"study_id": study_id, "time": datetime.now(UTC), "kind": kind, "data": plain(data)}
    connection.execute(_ADD_EVENT, row)


def add_values(connection: Connection, trial_id: int, figures: Sequence[Measured]) -> None:
    """Insert figures that no evaluator of the study gave, with their details."""
    wrong = [item for item in figures if not math.isfinite(item.value)]
    if wrong:
        raise NasError(f"{wrong[0].metric} must be finite to be recorded: {wrong[0].value}.")
    now = datetime.now(UTC)
    name = ",".join(item.metric for item in figures)[:255]
    add_evaluation(connection, trial_id, Evaluation(name, None, tuple(figures), now, now))


def known_figures(
    connection: Connection, key: str, metrics: Sequence[str]
) -> tuple[int, list[Measured]] | None:
    """Return an evaluation's id and figures by its key, if it has all of the metrics, finite."""
    return known_evaluations(connection, {key: metrics}).get(key)


def known_evaluations(
    connection: Connection, wanted: Mapping[str, Sequence[str]]
) -> dict[str, tuple[int, list[Measured]]]:
    """Return by key the evaluations that have the metrics wanted of each, with their ids."""
    found = {}
    keys = list(wanted)
    for start in range(0, len(keys), _AT_ONCE):
        some = EvaluationRow.key.in_(keys[start : start + _AT_ONCE])
        for key, number, document in connection.execute(_EVALUATION.where(some)):
            figures = _figures(document, wanted[key])
            if figures is not None:
                found[key] = number, figures
    return found


def set_workers(connection: Connection, study_id: int, workers: Sequence[WorkerRecord]) -> None:
    """Replace what is known of a study's workers."""
    connection.execute(delete(WorkerRow).where(WorkerRow.study_id == study_id))
    if workers:
        rows = [{"study_id": study_id, **asdict(worker)} for worker in workers]
        connection.execute(insert(WorkerRow), rows)


def give_values(
    connection: Connection, trial_id: int, figures: Sequence[Measured], evaluation_id: int
) -> None:
    """Give a trial the figures of an evaluation that was paid for another."""
    _add_values(connection, trial_id, figures, evaluation_id)


def copy_values(connection: Connection, source_id: int, trial_id: int) -> None:
    """Give a trial the figures of another."""
    columns = [getattr(ValueRow, name) for name in _VALUE]
    rows = connection.execute(select(*columns).where(ValueRow.trial_id == source_id)).all()
    if rows:
        connection.execute(
            _ADD_VALUES,
            [{"trial_id": trial_id, **dict(zip(_VALUE, row, strict=True))} for row in rows],
        )


def delete_study(connection: Connection, study_id: int) -> int:
    """Delete a study and all of its own; evaluations that others can find stay.

    Returns:
        how many trials it had.
    """
    count = select(func.count()).where(Trial.study_id == study_id)
    found: int = connection.execute(count).scalar_one()
    trials = select(Trial.id).where(Trial.study_id == study_id)
    paid = EvaluationRow.trial_id.in_(trials)
    network = select(Trial.architecture_key).where(Trial.id == EvaluationRow.trial_id)
    used = exists().where(ValueRow.evaluation_id == EvaluationRow.id)
    for statement in (
        delete(ArtifactRow).where(ArtifactRow.trial_id.in_(trials)),
        delete(ValueRow).where(ValueRow.trial_id.in_(trials)),
        delete(EvaluationRow).where(paid, EvaluationRow.key.is_(None), ~used),
        update(EvaluationRow)
        .where(paid)
        .values(trial_id=None, architecture_key=network.scalar_subquery()),
        delete(Trial).where(Trial.study_id == study_id),
        delete(Event).where(Event.study_id == study_id),
        delete(WorkerRow).where(WorkerRow.study_id == study_id),
        delete(LEASES).where(LEASES.c.study_id == study_id),
        delete(Study).where(Study.id == study_id),
    ):
        connection.execute(statement)
    return found


def plain(data: Mapping[str, Any]) -> dict[str, Any]:
    """Bring details to what JSON holds: other figures become None, other things their text."""
    return {str(key): _plain_value(value) for key, value in data.items()}


def _plain_value(value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return _storable(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return plain(value)
    if isinstance(value, list | tuple):
        return [_plain_value(item) for item in value]
    return _storable(str(value))


def _storable(text: str) -> str:
    """Return a text that every database takes: PostgreSQL has no zeros and no half characters."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def _figures(document: Mapping[str, Any], metrics: Sequence[str]) -> list[Measured] | None:
    figures = []
    for name in metrics:
        figure = document.get(name)
        if figure is None or figure["value"] is None:
            return None
        figures.append(Measured(name, **figure))
    return figures


def _document(item: Measured) -> dict[str, Any]:
    return {
        "value": _finite(item.value),
        "low": _finite(item.low),
        "high": _finite(item.high),
        "detail": plain(item.detail),
    }


def _add_values(
    connection: Connection, trial_id: int, figures: Iterable[Measured], evaluation_id: int | None
) -> None:
    rows = [
        {
            "trial_id": trial_id,
            "metric": item.metric,
            "value": float(item.value),
            "low": _finite(item.low),
            "high": _finite(item.high),
            "evaluation_id": evaluation_id,
        }
        for item in figures
    ]
    if rows:
        connection.execute(_ADD_VALUES, rows)


def _finite(bound: float | None) -> float | None:
    return float(bound) if bound is not None and math.isfinite(bound) else None
