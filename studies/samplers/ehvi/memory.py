"""What lessons leave behind: those the search still looks at, as figures of points."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import moocore
import numpy as np
import numpy.typing as npt

from studies.metrics import Direction
from studies.samplers.ehvi.domain import Domain, Point, allowed_sample
from studies.samplers.ehvi.model import Known
from studies.samplers.ehvi.scale import Scale
from studies.samplers.protocol import Lesson
from studies.samplers.ranking import best, crowding
from studies.samplers.window import Entry, Window

Array = npt.NDArray[np.float64]

FIRST = 10
"""Lessons whose values give the scale of the objectives."""
_LESSONS, _BEST, _NEWEST = 300, 150, 50
"""Lessons looked at: so many of the best, so many of the newest, the rest of all times."""
_FAILURES = 50
"""Newest failures looked at besides."""
_PARENTS, _FEW = 40, 8
"""Most points to breed from, where some are feasible and where none are."""
_SPARE = 2000
"""Points outside the window that are kept."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What there was at one moment.

    Attributes:
        count: how many lessons had been kept.
        entries: those in the window.
        failures: the newest that failed.
        scales: of each constraint, what its violations are divided by.
        first: (k, objectives), figures of the first lessons that have some.
    """

    count: int
    entries: Sequence[Entry]
    failures: Sequence[Lesson]
    scales: Mapping[str, float]
    first: Sequence[Array]

    def violation(self, lesson: Lesson) -> float:
        """Return all violations in one number; 0 for a feasible lesson."""
        figures = ((text, max(value, 0.0)) for text, value in lesson.violations.items())
        return sum(value / self.scales[text] for text, value in figures)


class Memory:
    """Keeps lessons.

    Args:
        domain: what points are.
        directions: of the objectives.
        constraints: their texts.
    """

    def __init__(
        self, domain: Domain, directions: Sequence[Direction], constraints: Sequence[str]
    ) -> None:
        self._domain = domain
        self._window = Window(directions, constraints)
        self._objectives, self._constraints = len(directions), tuple(constraints)
        self._first: list[Array] = []
        self._failures: deque[Lesson] = deque(maxlen=_FAILURES)
        self._points: dict[str, Point | None] = {}
        self._met: set[str] = set()

    @property
    def count(self) -> int:
        """How many lessons were kept."""
        return self._window.count

    def met(self, key: str) -> bool:
        """Tell whether a point of that key was evaluated, or tried."""
        return key in self._met

    def add(self, lesson: Lesson) -> bool:
        """Take in a lesson; return whether it was kept, which repeats and failures are not.

        Raises:
            NasError: it does not fit the study.
        """
        entry = self._window.add(lesson)
        repeat = lesson.key in self._met
        self._met.add(lesson.key)
        if entry is None:
            if lesson.values is None and not repeat:
                self._failures.append(lesson)
            return False
        if entry.row is not None and len(self._first) < FIRST:
            self._first.append(entry.row)
        return True

    def moment(self) -> Moment:
        """Return what there is now; it stays as it is."""
        scales = dict(zip(self._constraints, self._window.scales, strict=True))
        window, failures = self._window.entries(), tuple(self._failures)
        return Moment(self.count, window, failures, scales, tuple(self._first))

    def known(self, moment: Moment) -> Known:
        """Return what the lessons of a moment say."""
        entries = self._select(moment)
        lessons = [*(entry.lesson for entry in entries), *moment.failures]
        rows = [entry.row for entry in entries] + [None] * len(moment.failures)
        told = [
            (point, lesson, row)
            for lesson, row in zip(lessons, rows, strict=True)
            if (point := self._point(lesson)) is not None
        ]
        nothing = np.full(self._objectives, np.nan)
        values = np.array([nothing if row is None else row for _, _, row in told])
        failed = {id(lesson) for lesson in moment.failures}
        violations: dict[str, Array] = {
            text: np.array([lesson.violations.get(text, np.nan) for _, lesson, _ in told]) / scale
            for text, scale in moment.scales.items()
        }
        violations[""] = np.array(
            [
                1.0 if id(lesson) in failed else np.nan if row is None else -1.0
                for _, lesson, row in told
            ]
        )
        scale = self._scale([entry.row for entry in entries if entry.row is not None], moment)
        points = [point for point, _, _ in told]
        return Known(points, values.reshape(-1, self._objectives), violations, scale)

    def parents(self, moment: Moment) -> list[Point]:
        """Return points of a moment to breed from: those of the front that are of interest.

        Where nothing keeps the constraints, those that violate them least.
        """
        entries = [item for item in moment.entries if self._point(item.lesson) is not None]
        kept = [item for item in entries if item.row is not None and not item.lesson.infeasible]
        scale = self._scale([item.row for item in kept if item.row is not None], moment)
        if scale is None:
            kept = [entries[place] for place in self._ranked(entries, moment, _FEW)]
        else:
            rows = scale.apply(np.array([item.row for item in kept]))
            front = np.asarray(moocore.is_nondominated(rows), dtype=bool)
            useful = front & (rows < scale.reference).all(axis=1)
            chosen = np.flatnonzero(useful if useful.any() else front)
            if len(chosen) > _PARENTS:
                room = np.argsort(-crowding(rows[chosen]), kind="stable")
                chosen = np.sort(chosen[room[:_PARENTS]])
            kept = [kept[place] for place in chosen]
        points = (self._point(item.lesson) for item in kept)
        return [point for point in points if point is not None]

    def _select(self, moment: Moment) -> Sequence[Entry]:
        entries = moment.entries
        if len(entries) <= _LESSONS:
            return entries
        kept = set(self._ranked(entries, moment, _BEST))
        kept.update(range(len(entries) - _NEWEST, len(entries)))
        others = [place for place in range(len(entries)) if place not in kept]
        spread = np.linspace(0, len(others) - 1, _LESSONS - len(kept)).astype(int)
        kept.update(others[place] for place in spread)
        return [entries[place] for place in sorted(kept)]

    def _ranked(self, entries: Sequence[Entry], moment: Moment, count: int) -> list[int]:
        unknown = np.full(self._objectives, np.inf)
        rows = [unknown if entry.row is None else entry.row for entry in entries]
        violations = [moment.violation(entry.lesson) for entry in entries]
        values = np.array(rows).reshape(len(rows), self._objectives)
        return best(values, np.array(violations), count)

    def _scale(self, rows: Sequence[Array], moment: Moment) -> Scale | None:
        return Scale.of(np.array(rows), self._sample(moment)) if rows else None

    def _sample(self, moment: Moment) -> Array:
        """Return figures of points that were not chosen for being good, (n, objectives).

        NaN where one is not known. Objectives that are free are known of many points; of others
        there are the first lessons.
        """
        free = self._free
        paid = np.where(np.isfinite(free).all(axis=0), np.nan, np.array(moment.first))
        return np.vstack([free, paid])

    @cached_property
    def _free(self) -> Array:
        return np.array([point.known for point in allowed_sample(self._domain, FIRST)])

    def _point(self, lesson: Lesson) -> Point | None:
        if lesson.key not in self._points:
            if len(self._points) > len(self._window.entries()) + _SPARE:
                self._points = {}
            self._points[lesson.key] = self._domain.point(lesson.decisions)
        return self._points[lesson.key]
