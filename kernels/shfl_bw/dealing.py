"""Which block multiplies which output tile, and when; imports no torch.

Groups keep different numbers of columns, and a block runs on until all tiles are done: dealt in turn,
the block that gets the longest groups ends last, 5 to 12 % after the mean. Blocks take the groups of
a few tokens before the next tokens, so that these stay in the L2 cache; among the groups of the
same tokens the longest goes to the block that has least to do so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapreplace

Item = tuple[int, int, int, int]
"""Group | split << 20 | half << 30, first token, first tile, tile behind the last."""

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
    overhead: float,
    halves: bool = False,
) -> list[Item]:
    """Return the items of all workers: each one's first, then each one's second, and so on.

    The last tokens may be taken by halves, where that evens out what workers have to do.

    Args:
        lengths: tiles of 64 kept columns of each group.
        tokens: columns of the input.
        step: tokens that a worker (a block, or a cluster that shares panels) takes at once.
        width: tokens of one block's output tile; of a tile that is half outside half is gathered.
        splits: shares of the kept columns.
        workers: that run side by side.
        overhead: of an item, in tiles.
        halves: whether blocks can take half of their tokens.
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
    last = range(0, tokens, step)[-1:] if tokens else range(0)
    best: tuple[float, list[list[Item]]] | None = None
    for halved in ((), tuple(last)) if halves else ((),):
        hands: list[list[Item]] = [[] for _ in range(workers)]
        loads = [(0.0, worker) for worker in range(workers)]
        for first in range(0, tokens, step):
            parts = 2 if first in halved else 1
            for start in range(first, min(first + step, tokens), step // parts):
                inside = max(0.5, min(1.0 / parts, (tokens - start) / width))
                for begin, end, name in shares:
                    load, worker = loads[0]
                    heapreplace(loads, (load + overhead + inside * (end - begin), worker))
                    hands[worker].append((name | (parts - 1) << 30, start, begin, end))
        if best is None or max(loads)[0] < best[0]:
            best = max(loads)[0], hands
    assert best is not None
    rounds = max(map(len, best[1]))
    return [hand[i] if i < len(hand) else NOTHING for i in range(rounds) for hand in best[1]]
