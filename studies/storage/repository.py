"""The one door to the record: each method is one transaction, values go in and come out frozen."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from evaluators.protocol import Measured
from kernels.errors import NasError, UnknownNameError
from search_spaces.architecture import Architecture
from search_spaces.space import Candidate
from studies.storage.database import open_engine, session
from studies.storage.models import ArchitectureRow, Detail, Event, Study, Trial, ValueRow
from studies.storage.records import EventRecord, StudyRecord, TrialRecord, TrialState, Value


class Repository:
    """An open record; use as a context manager or :meth:`close` it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, target: Path | str, *, create: bool = True) -> Repository:
        """Open a record.

        Args:
            target: path of a SQLite file, or a database URL.
            create: whether to make it where there is none.

        Raises:
            NasError: it is no such record, or one of another schema.
        """
        return cls(open_engine(target, create=create))

    def close(self) -> None:
        """Give back the connections."""
        self._engine.dispose()

    def __enter__(self) -> Repository:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def add_study(
        self,
        name: str,
        config: Mapping[str, Any],
        *,
        conditions: Mapping[str, str],
        versions: Mapping[str, str],
    ) -> StudyRecord:
        """Enrol a study.

        Raises:
            NasError: the name is taken.
        """
        with session(self._engine) as db:
            row = Study(
                name=name,
                config=dict(config),
                conditions=dict(conditions),
                versions=dict(versions),
                created=_now(),
            )
            db.add(row)
            db.flush()
            return _study(row)

    def set_config(self, study_id: int, config: Mapping[str, Any]) -> None:
        """Replace the settings of a study, as when it is given more trials."""
        with session(self._engine) as db:
            db.get_one(Study, study_id).config = dict(config)

    def studies(self) -> list[StudyRecord]:
        """Return all studies, oldest first."""
        with session(self._engine) as db:
            return [_study(row) for row in db.scalars(select(Study).order_by(Study.id))]

    def find_study(self, name: str) -> StudyRecord | None:
        """Return the study of that name, if there is one."""
        with session(self._engine) as db:
            row = db.scalar(select(Study).where(Study.name == name))
            return None if row is None else _study(row)

    def study(self, name: str) -> StudyRecord:
        """Return the study of that name.

        Raises:
            UnknownNameError: there is none; lists those there are.
        """
        found = self.find_study(name)
        if found is None:
            raise UnknownNameError("study", name, [item.name for item in self.studies()])
        return found

    def add_trial(self, study_id: int, number: int, candidate: Candidate) -> int:
        """Record that a trial begins, and its architecture if it is new; return the trial's id.

        Raises:
            NasError: the study has a trial of that number.
        """
        architecture = candidate.architecture
        with session(self._engine) as db:
            if db.get(ArchitectureRow, architecture.key) is None:
                row = ArchitectureRow(
                    key=architecture.key,
                    topology_key=architecture.topology_key,
                    text=architecture.text,
                    document=architecture.to_json(),
                )
                db.add(row)
                db.flush()
            trial = Trial(
                study_id=study_id,
                number=number,
                architecture_key=architecture.key,
                decisions=dict(candidate.decisions),
                rejections=dict(candidate.rejections),
                state=TrialState.RUNNING,
                started=_now(),
            )
            db.add(trial)
            db.flush()
            return trial.id

    def add_values(
        self, trial_id: int, figures: Iterable[Measured], *, cache_key: str | None = None
    ) -> None:
        """Record figures of a trial, each metric once.

        Args:
            trial_id: of the trial.
            figures: all finite.
            cache_key: what :meth:`cached` finds them by.

        Raises:
            NasError: a figure is not finite, or the trial has the metric already.
        """
        with session(self._engine) as db:
            for item in figures:
                if not math.isfinite(item.value):
                    raise NasError(f"{item.metric} must be finite to be recorded: {item.value}.")
                db.add(
                    ValueRow(
                        trial_id=trial_id,
                        metric=item.metric,
                        value=float(item.value),
                        low=_finite(item.low),
                        high=_finite(item.high),
                        cache_key=cache_key,
                    )
                )
                if item.detail:
                    document = _plain(item.detail)
                    db.add(Detail(trial_id=trial_id, metric=item.metric, document=document))

    def copy_values(self, source_id: int, trial_id: int) -> None:
        """Give a trial the figures of another; their details stay with that one."""
        with session(self._engine) as db:
            for row in db.scalars(select(ValueRow).where(ValueRow.trial_id == source_id)).all():
                db.add(
                    ValueRow(
                        trial_id=trial_id,
                        metric=row.metric,
                        value=row.value,
                        low=row.low,
                        high=row.high,
                    )
                )

    def finish_trial(self, trial_id: int, state: TrialState, reason: str | None = None) -> None:
        """Record how a trial ended."""
        with session(self._engine) as db:
            trial = db.get_one(Trial, trial_id)
            trial.state, trial.reason, trial.ended = state, reason, _now()

    def fail_running(self, study_id: int, reason: str) -> int:
        """Close the trials that a dead driver left running; return how many there were."""
        with session(self._engine) as db:
            running = Trial.study_id == study_id, Trial.state == TrialState.RUNNING
            rows = db.scalars(select(Trial).where(*running)).all()
            for row in rows:
                row.state, row.reason, row.ended = TrialState.FAILED, reason, _now()
            return len(rows)

    def trials(self, study_id: int, *, number: int | None = None) -> list[TrialRecord]:
        """Return the trials of a study in order, or the one of that number, without details."""
        where = [Trial.study_id == study_id]
        if number is not None:
            where.append(Trial.number == number)
        with session(self._engine) as db:
            values: defaultdict[int, dict[str, Value]] = defaultdict(dict)
            found = select(ValueRow).join(Trial, ValueRow.trial_id == Trial.id).where(*where)
            for item in db.scalars(found.order_by(ValueRow.metric)):
                values[item.trial_id][item.metric] = Value(item.value, item.low, item.high)
            rows = db.execute(
                select(Trial, ArchitectureRow.text)
                .join(ArchitectureRow, Trial.architecture_key == ArchitectureRow.key)
                .where(*where)
                .order_by(Trial.number)
            )
            return [_trial(row, text, values[row.id]) for row, text in rows]

    def detail(self, trial_id: int, metric: str) -> Mapping[str, Any]:
        """Return how a figure came about; empty where nothing was recorded."""
        with session(self._engine) as db:
            row = db.get(Detail, (trial_id, metric))
            return {} if row is None else row.document

    def cached(self, cache_key: str, metrics: Sequence[str]) -> list[Measured] | None:
        """Return the figures that any study recorded under a key; None unless it has them all."""
        with session(self._engine) as db:
            rows = db.scalars(
                select(ValueRow)
                .where(ValueRow.cache_key == cache_key)
                .order_by(ValueRow.trial_id.desc())
            )
            found = {row.metric: row for row in rows}  # the oldest wins
            if not found.keys() >= set(metrics):
                return None
            return [_measured(db, found[name]) for name in metrics]

    def architecture(self, key: str) -> Architecture:
        """Return a recorded network.

        Raises:
            NasError: the record has no network of that key.
        """
        with session(self._engine) as db:
            row = db.get(ArchitectureRow, key)
            if row is None:
                raise NasError(f"The record has no architecture {key!r}.")
            document = row.document
        return Architecture.from_json(document)

    def add_event(self, study_id: int, kind: str, data: Mapping[str, Any]) -> None:
        """Record that something happened now."""
        with session(self._engine) as db:
            db.add(Event(study_id=study_id, time=_now(), kind=kind, data=_plain(data)))

    def events(self, study_id: int) -> list[EventRecord]:
        """Return what happened in a study, in order."""
        with session(self._engine) as db:
            rows = db.scalars(select(Event).where(Event.study_id == study_id).order_by(Event.id))
            return [EventRecord(row.time, row.kind, row.data) for row in rows]


def _study(row: Study) -> StudyRecord:
    return StudyRecord(row.id, row.name, row.config, row.conditions, row.versions, row.created)


def _trial(row: Trial, text: str, values: Mapping[str, Value]) -> TrialRecord:
    return TrialRecord(
        id=row.id,
        number=row.number,
        state=TrialState(row.state),
        key=row.architecture_key,
        text=text,
        decisions=row.decisions,
        values=values,
        reason=row.reason,
        rejections=row.rejections,
        started=row.started,
        ended=row.ended,
    )


def _measured(db: Session, row: ValueRow) -> Measured:
    detail = db.get(Detail, (row.trial_id, row.metric))
    document = {} if detail is None else detail.document
    return Measured(row.metric, row.value, row.low, row.high, document)


def _now() -> datetime:
    return datetime.now(UTC)


def _finite(bound: float | None) -> float | None:
    return float(bound) if bound is not None and math.isfinite(bound) else None


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    """Bring details to what JSON holds: other figures become None, other things their text."""
    return {str(key): _plain_value(value) for key, value in data.items()}


def _plain_value(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return _plain(value)
    if isinstance(value, list | tuple):
        return [_plain_value(item) for item in value]
    return str(value)
