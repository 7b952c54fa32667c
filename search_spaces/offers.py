"""Which variants could execute a layer: kernel systems enrol what they can do, spaces offer it.

Nothing is enrolled as long as no system can run its variant from training to export; a space then
asks no question about variants, and its candidates are dense.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from kernels.registry import Registry
from search_spaces.architecture.graph import Value, assign_variant, in_order
from search_spaces.architecture.node import Variant
from search_spaces.choose import Chooser
from search_spaces.ops import Op, Shape

Offer = Callable[[Op, tuple[Shape, ...]], Sequence[str]]
"""Returns the variants (``shfl_bw(V=64,density=0.25)``) that suit an operator at input shapes."""

OFFERS: Registry[Offer] = Registry("variant")
"""By kind of variant."""

ROLES: Mapping[str, str] = {
    "query": "qkv",
    "key": "qkv",
    "value": "qkv",
    "out": "out",
    "gate": "up",
    "up": "up",
    "down": "down",
}
"""The role that a linear layer of a transformer plays, by the last part of its scope."""

DENSE = "dense"
"""The answer that leaves a layer as it is."""


def offered(op: Op, inputs: tuple[Shape, ...]) -> list[str]:
    """Return the variants that enrolled systems offer for an operator at input shapes."""
    return [variant for _, offer in OFFERS for variant in offer(op, inputs)]


def choose_variants(choose: Chooser, output: Value) -> Value:
    """Ask, for each role in each block of a network, by which variant its layers are executed.

    The question is ``<block>/<role>``; it is asked only where something is offered for every layer
    of the role, and each layer becomes a region of its own.

    Args:
        choose: asked at the top of a space, after the network is written.
        output: of the network.

    Returns:
        the output.
    """
    if not OFFERS.names():
        return output
    for name, layers in _roles(output).items():
        choices = [offered(item.op, tuple(i.shape for i in item.inputs)) for item in layers]
        common = [variant for variant in choices[0] if all(variant in some for some in choices)]
        if common:
            answer = choose(f"{name}/variant", [DENSE, *common])
            if answer != DENSE:
                for layer in layers:
                    assign_variant([layer], Variant.parse(answer))
    return output


def _roles(output: Value) -> dict[str, list[Value]]:
    """Return the layers with weights by block and role, in the order they are computed."""
    found: dict[str, list[Value]] = {}
    for value in in_order(output):
        if value.facts.reach.weighted:
            outer, _, last = value.scope.rpartition("/")
            role = ROLES.get(last, last)
            found.setdefault(f"{outer}/{role}" if outer else role, []).append(value)
    return found
