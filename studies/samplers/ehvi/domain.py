"""What the search must be able to do with points, whatever they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

import numpy as np
import numpy.typing as npt

from search_spaces.choose import Option
from studies.samplers.ehvi.answers import Columns
from studies.samplers.ehvi.kernel import Block

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """Something that can be evaluated.

    Attributes:
        key: names it; points with one key are never both paid for.
        decisions: the answers that lead to it.
        open: names of the questions that could be answered otherwise.
        answers: the answers as vectors, by question; see :mod:`studies.samplers.ehvi.answers`.
        graph: what else is known of it without payment, (features,); empty where nothing is.
        known: its objectives that are known without payment, to be made small; NaN for others.
        allowed: whether no constraint is known, without payment, to be violated.
        rejections: how many draws each rule rejected before this one was drawn.
    """

    key: str
    decisions: Mapping[str, Option]
    open: tuple[str, ...]
    answers: Mapping[str, Array]
    graph: Array
    known: Array
    allowed: bool = True
    rejections: Mapping[str, int] = field(default_factory=dict)


class Domain(Protocol):
    """A set of points; the same calls with equal generators give the same points."""

    @property
    def sample_points(self) -> Sequence[Point]:
        """Points drawn at random, the same for a study's seed; what features are scaled by."""
        ...

    @property
    def pace(self) -> int:
        """How many points may be drawn in an ask, so that it stays within 0.1 s or so."""
        ...

    def point(self, decisions: Mapping[str, Option]) -> Point | None:
        """Return the point that answers lead to; None where they are not of the domain."""
        ...

    def sample(self, rng: Random) -> Point:
        """Draw a point.

        Raises:
            SpaceError: every draw was rejected.
        """
        ...

    def change(self, point: Point, rng: Random) -> Point | None:
        """Draw a point near another; None where none was found."""
        ...

    def cross(self, first: Point, second: Point, rng: Random) -> Point | None:
        """Draw a point between two others; None where none was found."""
        ...

    def blocks(self, points: Sequence[Point], columns: Columns) -> list[Block]:
        """Describe points; blocks are always of the same kinds, in the same order.

        Args:
            points: the points.
            columns: of the questions that the points to compare with answered.
        """
        ...


def allowed_sample(domain: Domain, least: int) -> list[Point]:
    """Return the sample points that are not known to violate a constraint; all if those are few.

    Args:
        domain: what points are.
        least: so many are not few.
    """
    allowed = [point for point in domain.sample_points if point.allowed]
    return allowed if len(allowed) >= least else list(domain.sample_points)
