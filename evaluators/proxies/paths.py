"""Scores of the paths that a signal takes through a network: how much they compute, how direct.

Sums over all layers, such as parameters and 3DRF gain, say how much there is; a path says how it is
arranged. Five figures, by arithmetic on the description alone:

* **local**: ``sum ln(taps * channels)`` over the layers of a path, its mean over all paths, each
  weighted by its share of the signal. A long path whose signal drowns in a shortcut's counts for
  little (Veit et al. 2016: residual networks behave like ensembles of shallow ones). A normalised
  output has power 1, a rectifier passes half of it, a sum adds powers, everything else keeps them.
* **spatial**: ``sum ln(taps)``, weighted in the same way: how far a signal is mixed in space.
* **shortest**: fewest layers, with weights or pooling, between input and output: how direct the way
  of the gradient is.
* **pools**: windows of pooling on a path, the mean over all paths alike: how often detail is given
  up by no choice of a weight.
* **bottlenecks**: values that all paths pass through: how little there is beside the one way.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log
from typing import NamedTuple

from search_spaces.architecture import Architecture
from search_spaces.architecture.node import Node
from search_spaces.blocks import cuts
from search_spaces.ops.base import Reach


class PathScores(NamedTuple):
    """What the paths from the input to the output are like.

    Attributes:
        local: nats of local computation on a path, weighted by signal; -inf where there is none.
        spatial: nats of it that come from the positions of windows.
        shortest: layers on the shortest path; inf where there is none.
        pools: pooling windows on the mean path; inf where there is none.
        bottlenecks: values that every path passes, both ends counted; inf where there is none.
    """

    local: float
    spatial: float
    shortest: float
    pools: float
    bottlenecks: float


DEAD = PathScores(-inf, -inf, inf, inf, inf)


class _State(NamedTuple):
    """Of one node: power of its values, paths that lead there, and the scores up to it."""

    power: float
    paths: int
    local: float
    spatial: float
    shortest: int
    pools: float


def path_scores(architecture: Architecture) -> PathScores:
    """Return what the paths of a network are like.

    Example:
        >>> net = "input 1x8x8; conv 4 k3 bn relu; conv 4 k3 bn; add @1,2; gap; flatten; linear 10"
        >>> path_scores(Architecture.parse(net)).shortest
        2
    """
    if not architecture.live:
        return DEAD
    states: list[_State] = []
    for node in architecture.nodes:
        reach = node.facts.reach
        if len(node.inputs) == 1:
            state = states[node.inputs[0]]
        else:
            state = _joined(node, states, architecture.nodes)
        power, paths, local, spatial, shortest, pools = state
        if reach.weighted:
            local += log(reach.taps * reach.channels)
            spatial += log(reach.taps)
            shortest += 1
        elif _is_pooling(node, reach):
            shortest += 1
            pools += 1
        states.append(_State(_power(node, power), paths, local, spatial, shortest, pools))
    last = states[-1]
    bottlenecks = len(cuts(architecture.nodes))
    return PathScores(last.local, last.spatial, last.shortest, last.pools, bottlenecks)


def _joined(node: Node, states: Sequence[_State], nodes: Sequence[Node]) -> _State:
    """Return the state before an operator that has several inputs, or none."""
    if not node.inputs:
        return _State(1.0, 1, 0.0, 0.0, 0, 0.0)
    sources = [states[item] for item in node.inputs]
    energies = [states[item].power * nodes[item].facts.elements for item in node.inputs]
    energy, paths = sum(energies), sum(item.paths for item in sources)
    weighted = list(zip(energies, sources, strict=True))
    return _State(
        energy / node.facts.elements,
        paths,
        sum(e * item.local for e, item in weighted) / energy,
        sum(e * item.spatial for e, item in weighted) / energy,
        min(item.shortest for item in sources),
        # Divided before they are multiplied: there are more paths than a float can count.
        sum(item.paths / paths * item.pools for item in sources),
    )


_RECTIFIERS = frozenset({"relu", "relu6", "hardswish", "silu", "gelu", "gelu_tanh"})


def _power(node: Node, power: float) -> float:
    """Return the mean square of what a node gives, where ``power`` is that of what it reads."""
    if getattr(node.op, "norm", None) is not None:
        power = 1.0
    return power / 2 if getattr(node.op, "act", None) in _RECTIFIERS else power


def _is_pooling(node: Node, reach: Reach) -> bool:
    return reach.taps > 1 and not reach.everywhere and len(node.shape) == 3
