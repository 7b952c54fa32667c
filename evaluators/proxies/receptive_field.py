"""3DRF-like scores: how much of the input a network's layers see, in space and in channels.

The paper (Wang et al., "An Efficient Quantitative Approach for Optimizing Convolutional Neural
Networks", CIKM 2021) could not be read in full; what stands here is a reconstruction, its formulas
named R3.1 to R3.5:

* R3.1 spatial field per axis: ``r += span * j``, ``j *= stride``; clipped to the image, ``q``.
* R3.2 channel field: how many channels of a reference one output channel depends on.
* R3.3 volume of a layer: ``V = q_h * q_w * c``, with ``c`` the input channels one output reads.
* R3.4 gain of a layer in nats: ``ln c + ln(q_h_out / q_h_in) + ln(q_w_out / q_w_in)``.
* R3.5 scores, sums over weight-carrying layers: of gains, of ``ln V``, of ``ln(taps * c)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, log
from typing import TYPE_CHECKING, NamedTuple

from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.architecture.node import Node

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Field(NamedTuple):
    """The spatial receptive field of one node (R3.1), in input pixels, not clipped.

    Attributes:
        height: field along the first axis.
        width: field along the second.
        jump: input pixels between neighbouring outputs, per axis; 0 where an output sees the whole
            image, as behind global pooling, or nothing of it.
    """

    height: int
    width: int
    jump: tuple[int, int]


class ReceptiveField(NamedTuple):
    """The scores of a network (R3.5); all are ``-inf`` where nothing reaches the output.

    Attributes:
        gain: sum of gains, ``S_gain``; the default score.
        volume: sum of log volumes, ``S_vol``.
        local: sum of ``ln(taps * channels)``, ``S_loc``.
        layers: how many layers were summed.
        height: field of the last feature map before global pooling, not clipped.
        width: the same along the second axis.
    """

    gain: float
    volume: float
    local: float
    layers: int
    height: int
    width: int


def fields(architecture: Architecture) -> list[Field]:
    """Return the receptive field of every node, by canonical number (R3.1).

    At a join the larger field counts.

    Raises:
        NasError: two inputs of a join have different jumps; names the place.
    """
    return [Field(*item[:3]) for item in _scan(architecture, None)[0]]


def receptive_field(
    architecture: Architecture, where: Callable[[Node], bool] | None = None
) -> ReceptiveField:
    """Return the 3DRF-like scores of a network.

    Args:
        architecture: the network.
        where: which weight-carrying nodes to sum; all if left out.

    Raises:
        NasError: two inputs of a join have different jumps.
    """
    if not architecture.live:
        return ReceptiveField(-inf, -inf, -inf, 0, 0, 0)
    reached, layers = _scan(architecture, where)
    spatial = [field for field in reached if field[2] != _GLOBAL]
    height = max([field[0] for field in spatial])
    width = max([field[1] for field in spatial])
    if not layers:
        return ReceptiveField(0.0, 0.0, 0.0, 0, height, width)
    channels, taps, before, after = zip(*layers, strict=True)
    earned = sum(map(log, channels))
    volume = earned + sum(after)
    local = earned + sum(map(log, taps))
    return ReceptiveField(volume - sum(before), volume, local, len(layers), height, width)


_GLOBAL = (0, 0)
_Field = tuple[int, int, tuple[int, int], float]
"""A :class:`Field` and the log of its clipped area; plain, for candidates come by the thousand."""


_Layer = tuple[int, int, float, float]
"""Channels that one output reads, taps, and the logs of the clipped area before and after."""


def _scan(
    architecture: Architecture, where: Callable[[Node], bool] | None
) -> tuple[list[_Field], list[_Layer]]:
    """Return every node's field, and the weight-carrying layers that are to be summed."""
    height, width = _image(architecture)
    whole = log(height * width)
    reached: list[_Field] = []
    layers: list[_Layer] = []
    for node in architecture.nodes:
        _, inputs, _, (_, _, _, _, _, reach, *_), _ = node
        if len(inputs) == 1:
            before = reached[inputs[0]]
        elif inputs:
            before = _join(node, [reached[item] for item in inputs])
        elif node.op.kind == "zero":  # has no field; a join takes the others' stride
            before = (0, 0, _GLOBAL, 0.0)
        else:
            before = (1, 1, (1, 1), 0.0)
        span, stride, channels, taps, weighted, everywhere = reach
        after = before
        if everywhere:
            after = (max(before[0], height), max(before[1], width), _GLOBAL, whole)
        elif taps > 1 or stride != (1, 1):
            r_h, r_w, (j_h, j_w), _ = before
            r_h += span[0] * j_h
            r_w += span[1] * j_w
            seen = log(min(r_h, height) * min(r_w, width))
            after = (r_h, r_w, (j_h * stride[0], j_w * stride[1]), seen)
        reached.append(after)
        if weighted and (where is None or where(node)):
            layers.append((channels, taps, before[3], after[3]))
    return reached, layers


def _image(architecture: Architecture) -> tuple[int, int]:
    for node in architecture.nodes:
        if node.op.kind == "input" and len(node.facts.shape) == 3:
            return node.facts.shape[1], node.facts.shape[2]
    return 1, 1


def _join(node: Node, sources: Sequence[_Field]) -> _Field:
    first, second = sources[0], sources[-1]
    if len(sources) == 2 and first[2] == second[2]:
        h, w = max(first[0], second[0]), max(first[1], second[1])
        return h, w, first[2], max(first[3], second[3])
    spatial = [item for item in sources if item[2] != _GLOBAL] or sources
    jumps = {item[2] for item in spatial}
    if len(jumps) > 1 and node.shape[1:] != (1, 1):
        raise NasError(f"{node.scope or node.op.kind}: joins inputs of different strides {jumps}.")
    h, w, _, seen = (max(values) for values in zip(*sources, strict=True))
    return h, w, max(jumps), seen


def mean_fields(architecture: Architecture) -> list[tuple[float, float]]:
    """Return (height, width) of the path-weighted mean receptive field of every node.

    Every path from the input to the node has weight 1, so a residual connection halves the growth.
    """
    reached = fields(architecture)
    means: list[tuple[float, float]] = []
    paths: list[int] = []
    for node, out in zip(architecture.nodes, reached, strict=True):
        if not node.inputs:
            means.append((1.0, 1.0))
            paths.append(0 if node.op.kind == "zero" else 1)
            continue
        count = sum(paths[item] for item in node.inputs)
        mean = [
            sum(means[item][axis] * paths[item] for item in node.inputs) / max(count, 1)
            for axis in (0, 1)
        ]
        if node.facts.reach.everywhere:
            mean = [max(mean[0], out.height), max(mean[1], out.width)]
        else:
            jump = max(reached[item].jump for item in node.inputs)
            span = node.facts.reach.span
            mean = [mean[axis] + span[axis] * jump[axis] for axis in (0, 1)]
        means.append((mean[0], mean[1]))
        paths.append(count)
    return means


def channel_dependencies(architecture: Architecture, reference: int = 0) -> list[NDArray[np.bool_]]:
    """Return, for every node, which channels of the reference each of its channels depends on.

    Args:
        architecture: the network.
        reference: canonical number of the reference node, such as the input of a block.

    Returns:
        By canonical number a boolean matrix (channels of the node) x (channels of the reference),
        all False where the node does not depend on it (R3.2).
    """
    import numpy as np

    width = architecture.nodes[reference].shape[0]
    result: list[NDArray[np.bool_]] = []
    for number, node in enumerate(architecture.nodes):
        if number == reference:
            result.append(np.eye(width, dtype=np.bool_))
            continue
        matrix = np.zeros((node.shape[0], width), dtype=np.bool_)
        shapes = tuple(architecture.nodes[item].shape for item in node.inputs)
        for source, mask in zip(node.inputs, node.op.masks(shapes), strict=True):
            matrix |= mask @ result[source]
        result.append(matrix)
    return result


def channel_field(architecture: Architecture, node: int = -1, reference: int = 0) -> float:
    """Return the mean number of reference channels that one channel of ``node`` depends on."""
    rows = channel_dependencies(architecture, reference)[node]
    return float(rows.sum(axis=1).mean())
