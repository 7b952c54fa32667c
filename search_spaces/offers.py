"""Which variants a space offers for a layer: those that a kernel system says suit it.

A system that executes variants (``variants.py``) may say so by a method ``offers``. Where none
does, a space asks no question about variants, and its candidates are dense.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Protocol, runtime_checkable

from kernels.errors import UnknownNameError
from search_spaces import scope
from search_spaces.architecture import Architecture
from search_spaces.architecture.graph import Value, assign_variant, in_order, share_parameters
from search_spaces.architecture.node import Variant
from search_spaces.choose import Chooser, Option
from search_spaces.errors import SpaceError
from search_spaces.ops import Input, Op, Shape
from search_spaces.space import Candidate, DataSpec, Space
from search_spaces.variants import systems


@runtime_checkable
class Offering(Protocol):
    """What a system that executes variants may add to it."""

    def offers(self, op: Op, inputs: tuple[Shape, ...]) -> Sequence[str]:
        """Return the variants (``shfl_bw(V=64,density=0.25)``) that suit an operator."""
        ...


_NAMES_OF_ROLES = {
    "qkv": "query key value q_proj k_proj v_proj",
    "out": "out o_proj out_proj",
    "up": "gate up gate_proj up_proj c_fc fc1",
    "down": "down down_proj fc2",
}
ROLES: Mapping[str, str] = {
    name: role for role, names in _NAMES_OF_ROLES.items() for name in names.split()
}
"""The role that a linear layer of a transformer plays, by the last part of its scope."""

_QUESTION = "variant"
_LOOKS = 20
"""Candidates that are looked at for whether a space asks for variants."""
_NUMBER = re.compile(r"\d+")
DENSE = "dense"
"""The answer that leaves a layer as it is."""
BY_BLOCK = "by block"
"""The answer that lets each block of a network have its own."""


def offered(op: Op, inputs: tuple[Shape, ...], kinds: Sequence[str] = ()) -> list[str]:
    """Return the variants that systems offer for an operator at input shapes.

    Args:
        op: the operator.
        inputs: shapes of what it reads.
        kinds: of variants; empty for all.
    """
    return _offers(_offering(kinds), op, inputs, kinds)


def place_text(op: Op, inputs: tuple[Shape, ...]) -> str:
    """Return the name of a place: all layers of one operator that read the same shapes."""
    return f"{op.text} of {' '.join('x'.join(map(str, shape)) for shape in inputs)}"


def _offers(
    offering: Sequence[Offering], op: Op, inputs: tuple[Shape, ...], kinds: Sequence[str]
) -> list[str]:
    found = [variant for system in offering for variant in system.offers(op, inputs)]
    return [item for item in found if not kinds or Variant.parse(item).kind in kinds]


def _offering(kinds: Sequence[str]) -> list[Offering]:
    """Return the systems of some kinds that offer anything.

    Raises:
        UnknownNameError: a kind is none of theirs.
    """
    found = {kind: system for kind, system in systems() if isinstance(system, Offering)}
    for kind in kinds:
        if kind not in found:
            raise UnknownNameError("variant", kind, found)
    named = [system for kind, system in found.items() if not kinds or kind in kinds]
    return list(dict.fromkeys(named))


def choose_variants(choose: Chooser, output: Value) -> Value:
    """Ask, for each role in a network, by which variant its layers are executed.

    The question is ``<block>/<role>/variant``. Where several blocks have a role, it is first asked
    of all of them, with stars for their numbers (``block*/attention/qkv/variant``); the answer
    :data:`BY_BLOCK` leads to the question of each block. So of n blocks the networks that have one
    variant in all layers of a role are one in a few, and not one in k^n.

    A block is asked about only where something is offered for all its layers of the role, and each
    layer becomes a region of its own. What the space leaves out is no answer.

    Args:
        choose: asked at the top of a space, after the network is written.
        output: of the network.

    Returns:
        the output.

    Raises:
        UnknownNameError: nothing offers variants of a kind.
    """
    offering = _offering(choose.kinds)
    if not offering:
        return output
    for role, blocks in _roles(output).items():
        offers = {
            block: _common([_paying(choose, offering, layer) for layer in layers])
            for block, layers in blocks.items()
        }
        able = [block for block, offer in offers.items() if offer]
        shared = _common([offers[block] for block in able]) if len(able) > 1 else []
        answer = choose(f"{role}/{_QUESTION}", [DENSE, *shared, BY_BLOCK]) if shared else BY_BLOCK
        for block in able:
            own = answer
            if answer == BY_BLOCK:
                own = choose(f"{block}/{_QUESTION}", [DENSE, *offers[block]])
            if own != DENSE:
                for layer in blocks[block]:
                    assign_variant([layer], Variant.parse(own))
    return output


def _common(lists: Sequence[Sequence[str]]) -> list[str]:
    """Return what all lists have, in the order of the first."""
    return [item for item in lists[0] if all(item in some for some in lists)]


def _paying(choose: Chooser, offering: Sequence[Offering], layer: Value) -> list[str]:
    """Return what is offered for a layer, without what was found not to pay there."""
    inputs = tuple(item.shape for item in layer.inputs)
    left_out = choose.left_out.get(place_text(layer.op, inputs), ())
    offers = _offers(offering, layer.op, inputs, choose.kinds)
    return [item for item in offers if item not in left_out]


def variant_space(name: str, architecture: Architecture, kinds: Sequence[str] = ()) -> Space:
    """Return the space of the variants of a network, such as a trained one that was traced.

    Its candidates have no weights of their own: they share those of the network, by node number.

    Args:
        name: of the space.
        architecture: the network.
        kinds: of variants; empty for all.
    """
    ids = any(isinstance(node.op, Input) and node.op.vocabulary for node in architecture.inputs)

    def variants(choose: Chooser, data: DataSpec) -> Value:
        return choose_variants(choose, _values(architecture))

    return Space(name, 2, variants, "text" if ids else "images", kinds=tuple(kinds))


def of_kinds(space: Space, kinds: Sequence[str], data: DataSpec) -> Space:
    """Return a space that offers some kinds of variants alone.

    Args:
        space: the space.
        kinds: of variants.
        data: what it is run for.

    Raises:
        UnknownNameError: nothing offers variants of a kind.
        SpaceError: it asks for no variant of these kinds.
    """
    narrowed = replace(space, kinds=tuple(kinds))
    for seed in range(_LOOKS):
        names = narrowed.sample(Random(seed), data).decisions
        if any(name.rpartition("/")[2] == _QUESTION for name in names):
            return narrowed
    raise SpaceError(f"The space {space.name} asks for no variant of the kinds {', '.join(kinds)}.")


def everywhere(space: Space, data: DataSpec) -> Iterator[tuple[str, Candidate]]:
    """Yield the network of a :func:`variant_space` as it is, then one variant wherever it can be.

    Args:
        space: of the variants of a network.
        data: what it is run for.

    Yields:
        The variant, or :data:`DENSE`, and the candidate.
    """
    walk = _Everywhere(BY_BLOCK)
    space.run(walk, data)
    for variant in dict.fromkeys([DENSE, *walk.met]):
        if variant != BY_BLOCK:
            yield str(variant), space.run(_Everywhere(variant), data)


class _Everywhere:
    """Answers one variant where it is offered, and leaves the other layers as they are.

    Attributes:
        met: all answers that were offered, in order.
    """

    def __init__(self, variant: Option) -> None:
        self._wanted = (DENSE,) if variant == DENSE else (variant, BY_BLOCK, DENSE)
        self.met: dict[Option, None] = {}

    def decide(self, name: str, options: Sequence[Option]) -> int:
        """See :class:`search_spaces.choose.Decider`."""
        self.met.update(dict.fromkeys(options))
        return next(options.index(wanted) for wanted in self._wanted if wanted in options)


def _values(architecture: Architecture) -> Value:
    """Return a network as values again, without variants and weights."""
    values: list[Value] = []
    for node in architecture.nodes:
        value = Value(node.op, tuple(values[item] for item in node.inputs), node.scope)
        if node.tie is not None:
            share_parameters(value, values[node.tie])
        values.append(value)
    return values[-1]


def _roles(output: Value) -> dict[str, dict[str, list[Value]]]:
    """Return the layers with weights by role, then by block, in the order they are computed.

    Blocks whose names differ in numbers alone have their roles in common.
    """
    found: dict[str, dict[str, list[Value]]] = {}
    for value in in_order(output):
        if value.facts.reach.weighted:
            outer, _, last = value.scope.rpartition("/")
            role = ROLES.get(last, last)
            blocks = found.setdefault(scope.join(_NUMBER.sub("*", outer), role), {})
            blocks.setdefault(scope.join(outer, role), []).append(value)
    return found
