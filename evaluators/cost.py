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
        kv_cache_bytes: keys and values that a decoder keeps of a whole input to go on behind it.
        body_params: trainable parameters outside embeddings of tokens and positions; of language
            models a better predictor of the loss than all of them (Kaplan et al. 2020, section
            3.1; Javaheripi et al. 2022).
    """

    params: int
    macs: int
    bytes_moved: int
    peak_activation_bytes: int
    layers: int
    depth: int
    kv_cache_bytes: int
    body_params: int


_EMBEDDINGS = frozenset({"embedding", "unembedding", "positions"})


def analytic_cost(architecture: Architecture) -> Cost:
    """Return the analytic cost of a network.

    Example:
        >>> net = Architecture.parse("input 1x8x8; conv 4 k3; gap; flatten; linear 10")
        >>> analytic_cost(net)[:6]  # params, macs, bytes moved and alive, layers, depth
        (86, 2344, 2752, 1280, 2, 2)
    """
    nodes = architecture.nodes
    ops, sources, _, facts, ties = zip(*nodes, strict=True)
    _, sizes, read, params, macs, reaches, _, weights, cached = zip(*facts, strict=True)
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
    own = [n if tie is None else 0 for n, tie in zip(params, ties, strict=True)]
    embedded = sum(n for n, op in zip(own, ops, strict=True) if op.kind in _EMBEDDINGS)
    return Cost(
        params=sum(own),
        macs=sum(macs),
        bytes_moved=(sum(weights) + sum(read) + sum(sizes) - given) * BYTES_PER_ELEMENT,
        peak_activation_bytes=peak * BYTES_PER_ELEMENT,
        layers=sum(reach.weighted for reach in reaches),
        depth=depths[-1],
        kv_cache_bytes=sum(cached) * BYTES_PER_ELEMENT,
        body_params=sum(own) - embedded,
    )
