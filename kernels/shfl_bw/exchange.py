"""Rows into groups by exchanges that raise what pruning keeps: our own clustering.

What counts is the sum of the best vectors over the whole matrix. Each round looks at all groups
with their best columns, asks of every row what it would bring to every other group, and exchanges
rows of two groups where both moves together pay. A row makes its own group look good to itself:
its columns are the best partly because it votes for them. So what a row has now is counted over the
columns that the other rows of its group would keep without it. A round that loses is undone and
followed by one with fewer exchanges; from time to time a part of the rows is shuffled.

NumPy, not torch: beside other work the small parallel regions of torch took a hundred times longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Order = npt.NDArray[np.int64]

_SWEEPS = 16  # exchanges of a group in a round: more climbs faster, less is exact for longer
_SETTLED = 1e-3  # relative gain of a round below which a climb goes over to small steps
_SHAKEN = 0.15  # share of the rows that are shuffled before another climb
_EXACT = 1e-6  # relative error of sums in float32
_GONE = np.float32(-1e30)  # gain of a row that moved in this round already


@dataclass(frozen=True, slots=True)
class Standing:
    """An order of rows and what the best vectors under it are worth.

    Attributes:
        order: (groups * v,).
        worth: sum of the kept vectors' importance.
        scores: sums over each vector, (groups, columns).
        kept: 1 for the best vectors, (groups, columns).
        threshold: the lowest score among them.
    """

    order: Order
    worth: float
    scores: Floats
    kept: Floats
    threshold: float


def standing(importance: Floats, order: Order, v: int, vectors: int) -> Standing:
    """Return what an order of rows is worth when ``vectors`` of its vectors are kept.

    Args:
        importance: (groups * v, columns), not negative.
        order: (groups * v,).
        v: rows of a vector.
        vectors: how many are kept, at least 1.
    """
    scores = np.stack([importance[members].sum(0) for members in order.reshape(-1, v)])
    flat = scores.ravel()
    best = np.argpartition(flat, flat.size - vectors)[flat.size - vectors :]
    kept = np.zeros_like(flat)
    kept[best] = 1.0
    worth = float(flat[best].sum(dtype=np.float64))
    return Standing(order, worth, scores, kept.reshape(scores.shape), float(flat[best].min()))


def search(
    importance: Floats,
    v: int,
    vectors: int,
    starts: Sequence[Order],
    *,
    rounds: int,
    enough: float,
    seed: int,
) -> Order:
    """Return the best order found by climbs from some orders and from shuffles of the best.

    Args:
        importance: as for :func:`standing`.
        v: rows of a vector, at least 2.
        vectors: how many are kept.
        starts: orders to begin with; the result is worth no less than any of them.
        rounds: how many rounds to spend in all.
        enough: what no order can be worth more than; the search ends there.
        seed: of the shuffles.
    """
    generator = np.random.default_rng(seed)
    places = [standing(importance, order, v, vectors) for order in starts]
    begin = best = max(places, key=lambda place: place.worth)
    left = rounds
    while left > 0 and best.worth < enough * (1 - _EXACT):
        climbed, used = _climb(importance, begin, v, vectors, left)
        left -= used
        if climbed.worth > best.worth:
            best = climbed
        begin = standing(importance, _shaken(best.order, generator), v, vectors)
    return best.order


def _climb(
    importance: Floats, place: Standing, v: int, vectors: int, rounds: int
) -> tuple[Standing, int]:
    """Exchange rows until no exchange pays; return the best standing and the rounds it took."""
    limit = max(1, len(place.order) // 2)
    for used in range(1, rounds + 1):
        order, count = _exchanged(importance, place, v, limit)
        if not count:
            return place, used
        found = standing(importance, order, v, vectors)
        if found.worth > place.worth:
            settled = found.worth - place.worth < _SETTLED * place.worth
            place = found
            limit = max(1, limit // 4) if settled and limit * 8 > len(order) else limit
        elif count == 1:
            return place, used
        else:
            limit = max(1, min(limit, count) // 4)
    return place, rounds


def _exchanged(importance: Floats, place: Standing, v: int, limit: int) -> tuple[Order, int]:
    """Return the order after at most ``limit`` exchanges that promise a gain, and their number."""
    order = place.order.reshape(-1, v).copy()
    groups = len(order)
    there = importance @ place.kept.T
    without = place.scores - np.float32(place.threshold * (v - 1) / v)
    gains = np.empty((groups, groups, v), np.float32)
    for group, members in enumerate(order):
        panel = importance[members]
        own = np.einsum("vk,vk->v", panel, (panel <= without[group]).astype(np.float32))
        np.subtract(there[members].T, own, out=gains[group])
    gains[np.arange(groups), np.arange(groups)] = _GONE
    least, count = np.float32(1e-6 * place.threshold), 0
    for _ in range(_SWEEPS):
        done = _sweep(order, gains, least, limit - count)
        count += done
        if not done or count >= limit:
            break
    return order.reshape(-1), count


def _sweep(order: Order, gains: Floats, least: np.float32, limit: int) -> int:
    """Exchange at most one row of each group, the best pairs of groups first; return how many.

    Args:
        order: (groups, v); changed in place.
        gains: what moving a row from a group to another brings, (from, to, place); changed too.
        least: a gain that counts.
        limit: most exchanges.
    """
    groups = len(order)
    rows = gains.argmax(2)
    best = np.take_along_axis(gains, rows[:, :, None], 2)[:, :, 0]
    both = np.triu(best + best.T, 1).ravel()
    pairs = np.flatnonzero(both > least)
    pairs = pairs[np.argsort(-both[pairs], kind="stable")]
    free = np.ones(groups, bool)
    count = 0
    for pair in pairs.tolist():
        if count == limit:
            break
        one, other = divmod(pair, groups)
        if free[one] and free[other]:
            free[one] = free[other] = False
            i, j = rows[one, other], rows[other, one]
            order[one, i], order[other, j] = order[other, j], order[one, i]
            gains[one, :, i] = gains[other, :, j] = _GONE
            count += 1
    return count


def _shaken(order: Order, generator: np.random.Generator) -> Order:
    """Return an order in which a part of the rows has changed places."""
    count = max(2, int(_SHAKEN * len(order)))
    places = generator.permutation(len(order))[:count]
    shaken = order.copy()
    shaken[places] = order[generator.permutation(places)]
    return shaken
