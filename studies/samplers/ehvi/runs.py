"""The runs of a space function, remembered: answers that were given before cost nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from search_spaces.choose import Decider, Option, Rejected
from search_spaces.space import Candidate, DataSpec, Space

T = TypeVar("T")
Question = tuple[str, Sequence[Option]]
"""Its name, and the options."""
_MOST = 20_000
"""Runs that are remembered; then all are forgotten."""


class Runs(Generic[T]):
    """Runs a space function, each sequence of answers once.

    Args:
        space: the space.
        data: what it must know of the data.
        describe: makes of a candidate, the questions it was asked, and the positions of its
            answers what is remembered.
    """

    def __init__(
        self,
        space: Space,
        data: DataSpec,
        describe: Callable[[Candidate, Sequence[Question], Sequence[int]], T],
    ) -> None:
        self._space, self._data, self._describe = space, data, describe
        self._questions: dict[tuple[int, ...], Question] = {}
        self._ends: dict[tuple[int, ...], T | Rejected] = {}

    def run(self, decider: Decider) -> T:
        """Have the questions answered.

        Raises:
            Rejected: the answers break a rule of the space, or make its function fail.
            SpaceError: the decider has no answer to a question.
        """
        path: tuple[int, ...] = ()
        while path in self._questions:
            path = (*path, decider.decide(*self._questions[path]))
        if path not in self._ends:
            path = self._go_on(path, decider)
        end = self._ends[path]
        if isinstance(end, Rejected):
            raise Rejected(end.rule)
        return end

    def _go_on(self, path: tuple[int, ...], decider: Decider) -> tuple[int, ...]:
        """Run the function with some answers given, and remember how it ends."""
        if len(self._ends) >= _MOST:
            given = [(path[:count], self._questions[path[:count]]) for count in range(len(path))]
            self._questions, self._ends = dict(given), {}
        follower = _Follower(self._questions, path, decider)
        end: T | Rejected
        try:
            candidate = self._space.attempt(follower, self._data)
        except Rejected as rejected:
            end = rejected
        else:
            asked = [self._questions[follower.path[:count]] for count in range(len(follower.path))]
            end = self._describe(candidate, asked, follower.path)
        self._ends[follower.path] = end
        return follower.path


class _Follower:
    """Gives the answers of a path, then those of a decider, and notes the questions."""

    def __init__(
        self,
        questions: dict[tuple[int, ...], Question],
        path: tuple[int, ...],
        decider: Decider,
    ) -> None:
        self._questions, self._given, self._decider = questions, path, decider
        self.path: tuple[int, ...] = ()

    def decide(self, name: str, options: Sequence[Option]) -> int:
        """See :class:`search_spaces.choose.Decider`."""
        place = len(self.path)
        if place < len(self._given):
            answer = self._given[place]
        else:
            self._questions[self.path] = (name, tuple(options))
            answer = self._decider.decide(name, options)
        self.path = (*self.path, answer)
        return answer
