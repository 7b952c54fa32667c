"""What reads trials, many at once: rows of columns, not objects of the mapper."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, Connection, func, select
from sqlalchemy.orm import aliased

from evaluators.protocol import Measured
from kernels.errors import NasError
from search_spaces.architecture import Architecture
from studies.storage.models import (
    ArchitectureRow,
    ArtifactRow,
    EvaluationRow,
    Event,
    Trial,
    ValueRow,
    WorkerRow,
)
from studies.storage.records import (
    Artifact,
    Evaluation,
    EventRecord,
    TrialRecord,
    TrialState,
    Value,
    WorkerRecord,
)

Objectives = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]

_AT_ONCE = 500
"""Ids in one query: databases limit how many it may name."""


def where(
    study_id: int, number: int | None, since: int | None, key: str, baselines: bool
) -> list[ColumnElement[bool]]:
    """Return the conditions for trials of a study: all that are given hold."""
    found: list[ColumnElement[bool]] = [Trial.study_id == study_id]
    if number is not None:
        found.append(Trial.number == number)
    if since is not None:
        found.append(Trial.number >= since)
    if key:
        found.append(Trial.architecture_key.startswith(key, autoescape=True))
    if baselines:
        found.append(Trial.baseline.is_(True))
    return found


def trials(connection: Connection, *where: ColumnElement[bool]) -> list[TrialRecord]:
    """Return the trials that conditions choose, in order of number, without details."""
    values: defaultdict[int, dict[str, Value]] = defaultdict(dict)
    figures = select(
        ValueRow.trial_id, ValueRow.metric, ValueRow.value, ValueRow.low, ValueRow.high
    ).join(Trial, ValueRow.trial_id == Trial.id)
    for trial_id, metric, value, low, high in connection.execute(figures.where(*where)).all():
        values[trial_id][metric] = Value(value, low, high)
    query = (
        select(
            Trial.id,
            Trial.number,
            Trial.state,
            Trial.architecture_key,
            ArchitectureRow.text,
            Trial.decisions,
            Trial.reason,
            Trial.rejections,
            Trial.started,
            Trial.ended,
            Trial.stage,
            Trial.origin,
        )
        .join(ArchitectureRow, Trial.architecture_key == ArchitectureRow.key)
        .where(*where)
        .order_by(Trial.number)
    )
    return [
        TrialRecord(
            id=row[0],
            number=row[1],
            state=TrialState(row[2]),
            key=row[3],
            text=row[4],
            decisions=row[5],
            values=values.get(row[0], {}),
            reason=row[6],
            rejections=row[7],
            started=row[8],
            ended=row[9],
            stage=row[10],
            origin=row[11],
        )
        for row in connection.execute(query).all()
    ]


def trials_of(connection: Connection, ids: Sequence[int]) -> list[TrialRecord]:
    """Return trials by their ids, in the order of these."""
    found = {}
    for start in range(0, len(ids), _AT_ONCE):
        for trial in trials(connection, Trial.id.in_(ids[start : start + _AT_ONCE])):
            found[trial.id] = trial
    return [found[number] for number in ids]


def objective_rows(connection: Connection, study_id: int, metrics: Sequence[str]) -> Objectives:
    """Return ids, numbers and figures of the complete trials that no baseline is."""
    query = select(Trial.id, Trial.number)
    for name in metrics:
        figure = aliased(ValueRow)
        query = query.add_columns(figure.value).join(
            figure, (figure.trial_id == Trial.id) & (figure.metric == name)
        )
    query = query.where(
        Trial.study_id == study_id,
        Trial.state == TrialState.COMPLETE,
        Trial.baseline.is_(False),
    ).order_by(Trial.number)
    rows = connection.execute(query).all()
    ids, numbers, *columns = zip(*rows, strict=True) if rows else [()] * (2 + len(metrics))
    values = np.array(columns, dtype=np.float64).reshape(len(metrics), len(rows)).T
    return np.array(ids, np.int64), np.array(numbers, np.int64), np.ascontiguousarray(values)


def count_states(connection: Connection, study_id: int) -> dict[TrialState, int]:
    """Return how many trials are in each state, baselines left out."""
    query = select(Trial.state, func.count()).where(
        Trial.study_id == study_id, Trial.baseline.is_(False)
    )
    found = {row[0]: row[1] for row in connection.execute(query.group_by(Trial.state))}
    return {state: found.get(state, 0) for state in TrialState}


def reasons(connection: Connection, study_id: int) -> Counter[str]:
    """Return how often trials failed for a reason, and how often each stage dropped one."""
    failed = (Trial.study_id == study_id, Trial.state == TrialState.FAILED)
    dropped = (Trial.study_id == study_id, Trial.state == TrialState.DROPPED)
    found: Counter[str] = Counter()
    by_reason = select(Trial.reason, func.count()).where(*failed).group_by(Trial.reason)
    for reason, count in connection.execute(by_reason):
        found[reason or "no reason was recorded"] += count
    by_stage = select(Trial.stage, func.count()).where(*dropped).group_by(Trial.stage)
    for stage, count in connection.execute(by_stage):
        found[f"dropped at {stage}"] += count
    return found


def seconds_spent(connection: Connection, study_id: int) -> dict[str, float]:
    """Return for how long each evaluator ran for a study, in s."""
    query = (
        select(EvaluationRow.evaluator, func.sum(EvaluationRow.seconds))
        .join(Trial, EvaluationRow.trial_id == Trial.id)
        .where(Trial.study_id == study_id)
        .group_by(EvaluationRow.evaluator)
        .order_by(EvaluationRow.evaluator)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def last_activity(connection: Connection, study_id: int) -> datetime | None:
    """Return when a study's newest event, start or end of a trial was; None of an untouched one."""
    event = select(Event.time).where(Event.study_id == study_id).order_by(Event.id.desc()).limit(1)
    moments = connection.execute(
        select(func.max(Trial.started), func.max(Trial.ended)).where(Trial.study_id == study_id)
    ).one()
    known = [moment for moment in (connection.execute(event).scalar(), *moments) if moment]
    return max(known, default=None)


def events(
    connection: Connection,
    study_id: int,
    newest: int | None,
    trial: int | None,
    kind: str | None,
) -> list[EventRecord]:
    """Return the newest events in order, of all, of one trial or of one kind."""
    query = select(Event.time, Event.kind, Event.data).where(Event.study_id == study_id)
    if kind is not None:
        query = query.where(Event.kind == kind)
    if trial is not None:
        query = query.where(Event.data["trial"].as_integer() == trial)
    if newest is not None:
        query = query.limit(newest)
    rows = connection.execute(query.order_by(Event.id.desc())).all()
    return [EventRecord(*row) for row in reversed(rows)]


def detail(connection: Connection, trial_id: int, metric: str) -> Mapping[str, Any]:
    """Return how a figure came about."""
    query = (
        select(EvaluationRow.document)
        .join(ValueRow, ValueRow.evaluation_id == EvaluationRow.id)
        .where(ValueRow.trial_id == trial_id, ValueRow.metric == metric)
    )
    document = connection.execute(query).scalar()
    found: Mapping[str, Any] = {} if document is None else document[metric]["detail"]
    return found


def architecture(connection: Connection, key: str) -> Architecture:
    """Return a network, which must be there."""
    query = select(ArchitectureRow.document).where(ArchitectureRow.key == key)
    document = connection.execute(query).scalar()
    if document is None:
        raise NasError(f"The record has no architecture {key!r}.")
    return Architecture.from_json(document)


def evaluations(connection: Connection, trial_id: int) -> list[Evaluation]:
    """Return the evaluations that a trial's figures come from and those paid for it, in order."""
    row = EvaluationRow
    given = select(ValueRow.evaluation_id).where(ValueRow.trial_id == trial_id)
    chosen = select(*EVALUATION).where((row.trial_id == trial_id) | row.id.in_(given))
    return [evaluation(*found) for found in connection.execute(chosen.order_by(row.id))]


EVALUATION = tuple(
    getattr(EvaluationRow, name)
    for name in ("evaluator", "key", "document", "started", "ended", "worker")
)
"""Columns that :func:`evaluation` takes."""


def evaluation(
    evaluator: str,
    key: str | None,
    document: Mapping[str, Mapping[str, Any]],
    started: datetime,
    ended: datetime,
    worker: str,
) -> Evaluation:
    """Return an evaluation from its columns."""
    figures = tuple(
        Measured(name, **{**figure, "value": _number(figure["value"])})
        for name, figure in document.items()
    )
    return Evaluation(evaluator, key, figures, started, ended, worker)


def artifacts(connection: Connection, trial_id: int) -> list[Artifact]:
    """Return the files that a trial made, by name."""
    row = ArtifactRow
    query = select(row.name, row.kind, row.content_hash, row.size).where(row.trial_id == trial_id)
    return [Artifact(*found) for found in connection.execute(query.order_by(row.name))]


def workers(connection: Connection, study_id: int) -> list[WorkerRecord]:
    """Return the workers of a study, by name."""
    columns = [getattr(WorkerRow, entry.name) for entry in fields(WorkerRecord)]
    query = select(*columns).where(WorkerRow.study_id == study_id).order_by(WorkerRow.name)
    return [WorkerRecord(*row) for row in connection.execute(query)]


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
