"""Rewrites a graph into the one that is hashed, built and measured; outputs never change.

Rules, in order:

1. *Absent values.* What only depends on a :class:`Zero` carries nothing of the input. It is dropped
   from sums; a product with it, and a layer on it, is absent too. (With a bias or norm a layer
   makes a constant of zeros. That constant is dropped, for no information passes it.) An operator
   that would let other inputs through, such as a sigmoid gate, is refused on an absent value.
2. *Identities.* An operator that returns its input is skipped.
3. *Repeats.* Two operators without parameters or randomness on the same inputs are one.
4. *Coarse nodes.* A normalisation or activation that alone reads a convolution, linear or norm node
   becomes part of that node.

What the output does not depend on is never reached and so drops out by itself.
"""

from __future__ import annotations

from collections import Counter

from search_spaces.architecture.graph import Value, consumers, in_order
from search_spaces.errors import ArchitectureError, OpError
from search_spaces.ops import Activation, Add, Dropout, Norm, Op, Zero


def normalise(output: Value) -> Value:
    """Return the output of the normal form of a graph; the graph itself stays as it is."""
    return _merge(in_order(_prune(in_order(output))))


_ABSORBED = (Activation, Norm)


def is_normal(order: list[Value]) -> bool:
    """Tell whether no rule can apply to these values."""
    calls = set()
    for value in [value for value in order if not value.op.plain]:
        if value.facts.identity or isinstance(value.op, Zero):
            return False
        if isinstance(value.op, _ABSORBED) and value.inputs[0].op.absorb(value.op) is not None:
            return False
        call = _call(value)
        if call in calls:
            return False
        calls.add(call)
    return True


def _is_identity(op: Op, inputs: tuple[Value, ...]) -> bool:
    return op.facts(tuple([value.facts.shape for value in inputs])).identity


_Call = tuple[str, tuple[Value, ...], object]


def _call(value: Value) -> _Call:
    inputs = value.inputs
    ordered = tuple(sorted(inputs, key=id)) if value.op.commutative else inputs
    return value.op.text, ordered, value.region


def _prune(order: list[Value]) -> Value:
    """Apply rules 1 to 3 to the values of a graph, and return its new output."""
    new: dict[Value, Value] = {}
    known: dict[_Call, Value] = {}
    for value in order:
        inputs = tuple([new[item] for item in value.inputs])
        if isinstance(value.op, Add):
            inputs = tuple([v for v in inputs if not isinstance(v.op, Zero)]) or inputs[:1]
        if _is_absent(value, inputs):
            new[value] = Value(Zero.of(shape=value.shape), (), value.scope)
        elif _is_identity(value.op, inputs):
            new[value] = inputs[0]
        else:
            result = _rebuilt(value, inputs)
            repeats = inputs and not (result.facts.params or isinstance(result.op, Dropout))
            new[value] = known.setdefault(_call(result), result) if repeats else result
    return new[order[-1]]


def _is_absent(value: Value, inputs: tuple[Value, ...]) -> bool:
    absent = tuple([isinstance(item.op, Zero) for item in inputs])
    if not any(absent):
        return False
    try:
        return value.op.is_absent(absent)
    except OpError as problem:
        raise ArchitectureError(f"{value.scope or value.op.kind}: {problem}") from None


def _rebuilt(value: Value, inputs: tuple[Value, ...]) -> Value:
    if inputs == value.inputs:
        return value
    return Value(
        value.op,
        inputs,
        value.scope,
        group=value.group,
        weights=value.weights,
        region=value.region,
    )


def _merge(order: list[Value]) -> Value:
    """Apply rule 4 to the values of a graph, and return its new output."""
    readers = consumers(order)
    sharing = Counter(value.group for value in order if value.group is not None)
    new: dict[Value, Value] = {}
    for value in order:
        inputs = tuple([new[item] for item in value.inputs])
        alone = len(inputs) == 1 and readers[value.inputs[0]] == 1
        whole = _absorbed(value, inputs[0], sharing) if alone else None
        new[value] = _rebuilt(value, inputs) if whole is None else whole
    return new[order[-1]]


def _absorbed(value: Value, producer: Value, sharing: Counter[object]) -> Value | None:
    """Return the one value that does what two do, if there is such an operator."""
    if sharing[producer.group] > 1 or sharing[value.group] > 1:  # a partner needs it as it is
        return None
    regions = {producer.region, value.region} - {None}
    op = producer.op.absorb(value.op) if len(regions) < 2 else None
    if op is None:
        return None
    return Value(
        op,
        producer.inputs,
        producer.scope,
        weights={**(producer.weights or {}), **(value.weights or {})} or None,
        region=producer.region or value.region,
    )
