"""Choosers: how a space function's questions are answered.

A space function asks ``choose(name, options)``. Who answers is a :class:`Decider`: at random, from
a record, by mutating a record, by walking through all answers, or (in ``studies``) by an optimiser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Protocol, TypeVar

from search_spaces import scope
from search_spaces.errors import SpaceError

Option = int | float | str | bool | None
"""What can be chosen: plain values that JSON holds, so that decisions can be recorded."""
Decisions = dict[str, Option]
"""Answers by full name (``stage0/block1/kind``), in the order they were given."""
LeftOut = Mapping[str, frozenset[str]]
"""Variants that do not pay on a device, by place; see :func:`search_spaces.offers.place_text`."""

SomeOption = TypeVar("SomeOption", bound=Option)

MOST_QUESTIONS = 10_000
"""Of one candidate: a space that asks more has a loop that does not end."""


class Rejected(Exception):  # noqa: N818 - an answer, not a fault
    """The decisions so far break a rule of the space; another draw is needed.

    Attributes:
        rule: the rule that was broken.
    """

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule


class Decider(Protocol):
    """Answers the questions of one run of a space function."""

    def decide(self, name: str, options: Sequence[Option]) -> int:
        """Return the index of the answer to the question ``name``."""
        ...


class Chooser:
    """What a space function asks; a view of one run inside a scope.

    Attributes:
        decisions: all answers of this run so far, by full name.
        left_out: variants that are not to be offered, by the place of a layer.
        kinds: of variants that are; empty for all.
    """

    __slots__ = ("_decide", "_path", "decisions", "kinds", "left_out")

    def __init__(
        self,
        decide: Callable[[str, Sequence[Option]], int],
        path: str = "",
        decisions: Decisions | None = None,
        left_out: LeftOut | None = None,
        kinds: Sequence[str] = (),
    ) -> None:
        self._decide = decide
        self._path = path
        self.decisions: Decisions = {} if decisions is None else decisions
        self.left_out: LeftOut = {} if left_out is None else left_out
        self.kinds = kinds

    def __call__(self, name: str, options: Sequence[SomeOption]) -> SomeOption:
        """Return one of ``options``.

        Raises:
            SpaceError: there are no options, the question was asked before, or it is one of too
                many.
        """
        full = f"{self._path}/{name}" if self._path else name
        if full in self.decisions:
            raise SpaceError(
                f"The question {full!r} is asked twice; give each its own name or scope."
            )
        if not options:
            raise SpaceError(f"The question {full!r} has no options.")
        if len(self.decisions) >= MOST_QUESTIONS:
            raise SpaceError(
                f"The space asks more than {MOST_QUESTIONS:,} questions, the last one {full!r}; "
                "does a loop in it never end?"
            )
        value = options[self._decide(full, options)]
        self.decisions[full] = value
        return value

    def require(self, condition: bool, rule: str) -> None:
        """Reject this draw unless ``condition`` holds; it costs no trial.

        Args:
            condition: what must hold.
            rule: the rule in words, for counts and messages.
        """
        if not condition:
            raise Rejected(rule)

    def scopes(self, name: str, count: int) -> Iterator[tuple[int, Chooser]]:
        """Loop over ``count`` scopes ``name0``, ``name1``, ...; each has questions of its own."""
        outer = scope.current()
        try:
            stem = f"{self._path}/{name}" if self._path else name
            for index in range(count):
                path = f"{stem}{index}"
                scope.enter(path)
                yield (
                    index,
                    Chooser(self._decide, path, self.decisions, self.left_out, self.kinds),
                )
        finally:
            scope.enter(outer)

    def repeat(self, name: str, low: int, high: int) -> Iterator[tuple[int, Chooser]]:
        """Choose a number of scopes from ``low`` to ``high`` and loop over them.

        The number is the answer to the question ``<name>s``: ``stage0/blocks``.
        """
        return self.scopes(name, self(f"{name}s", range(low, high + 1)))


class RandomDecider:
    """Answers uniformly at random."""

    def __init__(self, rng: Random) -> None:
        self._random = rng.random

    def decide(self, name: str, options: Sequence[Option]) -> int:
        """See :class:`Decider`."""
        return int(self._random() * len(options))


class ReplayDecider:
    """Gives recorded answers."""

    def __init__(self, decisions: Mapping[str, Option]) -> None:
        self._decisions = decisions

    def decide(self, name: str, options: Sequence[Option]) -> int:
        """See :class:`Decider`.

        Raises:
            SpaceError: the record has no answer, or one that is not among the options.
        """
        if name not in self._decisions:
            raise SpaceError(f"The record has no answer to {name!r} (one of {list(options)}).")
        try:
            return options.index(self._decisions[name])
        except ValueError:
            raise SpaceError(
                f"The recorded answer {self._decisions[name]!r} to {name!r} is not among "
                f"{list(options)}; the space has changed since."
            ) from None


class MutateDecider:
    """Gives recorded answers but for the targets, which change, and new questions, at random.

    Args:
        decisions: the record.
        targets: names of the answers to change; those with one option cannot.
        rng: where the changes come from.
    """

    def __init__(self, decisions: Mapping[str, Option], targets: set[str], rng: Random) -> None:
        self._decisions = decisions
        self._targets = targets
        self._random = rng.random

    def decide(self, name: str, options: Sequence[Option]) -> int:
        """See :class:`Decider`."""
        count = len(options)
        old = self._decisions.get(name)
        if name not in self._decisions or old not in options:
            return int(self._random() * count)
        index = options.index(old)
        if name in self._targets and count > 1:
            return (index + 1 + int(self._random() * (count - 1))) % count
        return index


class EnumerateDecider:
    """Walks through every combination of answers; one instance serves all runs.

    After each run :meth:`advance` moves on to the next combination and tells whether there is one.
    """

    def __init__(self) -> None:
        self._path: list[int] = []
        self._counts: list[int] = []
        self._depth = 0

    def decide(self, name: str, options: Sequence[Option]) -> int:
        """See :class:`Decider`."""
        if self._depth == len(self._path):
            self._path.append(0)
            self._counts.append(len(options))
        answer = self._path[self._depth]
        self._depth += 1
        return answer

    def advance(self) -> bool:
        """Move on; return False when every combination was visited."""
        del self._path[self._depth :], self._counts[self._depth :]
        while self._path and self._path[-1] + 1 == self._counts[-1]:
            self._path.pop()
            self._counts.pop()
        self._depth = 0
        if not self._path:
            return False
        self._path[-1] += 1
        return True


class ProbeDecider:
    """Answers at random and keeps the inverse of the probability of all its answers.

    Args:
        rng: where the answers come from.
        preferences: by question, the probability of each answer; uniform where there is none, or
            where the number of options differs.

    Attributes:
        leaves: product over the questions of 1 / probability of the answer given. Its mean over
            runs, with 0 for rejected ones, is the number of valid leaves (Knuth 1975).
        answers: the questions met, with index of the answer and number of options.
    """

    def __init__(self, rng: Random, preferences: Mapping[str, Sequence[float]]) -> None:
        self._rng = rng
        self._preferences = preferences
        self.leaves = 1.0
        self.answers: list[tuple[str, int, int]] = []

    def decide(self, name: str, options: Sequence[Option]) -> int:
        """See :class:`Decider`."""
        count = len(options)
        chances = self._preferences.get(name, ())
        if len(chances) == count:
            index = self._rng.choices(range(count), chances)[0]
            self.leaves /= chances[index]
        else:
            index = int(self._rng.random() * count)
            self.leaves *= count
        self.answers.append((name, index, count))
        return index
