"""One order of nodes for every way of writing down the same network.

Nodes are numbered by a depth-first walk from the output. Inputs of commutative operators are
visited shallow before deep; where depths are equal, by a hash of all that lies below; where that is
equal too, by colour refinement: a hash of all that lies above and below, refined until no pass
tells more values apart. Values that still look alike are
told apart one at a time: each of them is marked in turn, and the mark that gives the smallest
colours stays. (Where two marks give equal colours, the values are taken to be interchangeable; a
network for which that is wrong could have two keys, never share one.)

NOTE: a Merkle hash of the output alone cannot tell one node that is read twice from two equal nodes
with weights of their own, so the keys hash the whole numbered list (``text.py``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b

from search_spaces.architecture.graph import Value, in_order


def canonical_order(output: Value) -> list[Value]:
    """Return the values of a normalised graph in canonical order, ``output`` last."""
    shapes: _Colours = {}
    colours: _Colours = {}

    def children(value: Value) -> Sequence[Value]:
        inputs = value.inputs
        if not value.op.commutative:
            return inputs
        if len(inputs) == 2 and inputs[0].depth != inputs[1].depth:
            return inputs if inputs[0].depth < inputs[1].depth else inputs[::-1]
        distinct = len(set(inputs))
        if len({item.depth for item in inputs}) == distinct:
            return sorted(inputs, key=lambda item: item.depth)
        if not shapes:
            order = in_order(output)
            shapes.update(_downward(order, {item: _hash(item.op.text.encode()) for item in order}))
        if len({(item.depth, shapes[item]) for item in inputs}) == distinct:
            return sorted(inputs, key=lambda item: (item.depth, shapes[item]))
        if not colours:
            colours.update(_settled(in_order(output)))
        return sorted(inputs, key=lambda item: (item.depth, colours[item]))

    order = in_order(output, children)
    if colours:  # a network read back keeps its order, also where twins could change places
        written = in_order(output)
        if _wiring(written) == _wiring(order):
            return written
    return order


def _wiring(order: list[Value]) -> list[tuple[str, tuple[int, ...], int]]:
    """Return what an order makes of the values; equal for two orders that give one text."""
    number = {value: index for index, value in enumerate(order)}
    first: dict[object, int] = {}
    result = []
    for index, value in enumerate(order):
        inputs = [number[item] for item in value.inputs]
        tie = index if value.group is None else first.setdefault(value.group, index)
        result.append(
            (value.op.text, tuple(sorted(inputs) if value.op.commutative else inputs), tie)
        )
    return result


_Colours = dict[Value, bytes]


def _settled(order: list[Value]) -> _Colours:
    """Return colours that tell all inputs of every commutative value apart."""
    colours = _refined(order, {value: _hash(value.op.text.encode()) for value in order})
    while alike := _alike(order, colours):
        if _are_twins(order, alike):
            colours = _refined(order, _marked(colours, alike))
        else:
            marks = [_refined(order, _marked(colours, [value])) for value in alike]
            colours = min(marks, key=lambda item: sorted(item.values()))
    return colours


def _alike(order: list[Value], colours: _Colours) -> list[Value]:
    """Return the values of the smallest colour that two inputs of a commutative value share."""
    shared = set()
    for value in order:
        if value.op.commutative and len(value.inputs) > 1:
            counts = Counter(colours[item] for item in set(value.inputs))
            shared |= {colour for colour, count in counts.items() if count > 1}
    return [value for value in order if colours[value] == min(shared)] if shared else []


def _are_twins(order: list[Value], alike: list[Value]) -> bool:
    """Tell whether values read and are read by the same, so that any order of them will do."""
    readers: dict[Value, list[tuple[int, int]]] = {value: [] for value in alike}
    for value in order:
        for slot, item in enumerate(value.inputs):
            if item in readers:
                readers[item].append((id(value), 0 if value.op.commutative else slot))
    first, *rest = alike
    return all(
        set(item.inputs) == set(first.inputs)
        and item.group is None
        and sorted(readers[item]) == sorted(readers[first])
        for item in (first, *rest)
    )


def _marked(colours: _Colours, chosen: Sequence[Value]) -> _Colours:
    marks = {
        value: _hash(colours[value], number.to_bytes(4, "big"))
        for number, value in enumerate(chosen)
    }
    return {**colours, **marks}


def _refined(order: list[Value], colours: _Colours) -> _Colours:
    """Hash, for each value, what it is made of and used for, until no more values differ."""
    groups: dict[object, list[Value]] = {}
    for value in order:
        if value.group is not None:
            groups.setdefault(value.group, []).append(value)
    tied = [members for members in groups.values() if len(members) > 1]
    count = 0
    while len(set(colours.values())) > count:
        count = len(set(colours.values()))
        colours = _upward(order, _downward(order, colours))
        for members in tied:
            together = sorted(colours[value] for value in members)
            colours |= {value: _hash(colours[value], *together) for value in members}
    return colours


def _downward(order: list[Value], own: _Colours) -> _Colours:
    result: _Colours = {}
    for value in order:
        inputs = [result[item] for item in value.inputs]
        result[value] = _hash(own[value], *(sorted(inputs) if value.op.commutative else inputs))
    return result


def _upward(order: list[Value], own: _Colours) -> _Colours:
    uses: dict[Value, list[bytes]] = {value: [] for value in order}
    result: _Colours = {}
    for value in reversed(order):
        colour = result[value] = _hash(own[value], *sorted(uses[value]))
        for slot, item in enumerate(value.inputs):
            place = 0 if value.op.commutative else slot
            uses[item].append(colour + place.to_bytes(4, "big"))
    return result


def _hash(*items: bytes) -> bytes:
    """Hash a text, or colours that are all of one length."""
    return blake2b(b"".join(items), digest_size=16).digest()
