"""The search from ask to ask: when parameters are found anew, and which points could be next."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from random import Random

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from studies.metrics import Direction
from studies.samplers.ehvi.answers import columns_of
from studies.samplers.ehvi.design import order_by_news
from studies.samplers.ehvi.domain import Domain, Point, allowed_sample
from studies.samplers.ehvi.memory import FIRST, Memory, Moment
from studies.samplers.ehvi.model import Found, Known, Outlook, find_parameters
from studies.samplers.ehvi.pool import GENERATION, climb, generation
from studies.samplers.protocol import Lesson, ask_seed

Array = npt.NDArray[np.float64]

_DESIGN = 100
"""Points of the design; more than the first lessons where many are in evaluation at a time."""
_GROWTH = 1.05
"""By how much lessons grow in number before parameters are found anew."""
_GENERATIONS = 2
_KEPT = 200
"""Points of a generation that are worth most when it is made; the others are dropped."""
_STEPS = 2
"""How often the best of the pool are changed to find better ones."""
_STARTS = 6
"""How many of the best are."""
_RANKED = 50
"""Points that an ask names."""


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()  # looks through all that is loaded: once is enough


def _one_thread() -> AbstractContextManager[object]:
    """Keep linear algebra to one thread.

    Its matrices are small. Where workers keep the cores busy, several threads wait for one another
    and an ask takes 10 to 40 times as long.
    """
    return _libraries().limit(limits=1, user_api="blas")  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class _Birth:
    """When a generation is made.

    Attributes:
        moment: what there is then.
        fitted: when parameters had been found last; None where they had not been.
    """

    moment: Moment
    fitted: Moment | None


class Search:
    """Learns lessons and says which points are worth most.

    What it says follows from the seed, the lessons in their order, and the points that wait.

    Args:
        domain: what points are.
        directions: of the objectives.
        constraints: their texts.
        seed: of the study.
    """

    def __init__(
        self,
        domain: Domain,
        *,
        directions: Sequence[Direction],
        constraints: Sequence[str],
        seed: int,
    ) -> None:
        self._domain, self._seed = domain, seed
        self._memory = Memory(domain, directions, constraints)
        self._design: list[Point] | None = None
        self._next_fit = FIRST
        self._fitted: Moment | None = None
        self._parameters: dict[int, dict[str, Found]] = {}
        self._births: list[_Birth] = []
        self._pools: dict[int, list[Point]] = {}

    def learn(self, lesson: Lesson) -> None:
        """Take a lesson into account.

        Raises:
            NasError: it does not fit the study.
        """
        if not self._memory.add(lesson):
            return
        count = self._memory.count
        if count >= self._next_fit:
            self._fitted = self._memory.moment()
            self._next_fit = max(count + 1, math.ceil(_GROWTH * count))
        if count % GENERATION == 0 or count == FIRST:
            birth = _Birth(self._memory.moment(), self._fitted)
            self._births = [*self._births, birth][-_GENERATIONS:]

    def met(self, key: str) -> bool:
        """Tell whether a point of that key was evaluated, or tried."""
        return self._memory.met(key)

    def points(self, number: int, pending: Sequence[Point]) -> Iterator[tuple[str, Point]]:
        """Yield new points, those worth most first, each with how it was found.

        Args:
            number: of the trial.
            pending: points in evaluation.
        """
        waiting = {point.key for point in pending}

        def is_new(point: Point) -> bool:
            return not self._memory.met(point.key) and point.key not in waiting

        with _one_thread():
            known = self._memory.known(self._memory.moment())
            if len(known.points) < FIRST:
                found = [("design", point) for point in self._designed() if is_new(point)]
            else:
                found = self._judged(number, known, pending, is_new)
        yield from found

    def _judged(
        self,
        number: int,
        known: Known,
        pending: Sequence[Point],
        is_new: Callable[[Point], bool],
    ) -> list[tuple[str, Point]]:
        self._refresh()
        found = {point.key: point for pool in self._pools.values() for point in pool}
        points = [point for point in found.values() if is_new(point)]
        if not points:
            return []
        outlook = Outlook(self._domain, self._parameters_of(self._fitted), known, pending)
        worth = outlook.worth(points)
        rng = Random(ask_seed(self._seed, number))
        kinds = ["pool"] * len(points)
        for _ in range(_STEPS):
            best = np.argsort(-worth, kind="stable")[:_STARTS]
            more = climb(
                self._domain,
                [points[place] for place in best],
                rng,
                lambda point: is_new(point) and point.key not in found,
            )
            if not more:
                break
            found.update((point.key, point) for point in more)
            points += more
            kinds += ["climb"] * len(more)
            worth = np.concatenate([worth, outlook.worth(more)])
        ranked = np.argsort(-worth, kind="stable")[:_RANKED]
        return [(kinds[place], points[place]) for place in ranked]

    def _refresh(self) -> None:
        """Find parameters and make pools where new moments came."""
        moments = [self._fitted, *(birth.fitted for birth in self._births)]
        self._parameters = {
            moment.count: self._parameters[moment.count]
            if moment.count in self._parameters
            else find_parameters(self._domain, self._memory.known(moment))
            for moment in moments
            if moment is not None
        }
        self._pools = {
            birth.moment.count: self._pools[birth.moment.count]
            if birth.moment.count in self._pools
            else self._born(birth)
            for birth in self._births
        }

    def _parameters_of(self, fitted: Moment | None) -> dict[str, Found]:
        return {} if fitted is None else self._parameters[fitted.count]

    def _born(self, birth: _Birth) -> list[Point]:
        """Return the points of a generation that are worth most by what is known at its birth."""
        moment = birth.moment
        made = generation(self._domain, moment.count, self._memory.parents(moment), self._seed)
        known = self._memory.known(moment)
        seen = {point.key for point in known.points}
        points = [point for point in made if point.key not in seen]
        if len(points) <= _KEPT:
            return points
        outlook = Outlook(self._domain, self._parameters_of(birth.fitted), known, [])
        best = np.argsort(-outlook.worth(points), kind="stable")[:_KEPT]
        return [points[place] for place in np.sort(best)]

    def _designed(self) -> list[Point]:
        if self._design is None:
            points = allowed_sample(self._domain, FIRST)
            columns = columns_of(point.answers for point in points)
            order = order_by_news(self._domain.blocks(points, columns), _DESIGN)
            self._design = [points[place] for place in order]
        return self._design
