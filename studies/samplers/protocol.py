"""What every sampler does, and what passes between it and the driver."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Protocol

from kernels.errors import NasError
from search_spaces.choose import Option
from search_spaces.space import Candidate


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a trial was worth.

    Attributes:
        number: of the trial.
        key: of its architecture.
        decisions: the answers that led to it; empty for a network that is not of the space.
        values: one finite figure per objective; None where it failed, or was dropped before they
            were known.
        violations: how far beyond its bound each constraint is, in the unit of its metric; 0 or
            less is satisfied. Constraints that were not looked at are absent.

    Raises:
        NasError: a figure is not finite.
    """

    number: int
    key: str
    decisions: Mapping[str, Option]
    values: tuple[float, ...] | None
    violations: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        figures = (*(self.values or ()), *self.violations.values())
        if not all(map(math.isfinite, figures)):
            raise NasError(
                f"Trial {self.number} teaches {list(figures)}: a sampler learns finite figures "
                "only; tell it as failed instead."
            )

    @property
    def infeasible(self) -> bool:
        """Whether a constraint is known to be violated."""
        return any(value > 0 for value in self.violations.values())


@dataclass(frozen=True, slots=True)
class Proposal:
    """A candidate to try next.

    Attributes:
        candidate: the candidate.
        origin: how it came about, as plain JSON values: ``{"by": "sampler", "kind": ...}``.
    """

    candidate: Candidate
    origin: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Free:
    """What is known of a candidate without paying for it.

    Attributes:
        values: one figure per objective; NaN where it must be paid for.
        allowed: whether no constraint is known to be violated.
    """

    values: tuple[float, ...]
    allowed: bool = True


class Sampler(Protocol):
    """Proposes candidates and learns from what they were worth.

    A proposal is a function of the seed, the number asked for, the lessons told so far in order,
    and the pending decisions: a fresh sampler that is told the record goes on as if never stopped.
    """

    def ask(self, number: int, pending: Sequence[Mapping[str, Option]]) -> Proposal:
        """Propose a candidate, one that was not met before if such a one can be found.

        Args:
            number: of the trial, from 0.
            pending: decisions of the trials that were asked for and not told yet, in order.

        Raises:
            SpaceError: every draw was rejected; names the rule.
        """
        ...

    def tell(self, lesson: Lesson) -> None:
        """Take a trial that ended into account; lessons come in the order of their numbers."""
        ...


def ask_seed(seed: int, number: int) -> int:
    """Return the seed of one ask, below 2**31, from that of the study."""
    digest = blake2b(f"{seed}:{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 2**31
