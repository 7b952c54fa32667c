"""The candidates of a search space as points."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import starmap
from random import Random

import numpy as np
import numpy.typing as npt

from kernels.errors import NasError
from search_spaces.choose import (
    Decider,
    MutateDecider,
    Option,
    RandomDecider,
    Rejected,
    ReplayDecider,
)
from search_spaces.space import Candidate, DataSpec, Space
from studies.metrics import Direction
from studies.samplers import breeding
from studies.samplers.ehvi.answers import Columns, encode, stack
from studies.samplers.ehvi.domain import Point
from studies.samplers.ehvi.graph import COUNTS, FIGURES, SCORES, graph_features
from studies.samplers.ehvi.kernel import Block
from studies.samplers.ehvi.runs import Question, Runs
from studies.samplers.ehvi.standing import Standing
from studies.samplers.protocol import Free, ask_seed
from studies.samplers.questions import parameter_name

Array = npt.NDArray[np.float64]
Ask = Callable[[Candidate], Free]
"""Says what is known of a candidate without payment."""
Identify = Callable[[Candidate], str]
"""Returns what tells a candidate from others."""

SAMPLE = 300
"""Candidates that features are scaled by; a study's first are chosen among them."""
_NODES = 2500
"""Nodes of candidates that may be built in an ask; NAS-Bench-201's of 100 nodes take 2 ms."""
_TRIES = 20
_LEAST = 1e-9


class SpaceDomain:
    """See :class:`~studies.samplers.ehvi.domain.Domain`.

    Args:
        space: the space.
        data: what it must know of the data.
        directions: of the objectives.
        seed: of the study.
        identify: what tells candidates apart.
        free: see :data:`Ask`; where None, nothing is known.
    """

    def __init__(
        self,
        space: Space,
        data: DataSpec,
        *,
        directions: Sequence[Direction],
        seed: int,
        identify: Identify,
        free: Ask | None,
    ) -> None:
        self._space, self._data, self._seed = space, data, seed
        self._identify, self._free = identify, free
        self._signs = np.array([1.0 if item == "min" else -1.0 for item in directions])
        self._runs = Runs(space, data, self._describe)
        self._encoded: dict[tuple[str, int], Array] = {}

    @cached_property
    def sample_points(self) -> list[Point]:
        """See :class:`~studies.samplers.ehvi.domain.Domain`."""
        rng = Random(ask_seed(self._seed, -1))
        drawn = [self.sample(rng) for _ in range(SAMPLE)]
        return list({point.key: point for point in drawn}.values())

    @cached_property
    def pace(self) -> int:
        """See :class:`~studies.samplers.ehvi.domain.Domain`."""
        return max(int(_NODES / self._usual.nodes), 8)

    @cached_property
    def _usual(self) -> _Usual:
        return _Usual.of(self.sample_points)

    def point(self, decisions: Mapping[str, Option]) -> Point | None:
        """See :class:`~studies.samplers.ehvi.domain.Domain`."""
        try:
            return self._runs.run(ReplayDecider(decisions))
        except (Rejected, NasError):
            return None

    def sample(self, rng: Random) -> Point:
        """See :class:`~studies.samplers.ehvi.domain.Domain`."""
        found = self._draw(lambda: RandomDecider(rng))
        if found is not None:
            return found
        candidate = self._space.sample(rng, self._data)
        point = self._runs.run(ReplayDecider(candidate.decisions))
        return replace(point, rejections=candidate.rejections)

    def change(self, point: Point, rng: Random) -> Point | None:
        """See :class:`~studies.samplers.ehvi.domain.Domain`."""
        if not point.open:
            return None

        def decider() -> Decider:
            changes, within = breeding.pick(point.open, rng)
            names = [name for name in point.open if not within or name.startswith(f"{within}/")]
            targets = set(rng.sample(names, min(changes, len(names))))
            return MutateDecider(point.decisions, targets, rng)

        return self._draw(decider)

    def cross(self, first: Point, second: Point, rng: Random) -> Point | None:
        """See :class:`~studies.samplers.ehvi.domain.Domain`."""
        return self._draw(
            lambda: MutateDecider(breeding.mix(first.decisions, second.decisions, rng), set(), rng)
        )

    def blocks(self, points: Sequence[Point], columns: Columns) -> list[Block]:
        """See :class:`~studies.samplers.ehvi.domain.Domain`."""
        usual = self._usual
        answers, lengths = stack([point.answers for point in points], columns)
        graph = np.array([point.graph for point in points])
        figures = (graph[:, FIGURES] - usual.centre)[:, usual.varied] / usual.spread[usual.varied]
        blocks = [
            Block(answers / np.sqrt(usual.questions), lengths / usual.questions, np.ones(1), True)
        ]
        if len(usual.varied):  # variants of a model may all cost the same
            blocks.append(Block.apart(figures, 0.05, linear=True))
        blocks.append(Block.of((graph[:, COUNTS] - usual.usual_counts) / usual.counts, 0.5))
        if usual.standing.spread:  # and stand alike
            scores = graph[:, SCORES]
            joint = usual.standing.joint(scores)[:, None]
            blocks.append(Block.apart(joint, 0.05, linear=True))
            blocks.append(Block.apart(usual.standing.shares(scores), 0.05, linear=True))
        return blocks

    def _draw(self, decider: Callable[[], Decider]) -> Point | None:
        rejections: Counter[str] = Counter()
        for _ in range(_TRIES):
            try:
                found = self._runs.run(decider())
            except Rejected as rejected:
                rejections[rejected.rule] += 1
                continue
            return replace(found, rejections=dict(rejections)) if rejections else found
        return None

    def _describe(
        self, candidate: Candidate, asked: Sequence[Question], positions: Sequence[int]
    ) -> Point:
        opens = [
            (name, options, position)
            for (name, options), position in zip(asked, positions, strict=True)
            if len(options) > 1
        ]
        nothing = Free((np.nan,) * len(self._signs))
        free = nothing if self._free is None else self._free(candidate)
        return Point(
            key=self._identify(candidate),
            decisions=candidate.decisions,
            open=tuple(name for name, _, _ in opens),
            answers=dict(starmap(self._answer, opens)),
            graph=graph_features(candidate.architecture),
            known=self._signs * np.array(free.values, dtype=float),
            allowed=free.allowed,
        )

    def _answer(self, name: str, options: Sequence[Option], position: int) -> tuple[str, Array]:
        parameter = parameter_name(name, options)
        vector = self._encoded.get((parameter, position))
        if vector is None:
            vector = self._encoded[parameter, position] = encode(position, options)
        return parameter, vector


def _varied(figures: Array) -> npt.NDArray[np.intp]:
    kept: list[int] = []
    seen: list[Array] = []
    for position, column in enumerate(figures.T):
        spread = column.std()
        if spread <= _LEAST:
            continue
        scaled = (column - column.mean()) / spread
        if not any(np.allclose(scaled, other, atol=1e-6) for other in seen):
            kept.append(position)
            seen.append(scaled)
    return np.array(kept, dtype=np.intp)


@dataclass(frozen=True, slots=True)
class _Usual:
    """What is usual among points, so that features can be scaled.

    Attributes:
        questions: answered by a point.
        nodes: of a candidate.
        centre: mean of each cost and score.
        spread: its deviation.
        varied: positions of the costs and scores that are not the same everywhere; of those that
            say the same, as all and the body's parameters of a network of convolutions, the first.
        usual_counts: mean of each neighbourhood's count.
        counts: deviation of all these together.
        standing: what candidates are ranked among.
    """

    questions: float
    nodes: float
    centre: Array
    spread: Array
    varied: npt.NDArray[np.intp]
    usual_counts: Array
    counts: float
    standing: Standing

    @classmethod
    def of(cls, points: Sequence[Point]) -> _Usual:
        """Look at points drawn at random, at least one."""
        rows = np.array([point.graph for point in points])
        figures, counts = rows[:, FIGURES], rows[:, COUNTS]
        return cls(
            questions=max(float(np.mean([len(point.answers) for point in points])), 1.0),
            nodes=float(np.expm1(counts).sum(axis=1).mean()),  # each is counted once
            centre=figures.mean(axis=0),
            spread=figures.std(axis=0),
            varied=_varied(figures),
            usual_counts=counts.mean(axis=0),
            counts=float(np.sqrt(counts.var(axis=0).sum())) or 1.0,
            standing=Standing.of(rows[:, SCORES]),
        )
