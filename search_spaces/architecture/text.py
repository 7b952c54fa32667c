"""The one-line text form of a network: what logs show, what keys hash, and what parses back.

Nodes stand in canonical order, separated by ``;``. A node is its operator's text, then ``@`` and
the numbers of its inputs unless it reads just the node before, then ``~`` and the number of the
node whose parameters it shares, if any. Regions with a variant follow behind ``|``::

    input 1x8x8; conv 16 k3 bn relu; conv 16 k3 bn; add @1,2; gap; flatten; linear 10 | w1a2 on 2
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from kernels.errors import NasError
from search_spaces.architecture.graph import Value, assign_variant, share_parameters
from search_spaces.architecture.node import Node, Region, Variant
from search_spaces.errors import ArchitectureError
from search_spaces.ops import parse_op


def write_nodes(nodes: Sequence[Node]) -> str:
    """Return the text form of a network without its variants."""
    lines = [node.op.text for node in nodes]
    for number, (_, inputs, _, _, tie) in enumerate(nodes):
        if len(inputs) == 1 and inputs[0] == number - 1 and tie is None:
            continue  # most nodes
        if inputs and inputs != (number - 1,):
            lines[number] += f" @{','.join(map(str, inputs))}"
        if tie is not None:
            lines[number] += f" ~{tie}"
    return "; ".join(lines)


def write_regions(regions: Sequence[Region]) -> str:
    """Return the text form of the variants, with what separates it from the nodes."""
    return "".join(f" | {region}" for region in regions)


def variants_in(text: str) -> list[Variant]:
    """Return the variant of each region of a text form; reads nothing else of it.

    Example:
        >>> [str(item) for item in variants_in("input 8; linear 8; linear 4 | w1a2 on 1")]
        ['w1a2']

    Raises:
        ArchitectureError: a region cannot be read.
    """
    return [Variant.parse(_divided(region)[0]) for region in text.split("|")[1:]]


def variants_by_kind(text: str) -> str:
    """Say how many regions of a text form have a variant of which kind; empty where none has.

    Example:
        >>> variants_by_kind("input 8; linear 8; linear 4 | w1a2 on 1 | w1a2 on 2")
        'w1a2 2'

    Raises:
        ArchitectureError: a region cannot be read.
    """
    kinds = Counter(variant.kind for variant in variants_in(text))
    return ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())


def parse(text: str) -> Value:
    """Read the text form into a graph and return its output, the last node.

    Raises:
        ArchitectureError: the text is no network; names the node that cannot be read.
    """
    body, *regions = text.split("|")
    values: list[Value] = []
    for number, line in enumerate(body.split(";")):
        values.append(_parse_node(line.strip(), number, values))
    for region in regions:
        _parse_region(region, values)
    return values[-1]


def _parse_node(line: str, number: int, values: list[Value]) -> Value:
    place = f"node {number} ({line!r})"
    words = line.split()
    reads = [word for word in words if word.startswith("@")]
    ties = [word for word in words if word.startswith("~")]
    rest = " ".join(word for word in words if word[0] not in "@~")
    if not rest or len(reads) > 1 or len(ties) > 1:
        raise ArchitectureError(f"{place}: expected an operator, at most one @ and one ~")
    try:
        op = parse_op(rest)
    except NasError as problem:
        raise ArchitectureError(f"{place}: {problem}") from None
    default = values[-1:] if op.arity[0] else []
    inputs = _pick(reads[0][1:], values, place) if reads else default
    value = Value(op, tuple(inputs), f"{op.kind}{number}")
    if ties:
        share_parameters(value, _pick(ties[0][1:], values, place)[0])
    return value


def _pick(numbers: str, values: Sequence[Value], place: str) -> list[Value]:
    picked = [
        int(item) if item.isdecimal() and len(item) < 10 else -1 for item in numbers.split(",")
    ]
    if any(not 0 <= item < len(values) for item in picked):
        raise ArchitectureError(f"{place}: {numbers!r} does not name earlier nodes")
    return [values[item] for item in picked]


def _divided(region: str) -> tuple[str, str]:
    variant, separator, numbers = region.rpartition(" on ")
    if not separator:
        raise ArchitectureError(
            f"cannot read the region {region.strip()!r}; expected 'variant on 1,2'"
        )
    return variant, numbers


def _parse_region(text: str, values: Sequence[Value]) -> None:
    variant, numbers = _divided(text)
    members = _pick(numbers.strip(), values, f"region {text.strip()!r}")
    assign_variant(members, Variant.parse(variant))
