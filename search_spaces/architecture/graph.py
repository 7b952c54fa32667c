"""A network under construction: values that remember how they are computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from search_spaces.architecture.node import Variant
from search_spaces.errors import ArchitectureError, OpError, SpaceError
from search_spaces.ops import Facts, Op, Shape

MOST_DEPTH = 10_000
"""Operators in a row: a space that builds a deeper network has a loop that does not end."""


class Value:
    """The result of an operator, and the node of the graph that computes it.

    Attributes:
        op: the operator.
        inputs: the values it reads.
        scope: where it stands, for errors and module names; no part of its meaning.
        facts: what the operator does at these shapes.
        depth: length of the longest path from a source.
        group: values with the same (non-None) group share their parameters.
        weights: tensors by role (``conv.weight``), where the value was read from a model.
        region: the set of values that one variant executes, if it is in one.
    """

    __slots__ = ("depth", "facts", "group", "inputs", "op", "region", "scope", "weights")
    depth: int
    facts: Facts

    def __init__(
        self,
        op: Op,
        inputs: tuple[Value, ...],
        scope: str,
        *,
        group: object = None,
        weights: dict[str, Any] | None = None,
        region: VariantRegion | None = None,
    ) -> None:
        try:
            if len(inputs) == 1:  # most nodes; candidates are drawn by the thousand
                self.facts = op.facts((inputs[0].facts.shape,))
                self.depth = inputs[0].depth + 1
            else:
                self.facts = op.facts(tuple([value.facts.shape for value in inputs]))
                self.depth = max([value.depth for value in inputs], default=-1) + 1
        except OpError as problem:
            raise ArchitectureError(f"{scope or op.kind}: {problem}") from None
        if self.depth > MOST_DEPTH:
            raise SpaceError(
                f"The network is deeper than {MOST_DEPTH:,} operators at {scope or op.kind}; does "
                "a loop in the space never end?"
            )
        self.op = op
        self.inputs = inputs
        self.scope = scope
        self.group = group
        self.weights = weights
        self.region = region

    @property
    def shape(self) -> Shape:
        """The shape without the batch axis."""
        return self.facts.shape

    def __repr__(self) -> str:
        return f"<{self.scope or 'value'}: {self.op} -> {'x'.join(map(str, self.shape))}>"


class Tie:
    """The values that share one set of parameters."""

    __slots__ = ("members",)

    def __init__(self, members: list[Value]) -> None:
        self.members = members


def share_parameters(value: Value, partner: Value) -> None:
    """Tie the parameters of two values.

    Raises:
        ArchitectureError: their parameters are not of one kind and shape, or there are none.
    """
    mine, other = (
        item.op.shared(tuple(source.shape for source in item.inputs)) for item in (value, partner)
    )
    if mine != other or not value.facts.params:
        raise ArchitectureError(
            f"{value.scope}: {value.op} cannot share the parameters of {partner.op}"
        )
    tie = partner.group if isinstance(partner.group, Tie) else Tie([partner])
    joined = value.group.members if isinstance(value.group, Tie) else [value]
    tie.members += [item for item in joined if item not in tie.members]
    for member in tie.members:
        member.group = tie


class VariantRegion:
    """Values that are executed together by a variant; two are never the same."""

    __slots__ = ("variant",)

    def __init__(self, variant: Variant) -> None:
        self.variant = variant


def assign_variant(values: Iterable[Value], variant: Variant) -> None:
    """Have a set of values executed by a variant.

    Raises:
        ArchitectureError: one of them has a variant already.
    """
    region = VariantRegion(variant)
    for value in values:
        if value.region is not None:
            raise ArchitectureError(
                f"{value.scope or value.op.kind}: has the variant {value.region.variant} already"
            )
        value.region = region


def in_order(
    output: Value, children: Callable[[Value], Sequence[Value]] | None = None
) -> list[Value]:
    """Return all values that ``output`` depends on, each after its inputs, ``output`` last.

    Args:
        output: where to start.
        children: the order in which the inputs of a value are visited; as they stand if left out.
    """
    order: list[Value] = []
    seen: set[Value] = set()
    stack: list[Value | list[Value]] = [output]
    while stack:
        top = stack.pop()
        if isinstance(top, list):
            order.extend(top)
            continue
        chain = []  # values that read one another alone, walked without the stack
        while top not in seen:
            seen.add(top)
            chain.append(top)
            if len(top.inputs) != 1:
                break
            top = top.inputs[0]
        if chain:
            chain.reverse()
            stack.append(chain)
            inputs = chain[0].inputs
            if len(inputs) > 1:
                stack.extend(reversed(children(chain[0]) if children else inputs))
    return order


def consumers(values: Iterable[Value]) -> dict[Value, int]:
    """Count how often each value is read by the others."""
    count: dict[Value, int] = {}
    for value in values:
        for item in value.inputs:
            count[item] = count.get(item, 0) + 1
    return count
