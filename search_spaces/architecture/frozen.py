"""The frozen description of a network, from which everything else is derived."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import Any, cast

from search_spaces.architecture import json_form, text
from search_spaces.architecture.canonical import canonical_order
from search_spaces.architecture.graph import Value, VariantRegion, in_order
from search_spaces.architecture.node import Node, Region, Variant
from search_spaces.architecture.normalise import is_normal, normalise
from search_spaces.errors import ArchitectureError
from search_spaces.ops import Input, Zero

SCHEMA = 1
"""Version of the meaning of texts and keys; a change of a default or a rule raises it."""


class Architecture:
    """An immutable network: typed nodes in canonical order, and variants of regions of them.

    Two descriptions of the same network (dead branches, identities, the order of sums, scope
    names) are equal and have the same keys. Make one with a space, :class:`NetworkBuilder`,
    :meth:`parse`, :meth:`from_json` or :func:`search_spaces.trace.trace`.

    Attributes:
        nodes: the nodes, inputs first, the output last.
        regions: the sets of nodes that a variant executes, in order of their first node.
        weights: tensors by canonical node number and role, where it was traced from a model.

    Example:
        >>> small = Architecture.parse("input 1x8x8; conv 4 k3 bn relu; gap; flatten; linear 10")
        >>> small.nodes[1].shape, small.params
        ((4, 8, 8), 94)
        >>> Architecture.parse(small.text) == small
        True
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        regions: Sequence[Region] = (),
        weights: Mapping[int, Mapping[str, Any]] | None = None,
    ) -> None:
        self.nodes = tuple(nodes)
        self.regions = tuple(sorted(regions))
        self.weights = weights

    @classmethod
    def freeze(cls, output: Value) -> Architecture:
        """Normalise a graph and number its nodes.

        Args:
            output: the network's output; what it does not depend on is left out.

        Raises:
            ArchitectureError: a source has a variant, or a gate reads an absent value.
        """
        normal = output if is_normal(in_order(output)) else normalise(output)
        order = canonical_order(normal)
        nodes, number = _numbered(order)
        members: dict[VariantRegion, list[int]] = {}
        for value in [value for value in order if value.region is not None]:
            members.setdefault(cast("VariantRegion", value.region), []).append(number[value])
        weights: dict[int, Mapping[str, Any]] = {}
        for value in [value for value in order if value.weights is not None]:
            tie = nodes[number[value]].tie
            weights.setdefault(number[value] if tie is None else tie, value.weights or {})
        regions = [Region(tuple(numbers), mark.variant) for mark, numbers in members.items()]
        return cls(nodes, _checked(regions, nodes), weights or None)

    @classmethod
    def parse(cls, line: str) -> Architecture:
        """Read the text form.

        Raises:
            ArchitectureError: the text is no valid network; names the node at fault.
        """
        return cls.freeze(text.parse(line))

    @classmethod
    def from_json(cls, document: str | Mapping[str, Any]) -> Architecture:
        """Read the JSON form, as a string or as parsed.

        Raises:
            ArchitectureError: it is no valid network, of a newer schema, or its key does not fit.
        """
        read = json_form.read(document, schema=SCHEMA)
        architecture = cls.freeze(read.output)
        if read.key not in (None, architecture.key):
            raise ArchitectureError(
                f"The document's key {read.key!r} is not that of the network in it "
                f"({architecture.key}); it was changed or damaged."
            )
        return architecture

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form: all attributes, scope names, schema version and key."""
        return json_form.write(self.nodes, self.regions, schema=SCHEMA, key=self.key)

    def with_variant(self, nodes: Iterable[int], variant: Variant | str) -> Architecture:
        """Return the network with a set of nodes executed by a variant.

        Raises:
            ArchitectureError: a number names no node, a source, or one that has a variant already.
        """
        numbers = tuple(sorted(set(nodes)))
        if not numbers or not 0 <= numbers[0] <= numbers[-1] < len(self.nodes):
            raise ArchitectureError(
                f"{list(numbers)} are no nodes of a network of {len(self.nodes)}"
            )
        chosen = Variant.parse(variant) if isinstance(variant, str) else variant
        regions = _checked([*self.regions, Region(numbers, chosen)], self.nodes)
        return Architecture(self.nodes, regions, self.weights)

    def dense(self) -> Architecture:
        """Return the network without variants."""
        return Architecture(self.nodes, (), self.weights) if self.regions else self

    @property
    def output(self) -> Node:
        """The node whose value the network returns."""
        return self.nodes[-1]

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The network's inputs."""
        return tuple(node for node in self.nodes if node.op.kind == "input")

    @property
    def live(self) -> bool:
        """Whether anything of the input reaches the output."""
        return not isinstance(self.output.op, Zero)

    @property
    def decodes(self) -> bool:
        """Whether it reads token ids, and each token's output depends on none behind it.

        Such a network can go on behind tokens that it has read, from keys and values it kept.
        """
        first, *others = self.nodes
        tokens = first.shape[:1]
        return (
            isinstance(first.op, Input)
            and first.op.vocabulary > 0
            and len(first.shape) == 1
            and bool(others)
            and all(n.op.is_causal() and n.shape[:-1] == tokens for n in others)
        )

    @property
    def params(self) -> int:
        """Trainable parameters; shared ones count once."""
        return sum(node.facts.params for node in self.nodes if node.tie is None)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions and matrix products for one sample."""
        return sum(node.facts.macs for node in self.nodes)

    @cached_property
    def text(self) -> str:
        """The compact one-line form; parses back to an equal architecture."""
        return text.write_nodes(self.nodes) + text.write_regions(self.regions)

    @cached_property
    def topology_key(self) -> str:
        """Names the network without its variants; 32 hexadecimal digits."""
        return _key(text.write_nodes(self.nodes))

    @cached_property
    def key(self) -> str:
        """Names the whole: topology and variants; equals ``topology_key`` where there are none."""
        return _key(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Architecture) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"<Architecture {self.key[:8]}: {self.text}>"


def _key(content: str) -> str:
    return blake2b(f"{SCHEMA}\n{content}".encode(), digest_size=16).hexdigest()


def _numbered(order: Sequence[Value]) -> tuple[list[Node], dict[Value, int]]:
    number: dict[Value, int] = {}
    groups: dict[object, int] = {}
    nodes = []
    for index, value in enumerate(order):
        number[value] = index
        if len(value.inputs) == 1:
            inputs: tuple[int, ...] = (number[value.inputs[0]],)
        else:
            items = [number[item] for item in value.inputs]
            inputs = tuple(sorted(items) if value.op.commutative else items)
        tie = None
        if value.group is not None:
            first = groups.setdefault(value.group, index)
            tie = first if first != index else None
        nodes.append(Node(value.op, inputs, value.scope, value.facts, tie))
    return nodes, number


def _checked(regions: list[Region], nodes: Sequence[Node]) -> list[Region]:
    taken: set[int] = set()
    for region in regions:
        for number in region.nodes:
            if number in taken:
                raise ArchitectureError(f"node {number} is in two regions, one of them {region}")
            if not nodes[number].inputs:
                raise ArchitectureError(f"node {number}, {nodes[number].op}, cannot have a variant")
            taken.add(number)
    return regions
