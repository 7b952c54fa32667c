"""Which block multiplies which output tile, and when; imports no torch.

Groups keep different numbers of columns, and a block runs on until all tiles are done: dealt in
turn, the block that gets the longest groups ends last, 3 to 12 % later than it had to. Blocks take
the groups of a few tokens before the next tokens, so that these stay in the L2 cache; among the
groups of the same tokens the longest goes to the block that has least to do so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapreplace

Item = tuple[int, int, int, int]
"""Group | split << 20, first token, first tile, tile behind the last."""

_FEW = 12  # items of a worker; of more, the order they were dealt in matters little
_EXCHANGES = 48
_PARTNERS = 32  # of all workers, with whom an exchange is looked for

_OVERHEAD = 1.5  # of an output tile, in tiles of 64 kept columns; measured 1.2 to 1.7

NOTHING: Item = (-1, 0, 0, 0)
"""Behind a block's last item."""


def deal(
    lengths: Sequence[int],
    tokens: int,
    *,
    step: int,
    width: int,
    splits: int,
    workers: int,
    overhead: float = _OVERHEAD,
) -> list[Item]:
    """Return the items of all workers: each one's first, then each one's second, and so on.

    Args:
        lengths: tiles of 64 kept columns of each group.
        tokens: columns of the input.
        step: tokens that a worker (a block, or a cluster that shares panels) takes at once.
        width: tokens of one block's output tile; of a tile that is half outside half is gathered.
        splits: shares of the kept columns.
        workers: that run side by side.
        overhead: of an item, in tiles.
    """
    begins = [0]
    for length in lengths:
        begins.append(begins[-1] + length)
    shares = [
        (begins[g] + n * s // splits, begins[g] + n * (s + 1) // splits, g | s << 20)
        for g, n in enumerate(lengths)
        for s in range(splits)
    ]
    shares.sort(key=lambda share: share[0] - share[1])
    hands = [_Hand() for _ in range(workers)]
    loads = [(0.0, worker) for worker in range(workers)]
    for first in range(0, tokens, step):
        inside = max(0.5, min(1.0, (tokens - first) / width))
        for begin, end, name in shares:
            load, worker = loads[0]
            cost = overhead + inside * (end - begin)
            heapreplace(loads, (load + cost, worker))
            hands[worker].add((name, first, begin, end), cost)
    if len(shares) * len(range(0, tokens, step)) <= _FEW * workers:
        _even_out(hands)
    rounds = max(len(hand.items) for hand in hands)
    return [
        hand.items[i] if i < len(hand.items) else NOTHING for i in range(rounds) for hand in hands
    ]


class _Hand:
    """What a worker was dealt, and what it costs."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.costs: list[float] = []
        self.load = 0.0

    def add(self, item: Item, cost: float) -> None:
        self.items.append(item)
        self.costs.append(cost)
        self.load += cost


def _even_out(hands: list[_Hand]) -> None:
    """Let the worker that has most to do exchange items of the same tokens with others."""
    for _ in range(_EXCHANGES):
        hands_by_load = sorted(hands, key=lambda hand: hand.load)
        most = hands_by_load[-1]
        found = (most.load - 1e-6, most, 0, 0)
        wanted = {item[1] for item in most.items}
        for other in hands_by_load[: -1 : 1 + len(hands) // _PARTNERS]:
            for j, theirs in enumerate(other.items):
                if theirs[1] not in wanted:
                    continue
                for i, mine in enumerate(most.items):
                    less = most.costs[i] - other.costs[j]
                    after = max(most.load - less, other.load + less)
                    if mine[1] == theirs[1] and after < found[0]:
                        found = after, other, i, j
        _, other, i, j = found
        if other is most:
            return
        less = most.costs[i] - other.costs[j]
        most.items[i], other.items[j] = other.items[j], most.items[i]
        most.costs[i], other.costs[j] = other.costs[j], most.costs[i]
        most.load, other.load = most.load - less, other.load + less
