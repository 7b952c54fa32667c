"""Rewrites a graph into the one that is hashed, built and measured; outputs never change.

Rules, in order:

1. *Absent values.* What only depends on a :class:`Zero` carries nothing of the input. It is dropped
   from sums; a product with it, and any operator on it, is absent too. This is what absent means:
   a layer with a bias would make a constant of zeros, but no information passes it.
2. *Identities.* An operator that returns its input is skipped.
3. *Repeats.* Two operators without parameters or randomness on the same inputs are one.
4. *Coarse nodes.* A normalisation or activation that alone reads a convolution, linear or norm node
   becomes part of that node.

What the output does not depend on is never reached and so drops out by itself.
"""

from __future__ import annotations

from collections import Counter

from search_spaces.graph import Value, consumers, in_order
from search_spaces.ops import Activation, Add, Concat, Dropout, Norm, Op, Zero


def normalise(output: Value) -> tuple[Value, dict[Value, Value]]:
    """Return the normal form of a graph, and what became of its values.

    Args:
        output: the network's output.

    Returns:
        The new output, and a map from every old value that is still computed to the value that
        computes it (the node it was merged into, where it was).
    """
    pruned, first = _prune(in_order(output))
    merged, second = _merge(in_order(pruned[output]), first)
    return merged[pruned[output]], second


_REWRITTEN = (Zero, Activation, Norm)


def is_normal(order: list[Value]) -> bool:
    """Tell whether no rule can apply to these values."""
    calls = set()
    for value in [value for value in order if not value.op.plain]:
        if value.facts.identity or isinstance(value.op, _REWRITTEN):
            return False
        call = _call(value.op, value.inputs)
        if call in calls:
            return False
        calls.add(call)
    return True


def _is_identity(op: Op, inputs: tuple[Value, ...]) -> bool:
    return op.facts(tuple([value.facts.shape for value in inputs])).identity


_Call = tuple[str, tuple[Value, ...]]


def _call(op: Op, inputs: tuple[Value, ...]) -> _Call:
    return op.text, tuple(sorted(inputs, key=id)) if op.commutative else inputs


def _prune(order: list[Value]) -> tuple[dict[Value, Value], dict[Value, Value]]:
    """Apply rules 1 to 3.

    Returns:
        What stands for each value now, and the same without values that became absent.
    """
    new: dict[Value, Value] = {}
    known: dict[_Call, Value] = {}
    for value in order:
        inputs = tuple([new[item] for item in value.inputs])
        if isinstance(value.op, Add):
            inputs = tuple([v for v in inputs if not isinstance(v.op, Zero)]) or inputs[:1]
        absent = [isinstance(item.op, Zero) for item in inputs]
        if inputs and (all(absent) if isinstance(value.op, Concat) else any(absent)):
            new[value] = Value(Zero.of(shape=value.shape), (), value.scope)
        elif _is_identity(value.op, inputs):
            new[value] = inputs[0]
        else:
            new[value] = _rebuilt(value, inputs)
        result = new[value]
        repeats = not (result.facts.params or isinstance(result.op, Dropout))
        if repeats and result.inputs:
            new[value] = known.setdefault(_call(result.op, result.inputs), result)
    kept = {old: now for old, now in new.items() if not isinstance(now.op, Zero)}
    return new, kept


def _rebuilt(value: Value, inputs: tuple[Value, ...]) -> Value:
    if inputs == value.inputs:
        return value
    return Value(value.op, inputs, value.scope, group=value.group, weights=value.weights)


def _merge(
    order: list[Value], became: dict[Value, Value]
) -> tuple[dict[Value, Value], dict[Value, Value]]:
    """Apply rule 4.

    Args:
        order: the values to rewrite.
        became: what older values stand for among them.

    Returns:
        What stands for each value of ``order`` now, and ``became`` carried forward.
    """
    readers = consumers(order)
    sharing = Counter(value.group for value in order if value.group is not None)
    new: dict[Value, Value] = {}
    swallowed: dict[Value, Value] = {}
    for value in order:
        inputs = tuple([new[item] for item in value.inputs])
        whole = _absorbed(value, inputs, sharing) if len(inputs) == 1 else None
        if whole is not None and readers[value.inputs[0]] == 1:
            weights = {**(inputs[0].weights or {}), **(value.weights or {})} or None
            new[value] = Value(whole, inputs[0].inputs, inputs[0].scope, weights=weights)
            swallowed[inputs[0]] = new[value]
        else:
            new[value] = _rebuilt(value, inputs)
    final = {}
    for old, now in became.items():
        if now in new:  # else nothing reads it any more
            final[old] = new[now]
            while final[old] in swallowed:
                final[old] = swallowed[final[old]]
    return new, final


def _absorbed(value: Value, inputs: tuple[Value, ...], sharing: Counter[object]) -> Op | None:
    producer = inputs[0]
    if sharing[producer.group] > 1 or sharing[value.group] > 1:  # a partner needs it as it is
        return None
    return producer.op.absorb(value.op)
