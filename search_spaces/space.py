"""A search space: one Python function, and what can be done with it."""

from __future__ import annotations

import contextlib
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Literal

from kernels.errors import NasError
from search_spaces import scope
from search_spaces.architecture import Architecture
from search_spaces.architecture.graph import Value
from search_spaces.choose import (
    Chooser,
    Decider,
    Decisions,
    EnumerateDecider,
    LeftOut,
    MutateDecider,
    Option,
    RandomDecider,
    Rejected,
    ReplayDecider,
)
from search_spaces.errors import ArchitectureError, SpaceError
from search_spaces.ops import Shape
from search_spaces.size import Size, measure_size

RESAMPLES = 1000
"""Draws after which a space that rejects them all is called empty."""


Reads = Literal["images", "text"]


@dataclass(frozen=True, slots=True)
class DataSpec:
    """What a space must know of the data.

    Attributes:
        input_shape: of one sample, without the batch axis: (c, h, w), or (tokens,) of text.
        classes: number of classes; of text, that of the token that follows.
        vocabulary: of text, how many token ids there are; 0 of images.
    """

    input_shape: Shape
    classes: int
    vocabulary: int = 0

    @property
    def kind(self) -> Reads:
        """What the samples are."""
        return "text" if self.vocabulary else "images"


EXAMPLES: Mapping[Reads, DataSpec] = {
    "images": DataSpec((3, 32, 32), 10),
    "text": DataSpec((128,), 65, 65),
}
"""What sizes and speeds of spaces are given for, where no data is named."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A point of a space.

    Attributes:
        architecture: the network.
        decisions: the answers that lead to it.
        rejections: how often each rule rejected a draw before this one.
    """

    architecture: Architecture
    decisions: Decisions
    rejections: Mapping[str, int] = field(default_factory=dict)


SpaceFunction = Callable[..., Value]


@dataclass(frozen=True, slots=True)
class Space:
    """A named, versioned space function ``(choose, data) -> output value``.

    Attributes:
        name: what it is called on the command line and in records.
        version: of the meaning of recorded decisions.
        function: writes the network.
        reads: what its networks read.
        left_out: variants that it does not offer, by the place of a layer: those that do not pay.
        kinds: of variants that it offers; empty for all.

    Example:
        >>> @space("tiny", version=1)
        ... def tiny(choose, data):
        ...     net = NetworkBuilder(data.input_shape)
        ...     x = net.conv(net.input, choose("width", [4, 8]), kernel=3)
        ...     return net.classifier(x, data.classes)
        >>> digits = DataSpec((1, 8, 8), 10)
        >>> str(tiny.size(digits)), [c.decisions for c in tiny.enumerate(digits)]
        ('2 (exact)', [{'width': 4}, {'width': 8}])
    """

    name: str
    version: int
    function: SpaceFunction
    reads: Reads = "images"
    left_out: LeftOut = field(default_factory=dict, compare=False)
    kinds: tuple[str, ...] = ()

    def preset(self, name: str, /, *, version: int | None = None, **settings: Any) -> Space:
        """Return the space under another name, with keyword arguments of its function fixed.

        Args:
            name: the other name.
            version: of the meaning of its decisions, where that is not the space's own.
            settings: the arguments.
        """
        function = partial(self.function, **settings)
        return Space(name, version or self.version, function, self.reads)

    def run(self, decider: Decider, data: DataSpec) -> Candidate:
        """Run the function once.

        Raises:
            Rejected: the answers break a rule of the space.
            ArchitectureError: the function describes an invalid network; names the place.
            SpaceError: the data is not what the space reads, or the function asks a question twice
                or returns no network.
        """
        if data.kind != self.reads:
            raise SpaceError(f"The space {self.name} reads {self.reads}, the data has {data.kind}.")
        chooser = Chooser(decider.decide, left_out=self.left_out, kinds=self.kinds)
        scope.enter("")
        try:
            output = self.function(chooser, data)
        except ArchitectureError as problem:
            raise ArchitectureError(f"{self.name}/{problem}") from None
        finally:
            scope.enter("")
        if not isinstance(output, Value):
            raise SpaceError(f"{self.name} must return the network's output, got {output!r}")
        return Candidate(Architecture.freeze(output), chooser.decisions)

    def attempt(self, decider: Decider, data: DataSpec) -> Candidate:
        """Run the function for a search: answers that make it fail are answers it rejects.

        Raises:
            Rejected: the answers break a rule, describe an invalid network, or make the function
                raise; the rule says which.
            SpaceError: as :meth:`run` says.
        """
        try:
            return self.run(decider, data)
        except ArchitectureError as problem:
            raise Rejected(f"invalid network: {problem}") from problem
        except (Rejected, NasError):
            raise
        except Exception as problem:  # the function is a user's
            last = traceback.extract_tb(problem.__traceback__)[-1]
            place = f"{Path(last.filename).name}, line {last.lineno}"
            raise Rejected(f"{type(problem).__name__} in {place}: {problem}") from problem

    def sample(self, rng: Random, data: DataSpec) -> Candidate:
        """Draw a candidate uniformly over answers, drawing again where a rule rejects it.

        Raises:
            SpaceError: 1,000 draws in a row were rejected; names the rule.
        """
        return self._draw(partial(RandomDecider, rng), data)

    def replay(self, decisions: Mapping[str, Option], data: DataSpec) -> Candidate:
        """Rebuild a recorded candidate.

        Raises:
            SpaceError: the record does not fit the space, or breaks one of its rules.
        """
        try:
            return self.run(ReplayDecider(decisions), data)
        except Rejected as rejected:
            raise SpaceError(f"{self.name} rejects the record: {rejected.rule}") from None

    def mutate(
        self,
        decisions: Mapping[str, Option],
        rng: Random,
        data: DataSpec,
        *,
        within: str = "",
        changes: int = 1,
    ) -> Candidate:
        """Change some answers of a candidate; questions that then arise are answered at random.

        Args:
            decisions: the candidate's record.
            rng: where the changes come from.
            data: what the space must know of the data.
            within: scope that the changes are confined to, such as ``stage1`` or ``stage1/block0``.
            changes: how many answers to change.

        Raises:
            SpaceError: no answer in the scope can change, or every draw was rejected.
        """
        names = [n for n in decisions if not within or n == within or n.startswith(f"{within}/")]
        if not names:
            raise SpaceError(f"{self.name}: no decision lies within {within!r}")

        def decider() -> Decider:
            targets = set(rng.sample(names, min(changes, len(names))))
            return MutateDecider(decisions, targets, rng)

        before = dict(decisions)
        return self._draw(decider, data, accept=lambda found: found.decisions != before)

    def enumerate(self, data: DataSpec) -> Iterator[Candidate]:
        """Yield every valid candidate once, in the order of the options."""
        decider = EnumerateDecider()
        more = True
        while more:
            with contextlib.suppress(Rejected):  # a rejected combination is not in the space
                yield self.run(decider, data)
            more = decider.advance()

    def size(
        self, data: DataSpec, *, limit: int = 100_000, probes: int = 4000, seed: int = 0
    ) -> Size:
        """Count the space by enumeration up to ``limit``, beyond it estimate by random probes.

        See :func:`search_spaces.size.measure_size`.
        """
        return measure_size(
            lambda decider: self.run(decider, data),
            lambda: self.enumerate(data),
            name=self.name,
            limit=limit,
            probes=probes,
            rng=Random(seed),
        )

    def _draw(
        self,
        decider: Callable[[], Decider],
        data: DataSpec,
        accept: Callable[[Candidate], bool] = lambda _: True,
    ) -> Candidate:
        rejections: Counter[str] = Counter()
        for _ in range(RESAMPLES):
            try:
                found = self.attempt(decider(), data)
            except Rejected as rejected:
                rejections[rejected.rule] += 1
                continue
            if accept(found):
                return Candidate(found.architecture, found.decisions, dict(rejections))
            rejections["the answers change"] += 1
        rule, count = rejections.most_common(1)[0]
        raise SpaceError(
            f"{self.name}: {RESAMPLES} draws in a row were rejected, {count} by the rule {rule!r}."
        )


def space(name: str, *, version: int, reads: Reads = "images") -> Callable[[SpaceFunction], Space]:
    """Make a :class:`Space` of a function ``(choose, data) -> output value``.

    Args:
        name: what it is called on the command line and in records.
        version: raise it when the meaning of recorded decisions changes.
        reads: ``images``, or ``text`` as token ids.
    """
    return lambda function: Space(name, version, function, reads)
