"""``nas-bench-201``: the cell space of Dong and Yang (ICLR 2020), with its own strings.

A cell has four nodes; an edge from each to every later one carries one of five operations, and a
node is the sum of its incoming edges. The string lists the edges by target node::

    |nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|avg_pool_3x3~1|none~2|
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from search_spaces import scope
from search_spaces.architecture.graph import Value
from search_spaces.builder import NetworkBuilder
from search_spaces.choose import Chooser, Decisions, Option
from search_spaces.errors import SpaceError
from search_spaces.space import DataSpec, space

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = tuple((source, target) for target in range(1, 4) for source in range(target))
_WIDTHS = (16, 32, 64)


@space("nas-bench-201", version=1)
def nas_bench_201(choose: Chooser, data: DataSpec, cells: int = 5) -> Value:
    """Stem, three stages of ``cells`` equal cells with residual reductions between, classifier."""
    cell = {
        (source, target): choose(f"edge{source}-{target}", OPERATIONS) for source, target in EDGES
    }
    net = NetworkBuilder(data.input_shape)
    x = net.conv(net.input, _WIDTHS[0], kernel=3, act=None, name="stem")
    for stage, width in enumerate(_WIDTHS):
        with scope.inside(f"stage{stage}"):
            if stage:
                x = _reduce(net, x, width)
            for number in range(cells):
                with scope.inside(f"cell{number}"):
                    x = _cell(net, x, cell)
    x = net.activation(net.norm(x, name="last_norm"), name="last_act")
    return net.classifier(x, data.classes)


def _cell(net: NetworkBuilder, x: Value, cell: Mapping[tuple[int, int], str]) -> Value:
    nodes = [x]
    for target in range(1, 4):
        edges = [
            _edge(net, nodes[source], cell[source, target], f"edge{source}{target}")
            for source in range(target)
        ]
        nodes.append(net.add(*edges, name=f"node{target}"))
    return nodes[-1]


def _edge(net: NetworkBuilder, x: Value, operation: str, name: str) -> Value:
    if operation == "none":
        return net.zero(x.shape, name=name)
    if operation == "skip_connect":
        return x
    if operation == "avg_pool_3x3":
        return net.avg_pool(x, kernel=3, stride=1, padding=1, name=name)
    kernel = 3 if operation == "nor_conv_3x3" else 1
    active = net.activation(x, name=f"{name}_act")
    return net.conv(active, x.shape[0], kernel=kernel, act=None, name=name)


def _reduce(net: NetworkBuilder, x: Value, width: int) -> Value:
    """Add the residual block between stages: it halves the map and sets the width."""
    with scope.inside("reduce"):
        y = net.conv(
            net.activation(x, name="act_a"), width, kernel=3, stride=2, act=None, name="conv_a"
        )
        y = net.conv(net.activation(y, name="act_b"), width, kernel=3, act=None, name="conv_b")
        shortcut = net.avg_pool(x, kernel=2, stride=2, name="shortcut_pool")
        return net.add(y, net.conv(shortcut, width, norm=None, act=None, name="shortcut"))


def to_string(decisions: Mapping[str, Option]) -> str:
    """Write the decisions of a candidate as a NAS-Bench-201 string.

    Raises:
        SpaceError: an edge has no operation of the space.
    """
    parts: dict[int, list[str]] = {1: [], 2: [], 3: []}
    for source, target in EDGES:
        operation = decisions.get(f"edge{source}-{target}")
        if operation not in OPERATIONS:
            raise SpaceError(
                f"edge{source}-{target} must be one of {OPERATIONS}, got {operation!r}"
            )
        parts[target].append(f"{operation}~{source}")
    return "+".join(f"|{'|'.join(edges)}|" for edges in parts.values())


def from_string(line: str) -> Decisions:
    """Read a NAS-Bench-201 string into the decisions of a candidate.

    Raises:
        SpaceError: it is no such string.
    """
    found = re.findall(r"([a-z0-9_]+)~(\d)", line)
    decisions: Decisions = {
        f"edge{source}-{target}": operation
        for (source, target), (operation, _) in zip(EDGES, found, strict=False)
    }
    if len(found) != len(EDGES) or to_string(decisions) != line.strip():
        raise SpaceError(f"{line!r} is no NAS-Bench-201 string, such as '|none~0|+|...|+|...|'")
    return decisions
