"""Where the nodes of a network are drawn: layers from top to bottom, joins beside their branches.

The layer of a node is the longest way to it from an input. Within a layer, nodes are ordered by
the mean place of what they read and of what reads them, some sweeps down and up (Sugiyama's
method); an edge that skips layers takes a place in each, so that it runs beside the nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_SWEEPS = 6


@dataclass(frozen=True, slots=True)
class Drawing:
    """Places in units of one node.

    Attributes:
        nodes: (column, layer) of each node, by number; columns may be fractions, from 0.
        edges: for each edge its nodes and the corners it runs through, ends included.
        width: columns in all.
        height: layers in all.
    """

    nodes: tuple[tuple[float, int], ...]
    edges: tuple[tuple[int, int, tuple[tuple[float, int], ...]], ...]
    width: float
    height: int


def draw(inputs: Sequence[Sequence[int]]) -> Drawing:
    """Lay out a graph.

    Args:
        inputs: for each node the numbers of the nodes it reads, all lower than its own.
    """
    layer: list[int] = []
    for sources in inputs:
        layer.append(1 + max((layer[source] for source in sources), default=-1))
    above, below, layers, chains = _with_passages(inputs, layer)
    order = _ordered(layers, above, below)
    place = _placed(order, above, below)
    edges = []
    for (source, target), chain in chains.items():
        items = [source, *chain, target]
        corners = tuple((place[item], layer[source] + step) for step, item in enumerate(items))
        edges.append((source, target, corners))
    return Drawing(
        nodes=tuple((place[number], layer[number]) for number in range(len(inputs))),
        edges=tuple(edges),
        width=max(place.values(), default=0.0) + 1,
        height=len(layers),
    )


_Links = dict[int, list[int]]


def _with_passages(
    inputs: Sequence[Sequence[int]], layer: Sequence[int]
) -> tuple[_Links, _Links, list[list[int]], dict[tuple[int, int], list[int]]]:
    """Cut edges into steps of one layer; passages get numbers after the nodes'."""
    count = len(inputs)
    layers: list[list[int]] = [[] for _ in range(1 + max(layer, default=-1))]
    for number in range(count):
        layers[layer[number]].append(number)
    above: _Links = {number: [] for number in range(count)}
    below: _Links = {number: [] for number in range(count)}
    chains: dict[tuple[int, int], list[int]] = {}
    for target, sources in enumerate(inputs):
        for source in dict.fromkeys(sources):
            chain = []
            last = source
            for level in range(layer[source] + 1, layer[target]):
                passage = len(above)
                above[passage], below[passage] = [last], []
                below[last].append(passage)
                layers[level].append(passage)
                chain.append(passage)
                last = passage
            above[target].append(last)
            below[last].append(target)
            chains[source, target] = chain
    return above, below, layers, chains


def _ordered(layers: list[list[int]], above: _Links, below: _Links) -> list[list[int]]:
    order = [list(items) for items in layers]
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        links = above if down else below
        levels = range(1, len(order)) if down else range(len(order) - 2, -1, -1)
        for level in levels:
            beside = order[level - 1 if down else level + 1]
            rank = {item: place for place, item in enumerate(beside)}
            order[level].sort(key=lambda item: _mean([rank[n] for n in links[item] if n in rank]))
    return order


def _placed(order: list[list[int]], above: _Links, below: _Links) -> dict[int, float]:
    """Give columns: each as near to its neighbours' mean as one step of distance allows."""
    place = {item: float(at) for items in order for at, item in enumerate(items)}
    for sweep in range(_SWEEPS):
        links = above if sweep % 2 == 0 else below
        for items in order if sweep % 2 == 0 else reversed(order):
            wanted = [_mean([place[n] for n in links[item]], place[item]) for item in items]
            place.update(zip(items, _apart(wanted), strict=True))
    least = min(place.values(), default=0.0)
    return {item: round(at - least, 3) for item, at in place.items()}


def _apart(wanted: Sequence[float]) -> list[float]:
    """Return places at least 1 apart, in order, least squares from those wanted."""
    blocks: list[tuple[float, int]] = []  # (mean of wanted minus position in block, size)
    for at in wanted:
        mean, size = at, 1
        while blocks and blocks[-1][0] + blocks[-1][1] > mean:
            before, length = blocks.pop()
            mean = (before * length + (mean - length) * size) / (length + size)
            size += length
        blocks.append((mean, size))
    return [mean + step for mean, size in blocks for step in range(size)]


def _mean(values: Sequence[float], default: float = 0.0) -> float:
    return sum(values) / len(values) if values else default
