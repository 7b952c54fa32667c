"""The lessons a sampler looks at: those of the front and the newest, never more."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kernels.errors import NasError
from studies.metrics import Direction
from studies.samplers.protocol import Lesson
from studies.samplers.ranking import Rows, crowding

NEWEST = 2000
"""Newest lessons that samplers look at."""
FRONT = 500
"""Older lessons of the front that they look at besides."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A lesson with its place.

    Attributes:
        order: how many were kept before it.
        lesson: the lesson.
        row: its values, signed so that small is good; None where it has none.
    """

    order: int
    lesson: Lesson
    row: Rows | None


class Window:
    """Keeps what can be learned from, each architecture once.

    A lesson is kept when it has values, or is known to violate a constraint.

    Args:
        directions: of the objectives.
        constraints: their texts.
        newest: how many of the newest lessons to keep.
        front: how many older lessons of the front to keep, those with most room around them.
    """

    def __init__(
        self,
        directions: Sequence[Direction],
        constraints: Sequence[str],
        *,
        newest: int = NEWEST,
        front: int = FRONT,
    ) -> None:
        self._signs = np.array([1.0 if item == "min" else -1.0 for item in directions])
        self._scales = dict.fromkeys(constraints, 0.0)
        self._newest: deque[Entry] = deque(maxlen=newest)
        self._limit = front
        self._front: list[Entry] = []
        self._front_rows: Rows = np.empty((0, len(directions)))
        self._keys: set[str] = set()
        self._entries: list[Entry] | None = None

    @property
    def count(self) -> int:
        """How many lessons were kept so far, those that have left the window included."""
        return len(self._keys)

    def add(self, lesson: Lesson) -> Entry | None:
        """Take in a lesson; return None where it teaches nothing.

        Raises:
            NasError: it has another number of values than there are objectives, or names a
                constraint that is none of the study's.
        """
        self._check(lesson)
        if lesson.key in self._keys or (lesson.values is None and not lesson.infeasible):
            return None
        row = None if lesson.values is None else self._signs * np.array(lesson.values, dtype=float)
        entry = Entry(len(self._keys), lesson, row)
        self._keys.add(lesson.key)
        self._newest.append(entry)
        self._entries = None
        for text, value in lesson.violations.items():
            if value > self._scales[text]:
                # NOTE: a power of two, so that it changes, and what was scaled by it, seldom.
                self._scales[text] = float(2.0 ** np.ceil(np.log2(value)))
        if row is not None and not lesson.infeasible:
            self._to_front(entry, row)
        return entry

    def entries(self) -> list[Entry]:
        """Return the lessons in the window, in the order they were told."""
        if self._entries is None:
            oldest = self._newest[0].order if self._newest else 0
            older = [entry for entry in self._front if entry.order < oldest]
            if len(older) > self._limit:
                room = crowding(np.array([entry.row for entry in older]))
                kept = np.sort(np.argsort(-room, kind="stable")[: self._limit])
                older = [older[index] for index in kept]
            self._entries = [*older, *self._newest]
        return self._entries

    @property
    def scales(self) -> tuple[float, ...]:
        """Of each constraint, what its violations are divided by so that they can be added."""
        return tuple(scale or 1.0 for scale in self._scales.values())

    def scaled(self, lesson: Lesson) -> dict[str, float]:
        """Return the violations as shares of the largest so far; 0 for what is not known."""
        pairs = zip(self._scales, self.scales, strict=True)
        return {text: lesson.violations.get(text, 0.0) / scale for text, scale in pairs}

    def violation(self, lesson: Lesson) -> float:
        """Return all violations in one number; 0 for a feasible lesson."""
        return sum(value for value in self.scaled(lesson).values() if value > 0)

    def _check(self, lesson: Lesson) -> None:
        if lesson.values is not None and len(lesson.values) != len(self._signs):
            raise NasError(
                f"Trial {lesson.number} has {len(lesson.values)} values; the study has "
                f"{len(self._signs)} objectives."
            )
        for text in lesson.violations:
            if text not in self._scales:
                raise NasError(
                    f"Trial {lesson.number} was held against {text!r}; the study's constraints "
                    f"are {list(self._scales)}."
                )

    def _to_front(self, entry: Entry, row: Rows) -> None:
        if (self._front_rows <= row).all(axis=1).any():
            return
        kept: npt.NDArray[np.bool_] = np.logical_not((self._front_rows >= row).all(axis=1))
        if not kept.all():
            self._front = [item for item, keep in zip(self._front, kept, strict=True) if keep]
        self._front.append(entry)
        self._front_rows = np.vstack([self._front_rows[kept], row])
