"""Optuna's samplers, each asked on a study that is set up for the ask alone."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search_spaces.choose import Decider, Option, Rejected
from search_spaces.errors import SpaceError
from search_spaces.space import Candidate, DataSpec, Space
from studies.metrics import Direction
from studies.samplers import breeding
from studies.samplers.drafts import Draft, random_drafts
from studies.samplers.encoding import Encoding, TrialDecider
from studies.samplers.protocol import Lesson, ask_seed
from studies.samplers.questions import Answers, NotingDecider, answers_of
from studies.samplers.shelf import STUDY, Shelf, make_trial
from studies.samplers.window import FRONT, NEWEST, Entry, Window

STARTUP = 10
"""Lessons before a model is made of them; up to then candidates are random."""
_NEAR = 50
"""Drafts of one ask that are near one of the model's that was met before, or broke a rule."""
_RANDOM = 40
"""Drafts of one ask that are random, after those."""
_WIDER = 10
"""Near drafts met before after which one more answer is changed."""

_SPARE = 100
"""Lessons outside the window whose answers are kept."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is searched.

    Attributes:
        space: the space.
        data: what the space must know of the data.
        directions: of the objectives.
        constraints: their texts.
        seed: of the study.
    """

    space: Space
    data: DataSpec
    directions: tuple[Direction, ...]
    constraints: tuple[str, ...]
    seed: int


class Guided(ABC):
    """Asks an Optuna sampler; see :class:`~studies.samplers.Drafter`.

    Sampler, study and storage are made anew for every ask, from the lessons in the window (as
    finished trials) and the pending ones (as running trials), so nothing but these plays a part.

    Lessons that violate a constraint and have no values are told with :meth:`placeholder` instead.

    Args:
        kind: what the drafts' origin calls it.
        problem: what is searched.
        newest: see :class:`~studies.samplers.window.Window`.
        front: the same.
        tries: drafts of one ask that are the model's own.
    """

    def __init__(
        self,
        kind: str,
        problem: Problem,
        *,
        newest: int = NEWEST,
        front: int = FRONT,
        tries: int = 4,
    ) -> None:
        self.kind, self.problem, self.tries = kind, problem, tries
        self.window = Window(problem.directions, problem.constraints, newest=newest, front=front)
        self.directions = [
            StudyDirection.MINIMIZE if item == "min" else StudyDirection.MAXIMIZE
            for item in problem.directions
        ]
        self._answers: dict[int, Answers | None] = {}
        self._trials: dict[int, FrozenTrial] = {}
        self._signature: object = None
        self._pending: dict[tuple[tuple[str, Option], ...], Answers | None] = {}

    @abstractmethod
    def fresh(self, seed: int, encoding: Encoding, trials: Sequence[FrozenTrial]) -> BaseSampler:
        """Return the sampler of one ask.

        Args:
            seed: of the ask.
            encoding: of the finished trials.
            trials: the finished trials.
        """

    def placeholder(self, entries: Sequence[Entry]) -> tuple[float, ...]:
        """Return the values that infeasible lessons without values are told with."""
        return (0.0,) * len(self.directions)

    def considered(self) -> list[Entry]:
        """Return the lessons that the sampler is to see, by ascending order."""
        return self.window.entries()

    def learn(self, lesson: Lesson) -> None:
        """See :class:`~studies.samplers.Drafter`."""
        self.window.add(lesson)

    def drafts(
        self, rng: Random, number: int, pending: Sequence[Mapping[str, Option]]
    ) -> Iterator[Draft]:
        """See :class:`~studies.samplers.Drafter`."""
        space, data = self.problem.space, self.problem.data
        study, encoding = self._study(ask_seed(self.problem.seed, number), pending)
        rejections: Counter[str] = Counter()
        first: NotingDecider | None = None
        for _ in range(self.tries):
            # NOTE: one that was not taken stays on the shelf as running: samplers keep clear of it.
            noting = NotingDecider(TrialDecider(self.ask(study), encoding, rng))
            first = first or noting
            try:
                found = self.run(noting)
            except Rejected as rejected:
                rejections[rejected.rule] += 1
                continue
            yield Draft(Candidate(found.architecture, found.decisions, dict(rejections)), self.kind)
            rejections.clear()
        if first is not None and first.open:
            yield from self._near(first, rng)
        yield from random_drafts(space, data, rng, _RANDOM)

    def ask(self, study: optuna.Study) -> optuna.Trial:
        """Have the sampler begin a trial."""
        return study.ask()

    def run(self, decider: Decider) -> Candidate:
        """Have the sampler answer the questions of the space."""
        return self.problem.space.attempt(decider, self.problem.data)

    def answers(self, entry: Entry) -> Answers | None:
        """Return the answers of a lesson; None where it is not of the space."""
        if entry.order not in self._answers:
            lesson = entry.lesson
            found = answers_of(lesson.decisions, self.problem.space, self.problem.data)
            if found is None and lesson.decisions:
                _log.warning(
                    "Trial %d no longer fits the space %s; the sampler leaves it out.",
                    lesson.number,
                    self.problem.space.name,
                )
            self._answers[entry.order] = found
        return self._answers[entry.order]

    def frozen(
        self,
        entry: Entry,
        placeholder: tuple[float, ...],
        params: dict[str, int],
        encoding: Encoding,
    ) -> FrozenTrial:
        """Return a lesson as a finished trial of Optuna's."""
        values = placeholder if entry.lesson.values is None else entry.lesson.values
        trial = make_trial(
            entry.order,
            TrialState.COMPLETE,
            values=[float(value) for value in values],  # Optuna fails later on whole numbers
            params=params,
            distributions=encoding.distributions,
        )
        for text, value in self.window.scaled(entry.lesson).items():
            trial.set_constraint(text, value)
        return trial

    def _near(self, first: NotingDecider, rng: Random) -> Iterator[Draft]:
        """Yield changes of what the model wanted first."""
        for attempt in range(_NEAR):
            try:
                found = breeding.mutate(
                    first.decisions,
                    first.open,
                    rng,
                    self.problem.space,
                    self.problem.data,
                    more=attempt // _WIDER,
                )
            except SpaceError:
                return  # the rules reject all that is near: random drafts say which, or find one
            change = breeding.changed(first.decisions, found.decisions)
            yield Draft(found, "near", {"of": self.kind, "change": change})

    def _study(
        self, seed: int, pending: Sequence[Mapping[str, Option]]
    ) -> tuple[optuna.Study, Encoding]:
        entries = self.considered()
        known = [
            (entry, answers) for entry in entries if (answers := self.answers(entry)) is not None
        ]
        encoding = Encoding([answers for _, answers in known])
        trials = self._finished(known, encoding)
        sampler = self.fresh(seed, encoding, trials)
        if len(self._answers) > 2 * len(entries) + _SPARE:
            self._answers = {entry.order: self._answers[entry.order] for entry in entries}
        shelf = Shelf(self.directions, [*trials, *self._running(pending, encoding)])
        return optuna.Study(STUDY, shelf, sampler), encoding

    def _finished(
        self, known: Sequence[tuple[Entry, Answers]], encoding: Encoding
    ) -> list[FrozenTrial]:
        """Return lessons as trials, kept from ask to ask as long as they stay the same."""
        placeholder = self.placeholder([entry for entry, _ in known])
        signature = (encoding.signature, self.window.scales, placeholder)
        if signature != self._signature:
            self._trials, self._signature = {}, signature
        for entry, answers in known:
            if entry.order not in self._trials:
                self._trials[entry.order] = self.frozen(
                    entry, placeholder, encoding.params(answers), encoding
                )
        self._trials = {entry.order: self._trials[entry.order] for entry, _ in known}
        return list(self._trials.values())

    def _running(
        self, pending: Sequence[Mapping[str, Option]], encoding: Encoding
    ) -> list[FrozenTrial]:
        keys = [tuple(decisions.items()) for decisions in pending]
        self._pending = {
            key: self._pending[key]
            if key in self._pending
            else answers_of(dict(key), self.problem.space, self.problem.data)
            for key in keys
        }
        found = [answers for key in keys if (answers := self._pending[key]) is not None]
        return [
            make_trial(
                self.window.count + index,
                TrialState.RUNNING,
                params=encoding.params(answers),
                distributions=encoding.distributions,
            )
            for index, answers in enumerate(found)
        ]


def known_rows(entries: Sequence[Entry]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return the values of the lessons that have some, (n, m)."""
    return np.array([item.lesson.values for item in entries if item.lesson.values is not None])
