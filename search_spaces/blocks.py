"""A network as a chain of blocks, some of which repeat: how deep each stage is, and other depths.

A *cut* is a node that every path from the input to the output passes through; what lies between two
cuts depends on the earlier one alone. A *block* is one such stretch, or several in a row: a
depthwise convolution belongs to the layer behind it that mixes channels, and an activation or
norm to the block before it. Blocks that keep the shape can be repeated or left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.architecture.graph import Value
from search_spaces.architecture.node import Node
from search_spaces.errors import OpError
from search_spaces.ops import Facts, Op, Shape


class Step(NamedTuple):
    """One operator of a block, and what it reads: earlier steps by number, -1 the block's input."""

    op: Op
    inputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Equal blocks in a row.

    Attributes:
        steps: the operators of one of them; the last one gives its output.
        count: how many there are.
        least: how few there may be: 0 only behind layers of the same shape.
        most: how many there may be; equal to ``least`` where the block does not keep its shape.
        shape: of the input of the first one.
        scope: where the first one stands, for names.
    """

    steps: tuple[Step, ...]
    count: int
    least: int
    most: int
    shape: Shape
    scope: str

    @property
    def repeats(self) -> bool:
        """Whether its depth can be chosen."""
        return self.least < self.most


@dataclass(frozen=True, slots=True)
class Chain:
    """A network as stretches of equal blocks.

    Attributes:
        source: its input.
        stretches: in order.
    """

    source: Op
    stretches: tuple[Stretch, ...]

    @property
    def depths(self) -> tuple[int, ...]:
        """Blocks of each stretch whose depth can be chosen."""
        return tuple(item.count for item in self.stretches if item.repeats)

    def with_depths(self, depths: Sequence[int]) -> Architecture:
        """Return the network with other depths, without weights.

        Raises:
            NasError: there is not one depth for each stretch that repeats.
        """
        if len(depths) != len(self.depths):
            raise NasError(f"The network has {len(self.depths)} depths, got {len(depths)}.")
        chosen = iter(depths)
        value = Value(self.source, (), "input")
        for number, stretch in enumerate(self.stretches):
            for copy in range(next(chosen) if stretch.repeats else stretch.count):
                value = _append(stretch.steps, value, f"stretch{number}/block{copy}")
        return Architecture.freeze(value)


def _append(steps: Sequence[Step], source: Value, scope: str) -> Value:
    values = [source]  # -1 is the source: all places move by one
    for number, step in enumerate(steps):
        inputs = tuple(values[item + 1] for item in step.inputs)
        name = scope if len(steps) == 1 else f"{scope}/{step.op.kind}{number}"
        values.append(Value(step.op, inputs, name))
    return values[-1]


def chain_of(architecture: Architecture, *, most: int = 8) -> Chain:
    """Read a network as a chain of blocks.

    Args:
        architecture: with one input; variants and shared parameters are not kept.
        most: how many layers or blocks a stretch may have, with the one before it that gives it
            its shape.

    Raises:
        NasError: it has several inputs, shares parameters, or executes variants.
    """
    nodes = architecture.nodes
    if len(architecture.inputs) != 1 or nodes[0].inputs:
        raise NasError("Only a network with one input can be read as a chain of blocks.")
    if architecture.regions or any(node.tie is not None for node in nodes):
        raise NasError("A network with variants or shared parameters is no chain of blocks.")
    blocks = _blocks(nodes)
    stretches: list[Stretch] = []
    for block in blocks:
        _add_block(stretches, nodes, block, most)
    return Chain(nodes[0].op, tuple(_with_templates(stretches, most)))


def cuts(nodes: Sequence[Node]) -> list[int]:
    """Return the nodes, by canonical number, that every path passes through."""
    furthest = [0] * len(nodes)
    for number, node in enumerate(nodes):
        for item in node.inputs:
            furthest[item] = number
    found, reach = [], 0
    for number in range(len(nodes)):
        if reach <= number:
            found.append(number)
        reach = max(reach, furthest[number])
    return found


def _blocks(nodes: Sequence[Node]) -> list[list[int]]:
    """Return the node numbers of each block, in order, without the input."""
    blocks: list[list[int]] = []
    opened: list[int] = []
    places = cuts(nodes)
    for first, last in pairwise(places):
        piece = list(range(first + 1, last + 1))
        plain = not any(nodes[item].facts.reach.weighted for item in piece)
        if plain and not opened and blocks and nodes[last].op.kind in ("act", "norm"):
            blocks[-1] += piece
            continue
        opened += piece
        if _is_whole([nodes[item] for item in opened]):
            blocks.append(opened)
            opened = []
    return [*blocks, opened] if opened else blocks


def _is_whole(nodes: Sequence[Node]) -> bool:
    """Tell whether a block needs nothing behind it: it has no layer, or one that mixes channels."""
    layers = [node.facts.reach for node in nodes if node.facts.reach.weighted]
    return not layers or any(reach.channels > 1 for reach in layers)


def _add_block(
    stretches: list[Stretch], nodes: Sequence[Node], block: Sequence[int], most: int
) -> None:
    source = block[0] - 1
    steps = tuple(
        Step(nodes[item].op, tuple(place - block[0] for place in nodes[item].inputs))
        for item in block
    )
    shape, result = nodes[source].shape, nodes[block[-1]].shape
    last = stretches[-1] if stretches else None
    if last is not None and last.repeats and (last.steps, last.shape) == (steps, shape):
        count = last.count + 1
        stretches[-1] = _stretch(last, count, max(last.most, count))
        return
    layers = any(nodes[item].facts.reach.weighted for item in block)
    everywhere = any(
        nodes[item].facts.reach.everywhere and result == (result[0], 1, 1) for item in block
    )
    made = Stretch(steps, 1, 1, 1, shape, nodes[block[0]].scope)
    if layers and shape == result and len(shape) == 3 and not everywhere:
        entered = last is not None and not last.repeats and _has_layers(last)
        made = Stretch(steps, 1, 1 - entered, most - entered, shape, made.scope)
    stretches.append(made)


def _stretch(item: Stretch, count: int, most: int) -> Stretch:
    return Stretch(item.steps, count, item.least, most, item.shape, item.scope)


def _has_layers(stretch: Stretch) -> bool:
    return any(item.reach.weighted for item in facts_of(stretch))


def facts_of(stretch: Stretch) -> list[Facts]:
    """Return what each operator of a block does at the shapes that it reads."""
    shapes = [stretch.shape]
    found = []
    for step in stretch.steps:
        found.append(step.op.facts(tuple(shapes[item + 1] for item in step.inputs)))
        shapes.append(found[-1].shape)
    return found


def _with_templates(stretches: Sequence[Stretch], most: int) -> list[Stretch]:
    """Let a lone dense layer that sets the shape of a stage be followed by others like it."""
    result: list[Stretch] = []
    for number, item in enumerate(stretches):
        result.append(item)
        following = stretches[number + 1] if number + 1 < len(stretches) else None
        if item.repeats or (following is not None and following.repeats):
            continue
        if len(item.steps) > 1 or item.steps[0].op.kind != "conv" or len(item.shape) != 3:
            continue
        try:
            shape = item.steps[0].op.infer((item.shape,))
            again = item.steps[0].op.infer((shape,))
        except OpError:
            continue
        if again == shape and getattr(item.steps[0].op, "groups", 1) == 1:
            result.append(Stretch(item.steps, 0, 0, most - 1, shape, item.scope))
    return result
