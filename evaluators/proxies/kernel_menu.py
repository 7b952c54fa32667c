"""The kernel-level optimiser: which kind of kernel at which place, for the most gain in a budget.

A place is a dense convolution; its menu is the convolution itself, a depthwise one with a pointwise
(DW+PW), with a grouped pointwise (DW+GPW) and with a sliding-channel one (DW+RPW, DSXplore). At a
pointwise convolution the depthwise part falls away. By R3.4 a swap costs ``ln g`` nats of gain,
whatever the place, and saves what the place is large; DW+PW costs nothing.

Constraint (the rule of clcNet, arXiv 1712.06145): over two places in a row each output must depend
on all channels. The search is exact: a dynamic programme along the places, its state the kernel of
the last one, its labels (gain lost, parameters, MACs) without those that another dominates.

DW+PW for a dense kernel costs no gain, but it costs accuracy (``docs/results.md``), less without an
activation between the two, as in Xception (Chollet, CVPR 2017): the place keeps about one weight in
as many as a window has taps, be it wide or narrow. So of the choices of least loss that one is
taken which swaps the fewest places, which are then the largest; of those the one that keeps the
most parameters, then the most MACs: of equal places those on the smallest maps go, where a window
lies mostly in the padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from math import log
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from evaluators.proxies.organise import Budget
from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.architecture.graph import Value
from search_spaces.architecture.node import Node
from search_spaces.ops import Conv, Op, Shape
from search_spaces.ops.sliding_channel import SlidingChannel

GROUPS = (2, 4, 8)
OVERLAPS = tuple(Fraction(text) for text in ("1/4", "1/3", "1/2", "3/4"))
FEWEST_CHANNELS = 8
"""Input channels that an output must read at least."""


class Kernel(NamedTuple):
    """What stands at a place.

    Attributes:
        name: as people write it: ``DW+RPW g4 o1/2``.
        groups: parts that the channels are read in.
        ops: in order; the first one reads what the convolution read.
    """

    name: str
    groups: int
    ops: tuple[Op, ...]


class Choice(NamedTuple):
    """A network with its kernels chosen.

    Attributes:
        architecture: the network, without weights.
        kernels: names by canonical number of the convolution that they replace.
        lost: gain that was given up, in nats.
    """

    architecture: Architecture
    kernels: Mapping[int, str]
    lost: float


class _Label(NamedTuple):
    lost: float
    params: int
    macs: int
    picks: tuple[int, ...]


def choose_kernels(architecture: Architecture, budget: Budget) -> Choice:
    """Return the network of most gain within a budget, and of fewest swaps with that gain.

    Args:
        architecture: the network; its weights, variants and shared parameters are not kept.
        budget: for parameters and multiply-accumulates of the whole network.

    Raises:
        NasError: no convolution of it can be swapped, or no choice keeps the budget.
    """
    places = [n for n in range(len(architecture.nodes)) if len(menu(architecture, n)) > 1]
    if not places:
        raise NasError("No convolution of this network can be swapped for a cheaper kernel.")
    menus = [menu(architecture, place) for place in places]
    shapes = [architecture.nodes[architecture.nodes[n].inputs[0]].shape for n in places]
    prices = [
        [_price(item.ops, shape) for item in kernels]
        for kernels, shape in zip(menus, shapes, strict=True)
    ]
    fixed = (
        architecture.params - sum(architecture.nodes[n].facts.params for n in places),
        architecture.macs - sum(architecture.nodes[n].facts.macs for n in places),
    )
    label = _search(menus, shapes, prices, fixed, budget)
    label = _restored(label, menus, prices, budget)
    picked = {n: kernels[pick] for n, kernels, pick in zip(places, menus, label.picks, strict=True)}
    names = {n: kernel.name for n, kernel in picked.items()}
    return Choice(_swapped(architecture, picked), names, label.lost)


def menu(architecture: Architecture, number: int) -> list[Kernel]:
    """Return what may stand in place of a node, the node itself first."""
    node = architecture.nodes[number]
    own = [Kernel("as it is", 1, (node.op,))]
    op = node.op
    if not isinstance(op, Conv) or op.groups > 1 or node.tie is not None:
        return own
    source = architecture.nodes[node.inputs[0]]
    channels = source.shape[0]
    if source.op.kind == "input" or node.shape[1:] == (1, 1):
        return own
    depthwise: tuple[Op, ...] = ()
    if op.kernel != (1, 1):
        depthwise = (_depthwise(op, channels),)
        own.append(Kernel("DW+PW", 1, (*depthwise, _pointwise(op, 1))))
    elif op.stride != (1, 1):
        return own
    prefix = "DW+" if depthwise else ""
    for groups in GROUPS:
        if channels % groups or channels // groups < FEWEST_CHANNELS:
            continue
        if op.out_channels % groups == 0:
            own.append(
                Kernel(f"{prefix}GPW g{groups}", groups, (*depthwise, _pointwise(op, groups)))
            )
        for overlap in OVERLAPS:
            name = f"{prefix}RPW g{groups} o{overlap}"
            own.append(Kernel(name, groups, (*depthwise, _sliding(op, groups, overlap))))
    return own


def _depthwise(op: Conv, channels: int) -> Conv:
    """Return the spatial half, with norm but no activation: what it stands for is linear too."""
    return Conv.of(
        channels,
        kernel=op.kernel,
        stride=op.stride,
        dilation=op.dilation,
        padding=op.padding,
        groups=channels,
        bias=op.bias,
        norm=op.norm,
    )


def _pointwise(op: Conv, groups: int) -> Conv:
    return Conv.of(op.out_channels, groups=groups, bias=op.bias, norm=op.norm, act=op.act)


def _sliding(op: Conv, groups: int, overlap: Fraction) -> SlidingChannel:
    return SlidingChannel.of(
        op.out_channels, cg=groups, co=overlap, bias=op.bias, norm=op.norm, act=op.act
    )


def _price(ops: Sequence[Op], shape: Shape) -> tuple[int, int]:
    params = macs = 0
    for op in ops:
        facts = op.facts((shape,))
        params, macs, shape = params + facts.params, macs + facts.macs, facts.shape
    return params, macs


def _search(
    menus: Sequence[Sequence[Kernel]],
    shapes: Sequence[Shape],
    prices: Sequence[Sequence[tuple[int, int]]],
    fixed: tuple[int, int],
    budget: Budget,
) -> _Label:
    behind = [(0, 0)]  # what the places behind a place cost at least
    for price in reversed(prices):
        least = (min(item[0] for item in price), min(item[1] for item in price))
        behind.append((behind[-1][0] + least[0], behind[-1][1] + least[1]))
    states: dict[int, list[_Label]] = {-1: [_Label(0.0, *fixed, ())]}
    for place, (kernels, price) in enumerate(zip(menus, prices, strict=True)):
        rest = behind[len(menus) - 1 - place]
        found: dict[int, list[_Label]] = {}
        for pick, (kernel, (params, macs)) in enumerate(zip(kernels, price, strict=True)):
            labels = [
                _Label(
                    label.lost + log(kernel.groups),
                    label.params + params,
                    label.macs + macs,
                    (*label.picks, pick),
                )
                for before, group in states.items()
                if place == 0
                or _covers(menus[place - 1][before], shapes[place - 1], kernel, shapes[place])
                for label in group
            ]
            labels = [
                item
                for item in labels
                if item.params + rest[0] <= budget.params and item.macs + rest[1] <= budget.macs
            ]
            if labels:
                found[pick] = _undominated(labels)
        states = found
    if not states:
        raise NasError("No choice of kernels keeps the budget and reads all channels.")
    return min((item for group in states.values() for item in group), key=_order)


_MOST_SUMS = 20_000
"""Different sums of parameters and MACs that are told apart; beyond, those of fewest swaps are."""


def _restored(
    label: _Label,
    menus: Sequence[Sequence[Kernel]],
    prices: Sequence[Sequence[tuple[int, int]]],
    budget: Budget,
) -> _Label:
    """Put as many places as possible back to what they were, of those that cost no gain."""
    sums = {(label.params, label.macs): (0, label.picks)}
    for place, pick in enumerate(label.picks):
        if pick == 0 or menus[place][pick].groups > 1:
            continue
        params, macs = (a - b for a, b in zip(prices[place][0], prices[place][pick], strict=True))
        for (own, work), (count, picks) in list(sums.items()):
            both = own + params, work + macs
            if both[0] <= budget.params and both[1] <= budget.macs:
                back = count + 1, (*picks[:place], 0, *picks[place + 1 :])
                sums[both] = max(sums.get(both, back), back)
        if len(sums) > _MOST_SUMS:
            order = sorted(sums.items(), key=lambda item: (-item[1][0], item[0]))
            sums = dict(order[:_MOST_SUMS])
    (params, macs), (_, picks) = max(
        sums.items(), key=lambda item: (item[1][0], item[0][0], item[0][1])
    )
    return _Label(label.lost, params, macs, picks)


def _order(label: _Label) -> tuple[float, int, int, tuple[int, ...]]:
    return round(label.lost, 9), label.params, label.macs, label.picks


def _undominated(labels: Sequence[_Label]) -> list[_Label]:
    kept: list[_Label] = []
    for label in sorted(labels, key=_order):
        if all(label.params < item.params or label.macs < item.macs for item in kept):
            kept.append(label)
    return kept


def _covers(first: Kernel, shape: Shape, second: Kernel, between: Shape) -> bool:
    """Tell whether an output of the second kernel depends on every input channel of the first.

    Kernels that do not read one another, for they are of other widths, are not held against each
    other.
    """
    if first.groups == 1 or second.groups == 1:
        return True
    if first.ops[-1].infer((shape,))[0] != between[0]:
        return True
    return _full(_bare(first.ops[-1]), shape[0], _bare(second.ops[-1]), between[0])


@lru_cache(maxsize=4096)
def _bare(op: Op) -> Op:
    """Return an operator without what follows its product, so that fewer differ."""
    return replace(op, norm=None, act=None, bias=False)  # type: ignore[call-arg]


@lru_cache(maxsize=4096)
def _full(first: Op, channels: int, second: Op, between: int) -> bool:
    """Tell whether the windows of the second, over those of the first, reach all channels."""
    starts, width = _windows(second, between)
    # Ones of the rows up to each, twice round, so that a window is a difference.
    ones = np.cumsum(np.tile(_mask(first, channels), (2, 1)), axis=0, dtype=np.int32)
    ones = np.vstack([np.zeros((1, channels), dtype=np.int32), ones])
    return bool((ones[starts + width] > ones[starts]).all())


@lru_cache(maxsize=256)
def _mask(op: Op, channels: int) -> npt.NDArray[np.bool_]:
    return op.masks(((channels, 1, 1),))[0]


@lru_cache(maxsize=256)
def _windows(op: Op, channels: int) -> tuple[npt.NDArray[np.intp], int]:
    """Return where the channels begin that outputs read in a row, cyclically, and how many."""
    mask = _mask(op, channels)
    begins = mask & ~np.roll(mask, 1, axis=1)
    return np.unique(begins.argmax(axis=1)), int(mask[0].sum())


def _swapped(architecture: Architecture, picked: Mapping[int, Kernel]) -> Architecture:
    values: list[Value] = []
    for number, node in enumerate(architecture.nodes):
        values.append(_placed(node, [values[item] for item in node.inputs], picked.get(number)))
    return Architecture.freeze(values[-1])


def _placed(node: Node, sources: Sequence[Value], kernel: Kernel | None) -> Value:
    ops = (node.op,) if kernel is None else kernel.ops
    value = Value(ops[0], tuple(sources), node.scope)
    for op in ops[1:]:
        value = Value(op, (value,), f"{node.scope}/mix" if node.scope else "")
    return value
