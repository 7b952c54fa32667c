"""How a trial gets its figures: from the record, from what a dead driver left, or by evaluation."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path

from evaluators.accuracy.checkpoint import remove
from evaluators.protocol import Evaluator, Measured
from kernels.errors import NasError
from studies.asker import ASK_SECONDS
from studies.executors import Executor, Job, LocalExecutor, Outbox, Outcome
from studies.executors.run import NO_ROOM
from studies.flight import Flight
from studies.funnel import Stage
from studies.heartbeat import LEASE_SECONDS
from studies.judge import Judge
from studies.rungs import as_stepwise
from studies.storage import Artifact, Evaluation, Value
from studies.storage.journal import Journal
from studies.storage.wants import Answer, Want
from studies.workspace import Workspace, weights_of

MIN_FREE_BYTES = 64 << 20
"""Room that must be left on the artifacts' disk to begin an evaluation."""
CLAIM_POLL_SECONDS = 0.25
"""How often is looked for what another driver is paying for."""
_LONGEST_KEY = 255


@dataclass(slots=True, eq=False)
class Errand:
    """Figures that a flight needs.

    Attributes:
        flight: who needs them.
        evaluator: who gives them.
        key: what they are found by; empty where they must not be reused.
        due: when to look for them, again or first, by ``time.monotonic``.
    """

    flight: Flight
    evaluator: Evaluator
    key: str
    due: float = 0.0


class Supply:
    """Finds the figures of flights, or has them made, and notes them in the journal.

    Args:
        judge: who is told of figures.
        journal: where they are noted.
        executor: who makes them.
        place: the workspace.
        wanted: metrics without which a trial has failed.
        spent_seconds: for how long was evaluated before.
    """

    def __init__(
        self,
        judge: Judge,
        journal: Journal,
        executor: Executor,
        *,
        place: Workspace,
        wanted: Iterable[str],
        spent_seconds: float,
    ) -> None:
        self._judge, self._journal, self._executor = judge, journal, executor
        self._root, self._weights = place.root, place.weights
        self._outbox = Outbox(place.root / "outbox")
        self._inline = LocalExecutor(ASK_SECONDS)
        self._wanted = frozenset(wanted)
        self._open: list[Errand] = []
        self._jobs: dict[int, Errand] = {}
        self._job_count = 0
        self.spent_seconds = spent_seconds

    @property
    def in_work(self) -> int:
        """How many evaluations are given out."""
        return len(self._jobs)

    def trial_of(self, job: int) -> int | None:
        """Return the number of the trial that a job is for; None where it is not in work."""
        errand = self._jobs.get(job)
        return None if errand is None else errand.flight.number

    def obtain(self, flight: Flight, evaluator: Evaluator) -> None:
        """Get an evaluator's figures: at once if it is inline, else with the next exchanges."""
        if evaluator.slot == "inline":
            self._inline.submit(Job(0, evaluator, flight.architecture, ""))
            (outcome,) = self._inline.wait()
            self._take(Errand(flight, evaluator, ""), outcome)
        elif evaluator not in flight.open:
            flight.open.append(evaluator)
            key = storable(evaluator.cache_key(flight.architecture))
            self._open.append(Errand(flight, evaluator, key))

    def exchange(self) -> list[Flight]:
        """Store all that is noted, and find, claim and give out what flights need.

        Returns:
            the flights that learned something.

        Raises:
            NasError: the record refused, or there is no room for what is to be made.
        """
        due = self._due()
        if not due and self._journal.empty:
            return []
        keyed = [errand for errand in due if errand.key]
        wants = [Want(errand.key, errand.evaluator.metrics) for errand in keyed]
        answers = self._journal.store(wants, lease_seconds=LEASE_SECONDS)
        free = Answer(granted=True)
        for errand in due:
            if not errand.key:
                self._follow(errand, free)
        for errand, answer in zip(keyed, answers, strict=True):
            self._follow(errand, answer)
        return [errand.flight for errand in due if errand.evaluator not in errand.flight.open]

    def collect(self, timeout: float) -> list[Flight]:
        """Take what is done, after waiting for it; return the flights that learned something."""
        now = time.monotonic()
        waits = [max(0.0, errand.due - now) for errand in self._open]
        patience = min([timeout, *waits])
        outcomes = self._executor.wait(patience)
        if not outcomes and not self._jobs:
            time.sleep(patience)  # the executor has nothing to wait for
        flights = []
        for outcome in outcomes:
            errand = self._jobs.pop(outcome.job, None)
            if errand is None:
                continue  # of a job that was given up
            self._take(errand, outcome)
            flights.append(errand.flight)
        return flights

    def know(self, flight: Flight, stages: Iterable[Stage]) -> None:
        """Take note that a dead driver had some of a trial's figures made."""
        for stage in stages:
            made = (item for item in stage.evaluators if flight.values.keys() >= set(item.metrics))
            flight.paused += [item for item in made if as_stepwise(item) is not None]

    def clear_up(self, flight: Flight) -> None:
        """Remove what trainings of a trial that ended left, to be gone on from."""
        for evaluator in flight.paused:
            part = as_stepwise(evaluator)
            if part is not None:
                for path in part.state_files(flight.architecture):
                    self._journal.afterwards(partial(remove, path))

    def forget(self, flight: Flight) -> None:
        """Look no more for what a flight needs; what is given out comes back all the same."""
        for errand in [item for item in self._open if item.flight is flight]:
            self._open.remove(errand)
            flight.open.remove(errand.evaluator)

    def _due(self) -> list[Errand]:
        """Return what to look for now, each key once."""
        now = time.monotonic()
        busy = {errand.key for errand in self._jobs.values() if errand.key}
        due = []
        for errand in self._open:
            if errand.due <= now and errand.key not in busy:
                due.append(errand)
                if errand.key:
                    busy.add(errand.key)
        return due

    def _follow(self, errand: Errand, answer: Answer) -> None:
        """Do what an answer allows."""
        if answer.figures is not None:
            self._open.remove(errand)
            self._reuse(errand, answer)
        elif not answer.granted:
            errand.due = time.monotonic() + CLAIM_POLL_SECONDS
        elif errand.key and (left := self._outbox.get(errand.key)) is not None:
            self._open.remove(errand)
            self._take(errand, left)
        else:
            check_room(self._root)
            self._open.remove(errand)
            self._job_count += 1
            self._jobs[self._job_count] = errand
            job = Job(self._job_count, errand.evaluator, errand.flight.architecture, errand.key)
            self._executor.submit(job)

    def _reuse(self, errand: Errand, answer: Answer) -> None:
        flight, evaluator = errand.flight, errand.evaluator
        self._journal.given(flight.number, answer)
        event = {"trial": flight.number, "metrics": evaluator.metrics, "cache_key": errand.key}
        self._journal.event("reused", event)
        self._learn(errand, answer.figures or ())

    def _take(self, errand: Errand, outcome: Outcome) -> None:
        """Note an evaluation that was made; one whose result found no room is made again.

        Raises:
            NasError: the disk is full; no candidate is to blame.
        """
        flight, evaluator, key = errand.flight, errand.evaluator, errand.key
        check_kept(outcome, f"Trial {flight.number}")
        if evaluator.slot != "inline":
            self.spent_seconds += (outcome.ended - outcome.started).total_seconds()
            self._journal.event("evaluated", _story(errand, outcome))
        if outcome.reason is not None:
            self._fail(errand, outcome.reason)
            return
        if as_stepwise(evaluator) is not None:
            flight.paused.append(evaluator)
        figures = tuple(item for item in outcome.measured if item.metric in evaluator.metrics)
        weights = weights_of(figures, self._weights)
        evaluation = recordable(evaluator, key, outcome, weights)
        self._journal.evaluated(flight.number, evaluation, claimed=key)
        if key:
            self._journal.afterwards(lambda: self._outbox.remove(key))
        self._learn(errand, figures)

    def _fail(self, errand: Errand, reason: str) -> None:
        """Note why an evaluation failed."""
        flight = errand.flight
        first, _, rest = reason.partition("\n")
        flight.failure = flight.failure or first
        if rest:
            self._journal.event("worker output", {"trial": flight.number, "text": rest})
        self._journal.released(errand.key)
        self._close(errand)

    def _learn(self, errand: Errand, figures: Sequence[Measured]) -> None:
        flight = errand.flight
        given = {item.metric: item for item in figures}
        for name in errand.evaluator.metrics:
            item = given.get(name)
            if item is not None and math.isfinite(item.value):
                flight.values[name] = Value(item.value, item.low, item.high)
            elif name in self._wanted:
                came = f"is {item.value}" if item is not None else "was not given"
                flight.failure = flight.failure or f"The metric {name} {came}."
            else:
                flight.values[name] = Value(math.nan)
        self._judge.arrived(flight.number, flight.values)
        self._close(errand)

    def _close(self, errand: Errand) -> None:
        if errand.evaluator in errand.flight.open:
            errand.flight.open.remove(errand.evaluator)


def check_room(root: Path) -> None:
    """Refuse to begin an evaluation where its result could not be kept.

    Raises:
        NasError: there is too little room in a workspace.
    """
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if free < MIN_FREE_BYTES:
        raise NasError(
            f"Only {free >> 20} MB are free at {root}; make room and give the same "
            "command to go on."
        )


def check_kept(outcome: Outcome, what: str) -> None:
    """Refuse to go on where the disk was full; no candidate is to blame.

    Raises:
        NasError: the result of an evaluation found no room.
    """
    if outcome.reason is not None and outcome.reason.startswith(NO_ROOM):
        raise NasError(
            f"{what} could not be kept: {outcome.reason.splitlines()[0]}. Make "
            "room and give the same command to go on; what is recorded is safe."
        )


def recordable(
    evaluator: Evaluator, key: str, outcome: Outcome, artifacts: Sequence[Artifact] = ()
) -> Evaluation:
    """Return an evaluation that succeeded as it is recorded; one that was disturbed has no key."""
    figures = tuple(item for item in outcome.measured if item.metric in evaluator.metrics)
    disturbed = any(item.detail.get("disturbed") for item in figures)
    return Evaluation(
        evaluator=type(evaluator).__name__,
        key=key if key and not disturbed else None,
        figures=tuple(item for item in figures if math.isfinite(item.value)),
        started=outcome.started,
        ended=outcome.ended,
        worker=outcome.worker,
        artifacts=tuple(artifacts),
    )


def _story(errand: Errand, outcome: Outcome) -> dict[str, object]:
    return {
        "trial": errand.flight.number,
        "metrics": errand.evaluator.metrics,
        "slot": errand.evaluator.slot,
        "started": outcome.started.isoformat(),
        "ended": outcome.ended.isoformat(),
        "attempts": outcome.attempts,
        "worker": outcome.worker,
    }


def storable(key: str) -> str:
    """Return a key that fits its column; a user's evaluator may give any."""
    if len(key) <= _LONGEST_KEY and "\0" not in key:
        return key
    return blake2b(key.encode(errors="replace"), digest_size=32).hexdigest()
