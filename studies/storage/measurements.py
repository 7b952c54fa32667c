"""Measurements as such, whichever study asked for them first: found by key, claimed, kept, read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, func, or_, select

from search_spaces.architecture import Architecture
from studies.storage import claims, reading, writing
from studies.storage import database as db
from studies.storage.claims import CLAIMS
from studies.storage.models import ArchitectureRow, EvaluationRow, Study, Trial
from studies.storage.owner import Owner
from studies.storage.records import Evaluation
from studies.storage.wants import Answer, Want, find_or_claim


@dataclass(frozen=True, slots=True)
class MeasurementRecord:
    """What an evaluator found on a network.

    Attributes:
        network: key of the network; empty where the record no longer knows it.
        text: one-line form of the network.
        study: that it was paid for; empty where no study asked, or the study was deleted.
        evaluation: the figures, when and where they were found, and the key they are found by.
    """

    network: str
    text: str
    study: str
    evaluation: Evaluation


class Measurements:
    """The door of the record to figures that no trial needs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def ask(self, want: Want, owner: Owner, seconds: float) -> Answer:
        """Find figures, or claim them for an owner for so long, unless that is renewed."""
        with db.writing(self._engine) as connection:
            (answer,) = find_or_claim(connection, [want], owner, seconds)
        return answer

    def keep(
        self, architecture: Architecture, evaluation: Evaluation, *, claimed: str, owner: Owner
    ) -> None:
        """Record what was found on a network, and give up an owner's claim on it."""
        with db.writing(self._engine) as connection:
            writing.add_architecture(connection, architecture)
            writing.insert_evaluation(connection, evaluation, architecture_key=architecture.key)
            claims.give_up(connection, CLAIMS, claimed, owner)

    def all(self, evaluators: Sequence[str]) -> list[MeasurementRecord]:
        """Return what some evaluators found, oldest first.

        Args:
            evaluators: what their names begin with.
        """
        row = EvaluationRow
        network = func.coalesce(Trial.architecture_key, row.architecture_key)
        query = (
            select(network, ArchitectureRow.text, Study.name, *reading.EVALUATION)
            .select_from(row)
            .outerjoin(Trial, row.trial_id == Trial.id)
            .outerjoin(Study, Trial.study_id == Study.id)
            .outerjoin(ArchitectureRow, ArchitectureRow.key == network)
            .where(or_(*(row.evaluator.startswith(name, autoescape=True) for name in evaluators)))
            .order_by(row.id)
        )
        with db.reading(self._engine) as connection:
            return [
                MeasurementRecord(key or "", text or "", study or "", reading.evaluation(*found))
                for key, text, study, *found in connection.execute(query)
            ]
