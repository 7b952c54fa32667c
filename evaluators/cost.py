"""What a network costs by arithmetic on its description alone; no module is built."""

from __future__ import annotations

from typing import NamedTuple

from search_spaces.architecture import Architecture

BYTES_PER_ELEMENT = 4
"""float32, for activations and weights."""


class Cost(NamedTuple):
    """Analytic cost of one sample in float32.

    Attributes:
        params: trainable parameters; shared ones count once.
        macs: multiply-accumulates of convolutions and matrix products.
        bytes_moved: every node reads its inputs and weights and writes its output once.
        peak_activation_bytes: most bytes of values alive at one time, in canonical order.
        layers: weight-carrying nodes that the input reaches the output through.
        depth: most weight-carrying nodes on one path.
    """

    params: int
    macs: int
    bytes_moved: int
    peak_activation_bytes: int
    layers: int
    depth: int


def analytic_cost(architecture: Architecture) -> Cost:
    """Return the analytic cost of a network.

    Example:
        >>> net = Architecture.parse("input 1x8x8; conv 4 k3; gap; flatten; linear 10")
        >>> analytic_cost(net)
        Cost(params=86, macs=2344, bytes_moved=2752, peak_activation_bytes=1280, layers=2, depth=2)
    """
    nodes = architecture.nodes
    _, sources, _, facts, ties = zip(*nodes, strict=True)
    _, sizes, read, params, macs, reaches, _ = zip(*facts, strict=True)
    last_use = list(range(len(nodes)))
    for index, inputs in enumerate(sources):
        for source in inputs:
            last_use[source] = index
    alive = peak = 0
    depths: list[int] = []
    for index, (inputs, size, reach) in enumerate(zip(sources, sizes, reaches, strict=True)):
        alive += size
        if alive > peak:
            peak = alive
        depth = 0
        for source in inputs:
            if depths[source] > depth:
                depth = depths[source]
            if last_use[source] == index:
                last_use[source] = -1  # a value read twice by one node ends once
                alive -= sizes[source]
        depths.append(depth + reach.weighted)
    given = sum(node.facts.elements for node in architecture.inputs)  # not written by the network
    shared = sum(n for n, tie in zip(params, ties, strict=True) if tie is not None)
    return Cost(
        params=sum(params) - shared,
        macs=sum(macs),
        bytes_moved=(sum(params) + sum(read) + sum(sizes) - given) * BYTES_PER_ELEMENT,
        peak_activation_bytes=peak * BYTES_PER_ELEMENT,
        layers=sum(reach.weighted for reach in reaches),
        depth=depths[-1],
    )
