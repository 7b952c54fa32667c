"""Children of candidates: some answers changed, or the answers of two parents mixed by scope."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random

from search_spaces.choose import Decisions, MutateDecider, Option, Rejected
from search_spaces.space import Candidate, DataSpec, Space

CHANGES = 4
"""Most answers that one mutation changes at first."""
_MORE = 0.35
"""Chance that one more answer is changed."""
_WITHIN = 0.1
"""Chance that a mutation keeps to one scope."""
_MIXES = 20
"""Draws of a crossover that may be rejected."""


def mutate(
    parent: Mapping[str, Option],
    changeable: Sequence[str],
    rng: Random,
    space: Space,
    data: DataSpec,
    *,
    more: int = 0,
) -> Candidate:
    """Change one answer or a few, now and then all within one scope.

    Args:
        parent: its decisions.
        changeable: those of its questions that have several options, at least one.
        rng: where the changes come from.
        space: the space.
        data: what the space must know of the data.
        more: answers to change beyond that.

    Raises:
        SpaceError: every draw was rejected.
    """
    changes, within = pick(changeable, rng)
    return space.mutate(parent, rng, data, within=within, changes=changes + more)


def pick(changeable: Sequence[str], rng: Random) -> tuple[int, str]:
    """Draw how many answers a mutation changes, and the scope it keeps to, empty for none."""
    changes = 1
    while changes < CHANGES and rng.random() < _MORE:
        changes += 1
    scopes = sorted({scope for name in changeable for scope in _scopes(name)})
    return changes, rng.choice(scopes) if scopes and rng.random() < _WITHIN else ""


def cross(
    first: Mapping[str, Option],
    second: Mapping[str, Option],
    rng: Random,
    space: Space,
    data: DataSpec,
) -> Candidate | None:
    """Take the answers of some scopes from the second parent, the others from the first.

    Where a question arises that the parent of its scope did not answer, the other's answer is
    taken; where there is none either, it is answered at random.

    Returns:
        The child; None where a rule rejected every draw.
    """
    rejections: Counter[str] = Counter()
    for _ in range(_MIXES):
        answers = mix(first, second, rng)
        try:
            found = space.attempt(MutateDecider(answers, set(), rng), data)
        except Rejected as rejected:
            rejections[rejected.rule] += 1
            continue
        return Candidate(found.architecture, found.decisions, dict(rejections))
    return None


def mix(first: Mapping[str, Option], second: Mapping[str, Option], rng: Random) -> Decisions:
    """Draw answers of two parents, scope by scope; what one did not answer comes from the other."""
    coarse = rng.random() < 0.5
    taken: dict[str, bool] = {}
    answers = {**second, **first}
    for name in answers:
        unit = _unit(name, coarse=coarse)
        if unit not in taken:
            taken[unit] = rng.random() < 0.5
        if taken[unit] and name in second:
            answers[name] = second[name]
    return answers


def changed(before: Mapping[str, Option], after: Mapping[str, Option]) -> list[str]:
    """Return the names of the answers that are new or differ."""
    return [name for name, answer in after.items() if before.get(name, ...) != answer]


def _unit(name: str, *, coarse: bool) -> str:
    """Return the scope that is inherited whole: the outermost or the innermost, or a question."""
    outer, slash, _ = name.partition("/") if coarse else name.rpartition("/")
    return outer if slash else name


def _scopes(name: str) -> list[str]:
    """Return the scopes a question lies in: ``a/b/kind`` lies in ``a`` and in ``a/b``."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[: end + 1]) for end in range(len(parts))]
