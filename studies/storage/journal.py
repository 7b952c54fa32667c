"""What a driver is to record: kept until it is stored, each piece once, whatever dies meanwhile.

A driver notes its writes here and has them stored together, with the claims it needs, in one
transaction a turn. Each transaction puts its number in the driver's lease, so that a driver which
lost its lease writes nothing any more, and one whose connection broke in the middle of a commit can
see whether it went through.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine

from search_spaces.space import Candidate
from studies.storage import claims, writing
from studies.storage import database as db
from studies.storage.claims import CLAIMS
from studies.storage.owner import Owner
from studies.storage.records import Evaluation, RecordUnreachableError, TrialState, WorkerRecord
from studies.storage.wants import Answer, Want, find_or_claim

PATIENCE_SECONDS = 900.0
"""How long a driver waits for a database that does not answer."""
_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

_Write = Callable[[Connection], None]

_log = logging.getLogger(__name__)


class Journal:
    """The writes of one driver, who holds the lease of its study; trials go by their numbers.

    A write that is noted is stored by the next :meth:`store`. Used by one thread.

    Args:
        engine: of the record.
        study_id: of the study.
        owner: who has its lease.
        claimant: who claims evaluations.
    """

    def __init__(self, engine: Engine, study_id: int, owner: Owner, claimant: Owner) -> None:
        self._engine, self._study_id = engine, study_id
        self._owner, self._claimant = owner, claimant
        self._ids: dict[int, int] = {}
        self._writes: list[_Write] = []
        self._afterwards: list[Callable[[], None]] = []
        self._number = 0
        self._in_doubt: list[Answer] | None = None

    def know(self, ids: Mapping[int, int]) -> None:
        """Take over the ids, by number, of trials that are in the record."""
        self._ids.update(ids)

    def id_of(self, number: int) -> int:
        """Return the id of a trial that is stored."""
        return self._ids[number]

    # What can be noted

    def begun(self, number: int, candidate: Candidate, origin: Mapping[str, Any]) -> None:
        """A trial begins; its architecture is stored if it is new."""

        def write(connection: Connection) -> None:
            found = writing.add_trial(connection, self._study_id, number, candidate, origin)
            self._ids[number] = found

        self._writes.append(write)

    def evaluated(self, number: int, evaluation: Evaluation, *, claimed: str = "") -> None:
        """An evaluator found something for a trial; the claim on its key is given up."""

        def write(connection: Connection) -> None:
            writing.add_evaluation(connection, self._ids[number], evaluation)

        self._writes.append(write)
        self.released(claimed)

    def released(self, key: str) -> None:
        """A claim is given up; an empty key was none."""
        if key:
            self._writes.append(lambda to: claims.give_up(to, CLAIMS, key, self._claimant))

    def given(self, number: int, answer: Answer) -> None:
        """A trial has figures that were paid for another."""

        def write(connection: Connection) -> None:
            figures = answer.figures or ()
            writing.give_values(connection, self._ids[number], figures, answer.evaluation)

        self._writes.append(write)

    def copied(self, source: int, number: int) -> None:
        """A trial has the figures of an earlier one."""
        self._writes.append(
            lambda to: writing.copy_values(to, self._ids[source], self._ids[number])
        )

    def finished(
        self, number: int, state: TrialState, reason: str | None, stage: str | None
    ) -> None:
        """A trial ended."""
        self._writes.append(
            lambda to: writing.finish_trial(to, self._ids[number], state, reason, stage)
        )

    def event(self, kind: str, data: Mapping[str, object]) -> None:
        """Something happened."""
        self._writes.append(lambda to: writing.add_event(to, self._study_id, kind, data))

    def workers(self, workers: Sequence[WorkerRecord]) -> None:
        """These are the workers now."""
        self._writes.append(lambda to: writing.set_workers(to, self._study_id, workers))

    def afterwards(self, do: Callable[[], None]) -> None:
        """Have something done once all that is noted by now is stored."""
        self._afterwards.append(do)

    # Storing

    @property
    def empty(self) -> bool:
        """Whether everything noted is stored."""
        return not self._writes and not self._afterwards

    def store(
        self,
        wants: Iterable[Want] = (),
        *,
        lease_seconds: float = 0.0,
        patience: float = PATIENCE_SECONDS,
    ) -> list[Answer]:
        """Store what was noted and look for what is wanted, in one transaction.

        While the database does not answer this waits, and tries again.

        Args:
            wants: figures that are needed; each key once.
            lease_seconds: for how long what is granted is claimed, unless it is renewed.
            patience: seconds to wait for the database.

        Returns:
            an answer a want.

        Raises:
            StudyBusyError: the lease was lost; nothing was written.
            RecordUnreachableError: the database did not answer for too long.
            NasError: the database refused; nothing was written, and what was noted is kept.
        """
        wanted = list(wants)
        answers = self._patiently(lambda: self._transact(wanted, lease_seconds), patience)
        self._number += 1
        self._in_doubt = None
        self._writes.clear()
        afterwards, self._afterwards = self._afterwards, []
        for do in afterwards:
            do()
        return answers

    def _patiently(self, transact: Callable[[], list[Answer]], patience: float) -> list[Answer]:
        end: float | None = None
        for pause in _pauses():
            try:
                return transact()
            except RecordUnreachableError as problem:
                now = time.monotonic()
                if end is None:
                    end = now + patience
                    _log.warning("%s Waiting for it.", problem)
                if now >= end:
                    raise
                time.sleep(pause)
        raise AssertionError("there is always another pause")

    def _transact(self, wants: Sequence[Want], seconds: float) -> list[Answer]:
        number = self._number + 1
        with db.writing(self._engine) as connection:
            answers = self._in_doubt
            if answers is None or not self._is_stored(connection, number):
                claims.count_write(connection, self._study_id, self._owner, number)
                for write in self._writes:
                    write(connection)
                answers = find_or_claim(connection, wants, self._claimant, seconds)
            # If the connection breaks in the commit that follows, nobody says whether it went
            # through.
            self._in_doubt = answers
        return answers

    def _is_stored(self, connection: Connection, number: int) -> bool:
        return claims.last_write(connection, self._study_id, self._owner) == number


def _pauses() -> Iterable[float]:
    yield from _PAUSES
    while True:
        yield _PAUSES[-1]
