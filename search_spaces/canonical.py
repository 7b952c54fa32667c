"""One order of nodes for every way of writing down the same network.

Nodes are numbered by a depth-first walk from the output. Inputs of commutative operators are
visited shallow before deep; where depths are equal, by a hash of all that lies above and below.

NOTE: a Merkle hash of the output alone cannot tell one node that is read twice from two equal nodes
with weights of their own, so the keys hash the whole numbered list (:mod:`search_spaces.text`).
"""

from __future__ import annotations

from hashlib import blake2b

from search_spaces.graph import Value, in_order


def canonical_order(output: Value) -> list[Value]:
    """Return the values of a normalised graph in canonical order, ``output`` last."""
    colours: dict[Value, bytes] = {}

    def children(value: Value) -> tuple[Value, ...] | list[Value]:
        if not value.op.commutative:
            return value.inputs
        if len({item.depth for item in value.inputs}) == len(value.inputs):
            return sorted(value.inputs, key=lambda item: item.depth)
        if not colours:
            colours.update(_colours(output))
        return sorted(value.inputs, key=lambda item: (item.depth, colours[item]))

    return in_order(output, children)


def _colours(output: Value) -> dict[Value, bytes]:
    """Hash, for each value, what it is made of and what it is used for."""
    order = in_order(output)
    below = _downward(order, {value: _hash(value.op.text) for value in order})
    uses: dict[Value, list[bytes]] = {value: [] for value in order}
    above: dict[Value, bytes] = {}
    for value in reversed(order):
        above[value] = _hash(below[value], *sorted(uses[value]))
        for slot, item in enumerate(value.inputs):
            uses[item].append(_hash(above[value], "" if value.op.commutative else str(slot)))
    return _downward(order, {value: _hash(below[value], above[value]) for value in order})


def _downward(order: list[Value], own: dict[Value, bytes]) -> dict[Value, bytes]:
    result: dict[Value, bytes] = {}
    for value in order:
        inputs = [result[item] for item in value.inputs]
        result[value] = _hash(own[value], *(sorted(inputs) if value.op.commutative else inputs))
    return result


def _hash(*items: bytes | str) -> bytes:
    digest = blake2b(digest_size=16)
    for item in items:
        data = item.encode() if isinstance(item, str) else item
        digest.update(len(data).to_bytes(4, "big") + data)
    return digest.digest()
