"""Which questions a candidate answered, and among how many options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kernels.errors import NasError
from search_spaces.choose import Decider, Decisions, Option, Rejected, ReplayDecider
from search_spaces.space import DataSpec, Space


class NotingDecider:
    """Lets another decider answer and notes the questions.

    Attributes:
        decisions: the answers so far, by full name.
        open: the names of the questions with several options.
        answers: the positions of their answers, by parameter.
        counts: their numbers of options, by parameter.
    """

    def __init__(self, decider: Decider) -> None:
        self._decider = decider
        self.decisions: Decisions = {}
        self.open: list[str] = []
        self.answers: dict[str, int] = {}
        self.counts: dict[str, int] = {}

    def decide(self, name: str, options: Sequence[Option]) -> int:
        """See :class:`search_spaces.choose.Decider`."""
        answer = self._decider.decide(name, options)
        self.decisions[name] = options[answer]
        if len(options) > 1:
            self.open.append(name)
            parameter = parameter_name(name, options)
            self.answers[parameter] = answer
            self.counts[parameter] = len(options)
        return answer


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of a candidate to questions with several options, by parameter.

    Attributes:
        positions: of the answer among the options.
        shape: the questions with their numbers of options, in the order they were asked.
    """

    positions: Mapping[str, int]
    shape: tuple[tuple[str, int], ...]


def answers_of(decisions: Mapping[str, Option], space: Space, data: DataSpec) -> Answers | None:
    """Replay decisions; return None where they are not of the space, or of an earlier one."""
    noting = NotingDecider(ReplayDecider(decisions))
    try:
        space.run(noting, data)
    except (Rejected, NasError):
        return None
    return Answers(noting.answers, tuple(noting.counts.items()))


def changeable_names(
    decisions: Mapping[str, Option], space: Space, data: DataSpec
) -> tuple[str, ...]:
    """Return the questions that could be answered otherwise; all, if the record no longer fits."""
    noting = NotingDecider(ReplayDecider(decisions))
    try:
        space.run(noting, data)
    except (Rejected, NasError):
        return tuple(decisions)
    return tuple(noting.open)


def parameter_name(name: str, options: Sequence[Option]) -> str:
    """Name a question together with its options, which may differ with other answers."""
    return f"{name}{list(options)}"
