"""What an architecture says about itself without being run: costs, scores, neighbourhoods."""

from __future__ import annotations

import math
from collections import Counter
from functools import lru_cache
from hashlib import blake2b
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from evaluators.analytic import described
from evaluators.cost import Cost
from evaluators.proxies.fusion import DESCRIPTION
from search_spaces.architecture import Architecture

Array = npt.NDArray[np.float64]

_FIGURES = len(Cost._fields) + 8
FIGURES = slice(0, _FIGURES)
"""Which of the features are costs and scores."""
SCORES = slice(_FIGURES, _FIGURES + len(DESCRIPTION))
"""Which are those scores that the joint ranking by the description joins; more is better."""
COUNTS = slice(_FIGURES + len(DESCRIPTION), None)
"""Which count neighbourhoods."""
_MOST_PATHS = 1e300
"""Deep networks have more paths than a float can count."""
_FOUND: WeakKeyDictionary[Architecture, Array] = WeakKeyDictionary()
"""Features of the architectures that somebody holds on to."""
_PLACES = 256
"""Places that kinds of neighbourhoods are spread over by a hash."""


def graph_features(architecture: Architecture) -> Array:
    """Return the features of an architecture, (281,).

    First logarithms of the analytic costs, numbers of layers, the 3DRF-like scores (0 where nothing
    reaches the output), and what paths from input to output are like. Then the scores of
    :data:`~evaluators.proxies.fusion.DESCRIPTION`, infinitely bad where nothing reaches the output.
    Then logarithms of how often each kind of neighbourhood occurs: a node with all it reads and all
    that reads it, as in one step of Weisfeiler and Lehman's test.
    """
    if architecture not in _FOUND:
        _FOUND[architecture] = _features(architecture)
    return _FOUND[architecture]


def _features(architecture: Architecture) -> Array:
    found = described(architecture)
    reach = np.array([found["rf_gain"], found["rf_volume"], found["rf_local"]])
    figures = [
        *(math.log1p(found[name]) for name in Cost._fields),
        found["layers"],
        found["depth"],
        *np.where(np.isfinite(reach), reach, 0.0),
        *_paths(architecture),
    ]
    scores = [found[name] if way == "max" else -found[name] for name, way in DESCRIPTION.items()]
    return np.concatenate([figures, scores, np.log1p(_neighbourhoods(architecture))])


def _paths(architecture: Architecture) -> tuple[float, float, float]:
    """Return fewest and mean weight-carrying layers on a path, and the logarithm of the paths."""
    fewest: list[float] = []
    mean: list[float] = []
    count: list[float] = []
    for node in architecture.nodes:
        own = float(node.facts.reach.weighted)
        if not node.inputs:
            fewest.append(own)
            mean.append(own)
            count.append(1.0)
            continue
        total = sum(count[source] for source in node.inputs)
        fewest.append(own + min(fewest[source] for source in node.inputs))
        mean.append(own + sum(count[source] * mean[source] for source in node.inputs) / total)
        count.append(min(total, _MOST_PATHS))
    return fewest[-1], mean[-1], math.log(count[-1])


def _neighbourhoods(architecture: Architecture) -> Array:
    nodes = architecture.nodes
    readers: list[list[str]] = [[] for _ in nodes]
    for node in nodes:
        for source in node.inputs:
            readers[source].append(node.op.text)
    kinds = Counter(
        (node.op.text, tuple(sorted(nodes[i].op.text for i in node.inputs)), tuple(sorted(read)))
        for node, read in zip(nodes, readers, strict=True)
    )
    counts = np.zeros(_PLACES)
    for kind, count in kinds.items():
        counts[_place(kind)] += count
    return counts


@lru_cache(maxsize=65536)
def _place(kind: object) -> int:
    digest = blake2b(repr(kind).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % _PLACES
