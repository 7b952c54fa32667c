"""The sampler around every algorithm: takes the first of its drafts that is a new architecture."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from kernels.errors import NasError
from search_spaces.choose import EnumerateDecider, Option, Rejected
from search_spaces.space import Candidate, DataSpec, Space
from studies.samplers.protocol import Lesson, Proposal, ask_seed

LEAVES = 500
"""Candidates that are walked through in order when all drafts were met before."""
_KEYS = 4096
"""Keys of recent decisions that are kept, so that pending trials are not replayed at every ask."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A candidate that an algorithm would propose.

    Attributes:
        candidate: the candidate.
        kind: how it was made.
        details: what else its origin says, as plain JSON values.
    """

    candidate: Candidate
    kind: str
    details: Mapping[str, Any] = field(default_factory=dict)


class Drafter(Protocol):
    """An algorithm; :class:`DraftingSampler` makes a sampler of it."""

    def learn(self, lesson: Lesson) -> None:
        """Take a lesson into account."""
        ...

    def drafts(
        self, rng: Random, number: int, pending: Sequence[Mapping[str, Option]]
    ) -> Iterator[Draft]:
        """Yield a bounded number of drafts, at least one, the most wanted first.

        Raises:
            SpaceError: every draw was rejected; names the rule.
        """
        ...


def network_key(candidate: Candidate) -> str:
    """Tell candidates apart by their network, whatever answers lead to it."""
    return candidate.architecture.key


class DraftingSampler:
    """See :class:`~studies.samplers.Sampler`; proposes the first draft that was not met before.

    Where all drafts were met, the space is walked through in order for a new one, as far as
    :data:`LEAVES` go; then the first draft is proposed although it is a repeat.
    """

    def __init__(
        self,
        drafter: Drafter,
        space: Space,
        data: DataSpec,
        seed: int,
        identify: Callable[[Candidate], str] = network_key,
    ) -> None:
        self._drafter, self._space, self._data, self._seed = drafter, space, data, seed
        self._identify = identify
        self._told: set[str] = set()
        self._keys: OrderedDict[tuple[tuple[str, Option], ...], str | None] = OrderedDict()
        self._pending: dict[int, tuple[Mapping[str, Option], str | None]] = {}

    def ask(self, number: int, pending: Sequence[Mapping[str, Option]]) -> Proposal:
        """See :class:`~studies.samplers.Sampler`."""
        waiting = self._waiting(pending)

        def is_new(candidate: Candidate) -> bool:
            key = self._identify(candidate)
            return key not in self._told and key not in waiting

        rng = Random(ask_seed(self._seed, number))
        rejections: Counter[str] = Counter()
        drafts = []
        for draft in self._drafter.drafts(rng, number, pending):
            drafts.append(draft)
            rejections.update(draft.candidate.rejections)
            if is_new(draft.candidate):
                found = draft
                break
        else:
            found = self._walk(is_new) or drafts[0]
        candidate = Candidate(
            found.candidate.architecture, found.candidate.decisions, dict(rejections)
        )
        self._remember(candidate.decisions, self._identify(candidate))
        return Proposal(candidate, {"by": "sampler", "kind": found.kind, **found.details})

    def tell(self, lesson: Lesson) -> None:
        """See :class:`~studies.samplers.Sampler`."""
        self._told.add(lesson.key)
        self._drafter.learn(lesson)

    def _walk(self, is_new: Callable[[Candidate], bool]) -> Draft | None:
        decider = EnumerateDecider()
        for _ in range(LEAVES):
            with suppress(Rejected):  # a rejected combination is not in the space
                candidate = self._space.attempt(decider, self._data)
                if is_new(candidate):
                    return Draft(candidate, "enumeration")
            if not decider.advance():
                break
        return None

    def _waiting(self, pending: Sequence[Mapping[str, Option]]) -> set[str | None]:
        """Return the keys of what waits, on a large cluster tens of thousands.

        Those of the last ask are known by identity: to hash the answers of each takes longer.
        """
        known = self._pending
        self._pending = {}
        for decisions in pending:
            entry = known.get(id(decisions))
            if entry is None or entry[0] is not decisions:
                entry = decisions, self._key(decisions)
            self._pending[id(decisions)] = entry
        return {key for _, key in self._pending.values()}

    def _key(self, decisions: Mapping[str, Option]) -> str | None:
        """Return what tells a candidate apart; None for decisions that are not of the space."""
        answers = tuple(decisions.items())
        if answers not in self._keys:
            try:
                key = self._identify(self._space.replay(decisions, self._data))
            except NasError:
                key = None  # a baseline, or of an earlier space: no draft can repeat it
            self._remember(decisions, key)
        return self._keys[answers]

    def _remember(self, decisions: Mapping[str, Option], key: str | None) -> None:
        self._keys[tuple(decisions.items())] = key
        if len(self._keys) > _KEYS:
            self._keys.popitem(last=False)


def random_drafts(space: Space, data: DataSpec, rng: Random, count: int) -> Iterator[Draft]:
    """Yield candidates drawn uniformly over answers."""
    for _ in range(count):
        yield Draft(space.sample(rng, data), "random")
