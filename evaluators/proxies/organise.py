"""The stage-level organiser: which depths of its stages give a network the most 3DRF gain.

Widths, strides, stem and head stay; the depths of the stretches that repeat are chosen so that the
gain (R3.5) is the largest possible under budgets for parameters and multiply-accumulates. The
search is exact: a dynamic programme over the stretches, whose states are the receptive field and,
where layers are counted, their number; of labels (parameters, MACs, gain) those are dropped that
as many others dominate as there are results to find.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf, log
from typing import NamedTuple

from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.blocks import Chain, Stretch, chain_of, facts_of
from search_spaces.ops import Facts, Shape


class Budget(NamedTuple):
    """What a network may have at most.

    Attributes:
        params: trainable parameters.
        macs: multiply-accumulates of a sample.
        layers: weight-carrying layers.
        fewest_layers: weight-carrying layers at least.
    """

    params: float = inf
    macs: float = inf
    layers: float = inf
    fewest_layers: int = 0


class Organised(NamedTuple):
    """A choice of depths.

    Attributes:
        depths: blocks of each stretch that repeats, as :attr:`search_spaces.blocks.Chain.depths`.
        params: trainable parameters of the network.
        macs: multiply-accumulates.
        gain: its 3DRF gain.
    """

    depths: tuple[int, ...]
    params: int
    macs: int
    gain: float


class _Field(NamedTuple):
    """A receptive field clipped to the image, and its step; ``whole`` behind global operators."""

    height: int
    width: int
    jump: tuple[int, int]


class _Label(NamedTuple):
    gain: float
    params: int
    macs: int
    layers: int
    depths: tuple[int, ...]


def organise(
    architecture: Architecture, budget: Budget, *, results: int = 1, most: int = 8
) -> list[Organised]:
    """Return the best choices of depths, the best first; of equal gains that with fewer parameters.

    Args:
        architecture: the network whose depths are chosen; weights are not kept.
        budget: what the result may have.
        results: how many choices to return at most.
        most: layers or blocks that a stage may have.

    Raises:
        NasError: the network is no chain of blocks, none of them repeats, or no choice of depths
            keeps the budget.
    """
    chain = chain_of(architecture, most=most)
    if not chain.depths:
        raise NasError("No block of this network can be repeated: none keeps its shape.")
    found = _search(chain, _image(architecture), budget, results)
    if not found:
        raise NasError("No choice of depths keeps the budget.")
    return [Organised(item.depths, item.params, item.macs, item.gain) for item in found[:results]]


def budget_of(architecture: Architecture) -> Budget:
    """Return what a network has as the budget of others."""
    return Budget(architecture.params, architecture.macs)


def _image(architecture: Architecture) -> Shape:
    shape = architecture.inputs[0].shape
    return shape[1:] if len(shape) == 3 else (1, 1)


def _search(chain: Chain, image: Shape, budget: Budget, results: int) -> list[_Label]:
    stretches = chain.stretches
    prices = [_price(item) for item in stretches]
    # What everything behind a stretch costs at least.
    behind: list[_Price] = [(0, 0, 0)]
    for item, price in zip(reversed(stretches), reversed(prices), strict=True):
        count = item.least if item.repeats else item.count
        behind.append(tuple(b + count * p for b, p in zip(behind[-1], price, strict=True)))
    states: dict[_Field, list[_Label]] = {_Field(1, 1, (1, 1)): [_Label(0.0, 0, 0, 0, ())]}
    for item, price, rest in zip(stretches, prices, behind[-2::-1], strict=True):
        states = _extended(item, price, rest, states, image, budget, results)
    labels = [
        label
        for group in states.values()
        for label in group
        if label.layers >= budget.fewest_layers
    ]
    return sorted(labels, key=lambda item: (-round(item.gain, 9), item.params, item.depths))


_Price = tuple[int, ...]
"""Parameters, multiply-accumulates and layers."""


def _price(stretch: Stretch) -> _Price:
    facts = facts_of(stretch)
    return (
        sum(item.params for item in facts),
        sum(item.macs for item in facts),
        sum(item.reach.weighted for item in facts),
    )


def _extended(
    stretch: Stretch,
    price: _Price,
    rest: _Price,
    states: dict[_Field, list[_Label]],
    image: Shape,
    budget: Budget,
    results: int,
) -> dict[_Field, list[_Label]]:
    """Return the states behind a stretch, for all depths it may have."""
    counts = (
        range(stretch.least, stretch.most + 1)
        if stretch.repeats
        else range(stretch.count, stretch.count + 1)
    )
    facts = facts_of(stretch)
    found: dict[_Field, list[_Label]] = {}
    for start, labels in states.items():
        field, gain = start, 0.0
        for count in range(counts[-1] + 1):
            if count:
                field, more = _through(stretch, facts, field, image)
                gain += more
            if count not in counts:
                continue
            for label in labels:
                made = _Label(
                    label.gain + gain,
                    label.params + count * price[0],
                    label.macs + count * price[1],
                    label.layers + count * price[2],
                    (*label.depths, count) if stretch.repeats else label.depths,
                )
                if _fits(made, rest, budget):
                    found.setdefault(field, []).append(made)
    counted = budget.fewest_layers > 0 or budget.layers < inf
    return {field: _kept(labels, results, counted) for field, labels in found.items()}


def _fits(label: _Label, rest: _Price, budget: Budget) -> bool:
    return (
        label.params + rest[0] <= budget.params
        and label.macs + rest[1] <= budget.macs
        and label.layers + rest[2] <= budget.layers
    )


def _kept(labels: Iterable[_Label], results: int, counted: bool) -> list[_Label]:
    """Drop labels that as many others dominate as there are results to find."""
    kept: list[_Label] = []
    for label in sorted(labels, key=lambda item: (-round(item.gain, 9), item.params, item.depths)):
        better = 0
        for other in kept:  # none of them has less gain
            better += (
                other.params <= label.params
                and other.macs <= label.macs
                and (not counted or other.layers == label.layers)
            )
            if better >= results:
                break
        else:
            kept.append(label)
    return kept


def _through(
    stretch: Stretch, facts: Sequence[Facts], start: _Field, image: Shape
) -> tuple[_Field, float]:
    """Return the field behind one block and the gain of its layers (R3.1 and R3.4)."""
    fields = [start]
    gain = 0.0
    for step, fact in zip(stretch.steps, facts, strict=True):
        sources = [fields[item + 1] for item in step.inputs]
        before = _Field(
            max(item.height for item in sources),
            max(item.width for item in sources),
            max(item.jump for item in sources),
        )
        reach = fact.reach
        after = before
        if reach.everywhere:
            after = _Field(image[0], image[1], (0, 0))
        elif reach.taps > 1 or reach.stride != (1, 1):
            (j_h, j_w), (s_h, s_w) = before.jump, reach.stride
            after = _Field(
                min(before.height + reach.span[0] * j_h, image[0]),
                min(before.width + reach.span[1] * j_w, image[1]),
                (j_h * s_h, j_w * s_w),
            )
        if reach.weighted:
            gain += log(reach.channels)
            gain += log(after.height / before.height) + log(after.width / before.width)
        fields.append(after)
    return fields[-1], gain
