"""The one door to the record: each method is one transaction, values go in and come out frozen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, RowMapping, insert, select, update

from evaluators.protocol import Measured
from kernels.errors import NasError, UnknownNameError
from search_spaces.architecture import Architecture
from search_spaces.space import Candidate
from studies.storage import claims, reading, writing
from studies.storage import database as db
from studies.storage.claims import CLAIMS, LEASES
from studies.storage.journal import Journal
from studies.storage.measurements import Measurements
from studies.storage.models import Study
from studies.storage.owner import Owner
from studies.storage.reading import Objectives
from studies.storage.records import (
    Artifact,
    Evaluation,
    EventRecord,
    Holder,
    StudyRecord,
    TrialRecord,
    TrialState,
    WorkerRecord,
)
from studies.storage.schema import ensure_schema

_STUDY = Study.metadata.tables[Study.__tablename__]


class Repository:
    """An open record; use as a context manager or :meth:`close` it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, target: Path | str, *, create: bool = True) -> Repository:
        """Open a record; one of an older schema is upgraded.

        Args:
            target: path of a SQLite file, or a database URL.
            create: whether to make it where there is none.

        Raises:
            NasError: it is no such record, one of a newer schema, or it cannot be used.
        """
        engine = db.open_engine(target, create=create)
        try:
            ensure_schema(engine, create=create)
        except NasError:
            engine.dispose()
            raise
        return cls(engine)

    def close(self) -> None:
        """Give back the connections."""
        self._engine.dispose()

    def __enter__(self) -> Repository:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Studies

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
        with db.writing(self._engine) as connection:
            row = {
                "name": name,
                "config": dict(config),
                "conditions": dict(conditions),
                "versions": dict(versions),
                "created": datetime.now(UTC),
            }
            added = connection.execute(insert(_STUDY).values(row).returning(_STUDY))
            return _study(added.mappings().one())

    def set_config(self, study_id: int, config: Mapping[str, Any]) -> None:
        """Replace the settings of a study, as when it is given more trials."""
        self._set(study_id, config=dict(config))

    def archive(self, study_id: int, archived: bool = True) -> None:
        """Put a study where lists leave it out, or take it back."""
        self._set(study_id, archived=archived)

    def studies(self, *, archived: bool = False) -> list[StudyRecord]:
        """Return the studies, oldest first; those in the archive only if they are wanted."""
        query = select(_STUDY).order_by(_STUDY.c.id)
        if not archived:
            query = query.where(_STUDY.c.archived.is_(False))
        with db.reading(self._engine) as connection:
            return [_study(row) for row in connection.execute(query).mappings()]

    def find_study(self, name: str) -> StudyRecord | None:
        """Return the study of that name, archived or not, if there is one."""
        with db.reading(self._engine) as connection:
            found = connection.execute(select(_STUDY).where(_STUDY.c.name == name))
            row = found.mappings().first()
            return None if row is None else _study(row)

    def study(self, name: str) -> StudyRecord:
        """Return the study of that name, archived or not.

        Raises:
            UnknownNameError: there is none; lists those there are.
        """
        found = self.find_study(name)
        if found is None:
            names = [item.name for item in self.studies(archived=True)]
            raise UnknownNameError("study", name, names)
        return found

    def delete_study(self, study_id: int) -> int:
        """Delete a study and its trials; evaluations that others may find stay.

        Returns:
            how many trials it had.
        """
        with db.writing(self._engine) as connection:
            return writing.delete_study(connection, study_id)

    # Trials

    def add_trial(
        self, study_id: int, number: int, candidate: Candidate, *, origin: Mapping[str, Any]
    ) -> int:
        """Record that a trial begins, and its architecture if it is new; return the trial's id.

        Raises:
            NasError: the study has a trial of that number.
        """
        with db.writing(self._engine) as connection:
            return writing.add_trial(connection, study_id, number, candidate, origin)

    def finish_trial(
        self,
        trial_id: int,
        state: TrialState,
        reason: str | None = None,
        *,
        stage: str | None = None,
    ) -> None:
        """Record how a trial ended, why, and at which stage of the funnel it was dropped."""
        with db.writing(self._engine) as connection:
            writing.finish_trial(connection, trial_id, state, reason, stage)

    def trials(
        self,
        study_id: int,
        *,
        number: int | None = None,
        since: int | None = None,
        key: str = "",
        baselines: bool = False,
    ) -> list[TrialRecord]:
        """Return trials of a study in order, without details.

        Args:
            study_id: of the study.
            number: of the only one wanted.
            since: number of the first one wanted.
            key: what the key of the architecture begins with.
            baselines: whether only these are wanted.
        """
        where = reading.where(study_id, number, since, key, baselines)
        with db.reading(self._engine) as connection:
            return reading.trials(connection, *where)

    def trials_of(self, ids: Sequence[int]) -> list[TrialRecord]:
        """Return trials by their ids, in the order of these, without details."""
        with db.reading(self._engine) as connection:
            return reading.trials_of(connection, ids)

    def objective_rows(self, study_id: int, metrics: Sequence[str]) -> Objectives:
        """Return the figures of the complete trials, but for baselines and gaps.

        Returns:
            in order of number, the n trials' ids (n,), their numbers (n,) and values (n, metrics).
        """
        with db.reading(self._engine) as connection:
            return reading.objective_rows(connection, study_id, metrics)

    def count_states(self, study_id: int) -> dict[TrialState, int]:
        """Return how many trials of a study are in each state, baselines left out."""
        with db.reading(self._engine) as connection:
            return reading.count_states(connection, study_id)

    def reasons(self, study_id: int) -> Counter[str]:
        """Return how often each reason failed a trial, and each ``dropped at STAGE``."""
        with db.reading(self._engine) as connection:
            return reading.reasons(connection, study_id)

    def seconds_spent(self, study_id: int) -> dict[str, float]:
        """Return how long each evaluator ran for a study, in s; what was reused cost nothing."""
        with db.reading(self._engine) as connection:
            return reading.seconds_spent(connection, study_id)

    def last_activity(self, study_id: int) -> datetime | None:
        """Return when something last happened in a study; None where nothing did."""
        with db.reading(self._engine) as connection:
            return reading.last_activity(connection, study_id)

    # Figures

    def add_evaluation(self, trial_id: int, evaluation: Evaluation) -> None:
        """Record what an evaluator found, and its finite figures as values of the trial.

        Raises:
            NasError: the trial has a figure of one of the metrics already.
        """
        with db.writing(self._engine) as connection:
            writing.add_evaluation(connection, trial_id, evaluation)

    def reuse(self, trial_id: int, key: str, metrics: Sequence[str]) -> list[Measured] | None:
        """Give a trial the figures that any study recorded under a key.

        Returns:
            them, in the order of the metrics; None, and nothing happens, unless there are all.
        """
        with db.reading(self._engine) as connection:
            found = writing.known_figures(connection, key, metrics)
        if found is None:
            return None
        evaluation_id, figures = found
        with db.writing(self._engine) as connection:
            writing.give_values(connection, trial_id, figures, evaluation_id)
        return figures

    def add_values(self, trial_id: int, figures: Iterable[Measured]) -> None:
        """Record figures of a trial that no evaluator of its study gave, finite and each once."""
        with db.writing(self._engine) as connection:
            writing.add_values(connection, trial_id, list(figures))

    def copy_values(self, source_id: int, trial_id: int) -> None:
        """Give a trial the figures of another."""
        with db.writing(self._engine) as connection:
            writing.copy_values(connection, source_id, trial_id)

    def detail(self, trial_id: int, metric: str) -> Mapping[str, Any]:
        """Return how a figure came about; empty where nothing was recorded."""
        with db.reading(self._engine) as connection:
            return reading.detail(connection, trial_id, metric)

    def evaluations(self, trial_id: int) -> list[Evaluation]:
        """Return what a trial's figures come from, paid for it or not, oldest first."""
        with db.reading(self._engine) as connection:
            return reading.evaluations(connection, trial_id)

    def architecture(self, key: str) -> Architecture:
        """Return a recorded network.

        Raises:
            NasError: the record has no network of that key.
        """
        with db.reading(self._engine) as connection:
            return reading.architecture(connection, key)

    # What happened, and what was made

    def add_event(self, study_id: int, kind: str, data: Mapping[str, Any]) -> None:
        """Record that something happened now."""
        with db.writing(self._engine) as connection:
            writing.add_event(connection, study_id, kind, data)

    def events(
        self,
        study_id: int,
        *,
        newest: int | None = None,
        trial: int | None = None,
        kind: str | None = None,
    ) -> list[EventRecord]:
        """Return what happened in a study, in order.

        Args:
            study_id: of the study.
            newest: how many of the last ones are wanted; None: all.
            trial: number of the only trial that is wanted.
            kind: that is wanted.
        """
        with db.reading(self._engine) as connection:
            return reading.events(connection, study_id, newest, trial, kind)

    def add_artifact(self, trial_id: int, artifact: Artifact) -> None:
        """Record a file that a trial made.

        Raises:
            NasError: the trial has one of that name.
        """
        with db.writing(self._engine) as connection:
            writing.add_artifacts(connection, trial_id, [artifact])

    def artifacts(self, trial_id: int) -> list[Artifact]:
        """Return the files that a trial made, by name."""
        with db.reading(self._engine) as connection:
            return reading.artifacts(connection, trial_id)

    # Claims and leases

    def claim(self, key: str, owner: Owner, seconds: float) -> bool:
        """Say that an evaluation is being paid for, for so long unless it is renewed.

        Returns:
            whether it is this owner's now; False while another one, that lives, holds it.
        """
        with db.writing(self._engine) as connection:
            return claims.take(connection, CLAIMS, key, owner, seconds) is None

    def release(self, key: str, owner: Owner) -> None:
        """Give up a claim; nothing happens where it is another's."""
        with db.writing(self._engine) as connection:
            claims.give_up(connection, CLAIMS, key, owner)

    def renew_claims(self, owner: Owner, seconds: float) -> None:
        """Keep all claims of an owner for so long from now."""
        with db.writing(self._engine) as connection:
            claims.renew(connection, CLAIMS, owner, seconds)

    def release_all(self, owner: Owner) -> None:
        """Give up all claims of an owner."""
        with db.writing(self._engine) as connection:
            claims.give_up_all(connection, CLAIMS, owner)

    def take_lease(self, study_id: int, owner: Owner, seconds: float) -> None:
        """Become the one driver of a study, for so long unless it is renewed.

        Raises:
            StudyBusyError: another one runs it; says where and since when.
        """
        with db.writing(self._engine) as connection:
            claims.take_lease(connection, study_id, owner, seconds)

    def renew_lease(self, study_id: int, owner: Owner, seconds: float) -> None:
        """Stay the driver of a study for so long from now.

        Raises:
            StudyBusyError: the lease ran out and is another's now, or was given up.
        """
        with db.writing(self._engine) as connection:
            claims.renew_lease(connection, study_id, owner, seconds)

    def drop_lease(self, study_id: int, owner: Owner) -> None:
        """Stop being the driver of a study; nothing happens where another is."""
        with db.writing(self._engine) as connection:
            claims.give_up(connection, LEASES, study_id, owner)

    def journal(self, study_id: int, owner: Owner, claimant: Owner | None = None) -> Journal:
        """Return what a driver writes through; its study's lease is the owner's by then."""
        return Journal(self._engine, study_id, owner, claimant or owner)

    def measurements(self) -> Measurements:
        """Return the door to figures that no trial needs."""
        return Measurements(self._engine)

    def driver(self, study_id: int) -> Holder | None:
        """Return who runs a study now."""
        with db.reading(self._engine) as connection:
            return claims.driver(connection, study_id)

    def workers(self, study_id: int) -> list[WorkerRecord]:
        """Return the workers of a study as its newest driver saw them last, by name."""
        with db.reading(self._engine) as connection:
            return reading.workers(connection, study_id)

    def _set(self, study_id: int, **values: Any) -> None:
        with db.writing(self._engine) as connection:
            there = update(_STUDY).where(_STUDY.c.id == study_id)
            if not connection.execute(there.values(values)).rowcount:
                raise NasError(f"The record has no study {study_id}; was it deleted?")


def _study(row: RowMapping) -> StudyRecord:
    return StudyRecord(**row)
