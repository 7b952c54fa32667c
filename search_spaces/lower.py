"""From a network to the pieces of work a device executes: the Plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kernels.device import Device
from kernels.workload import Scalar, Workload
from search_spaces.architecture import Architecture
from search_spaces.architecture.node import Node

_FREE = frozenset({"input", "zero", "flatten", "tokens", "tokenpool first", "tokenpool last"})
"""Operators that no kernel executes, by kind or by text."""
_FOLLOWERS = frozenset({"add", "mul", "act", "norm"})
"""Pointwise operators that run in the launch of the node before, where it alone feeds them."""
_REDUCING = ("ln", "rms")
"""Norms that are not pointwise: they need all features of a token first."""


@dataclass(frozen=True, slots=True)
class Step:
    """One workload of a plan.

    Attributes:
        workload: what is computed.
        nodes: canonical numbers of the nodes it computes, rising.
    """

    workload: Workload
    nodes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A network as workloads, in an order in which they can run.

    Attributes:
        steps: the workloads; equal ones occur once for every place that needs them.
    """

    steps: tuple[Step, ...]

    def distinct(self) -> dict[Workload, int]:
        """Return the different workloads and how often each occurs."""
        count: dict[Workload, int] = {}
        for step in self.steps:
            count[step.workload] = count.get(step.workload, 0) + 1
        return count


def lower(
    architecture: Architecture, device: Device, *, batch: int = 1, dtype: str = "float32"
) -> Plan:
    """Group the nodes of a network into workloads for a device.

    A convolution or linear node takes the pointwise nodes behind it (residual sum, activation)
    into its launch where it alone feeds them. A region with a variant is one workload. Half
    precision on a GPU is laid out channels-last, all else contiguous.

    Args:
        architecture: the network.
        device: where it will run.
        batch: samples per launch.
        dtype: element type, a torch name: ``float32``, ``float16``, ``bfloat16``.
    """
    half = dtype in ("float16", "bfloat16")
    layout = "channels_last" if device.kind == "cuda" and half else "contiguous"
    steps = []
    for group, variant in _groups(architecture):
        nodes = [architecture.nodes[number] for number in group]
        outside = [item for node in nodes for item in node.inputs if item not in group]
        op, attrs = _work(nodes)
        workload = Workload(
            op=op,
            inputs=tuple((batch, *architecture.nodes[item].shape) for item in outside),
            output=(batch, *nodes[-1].shape),
            attrs=attrs,
            dtype=dtype,
            layout=layout,
            variant=variant,
            fused=_fused(nodes),
        )
        steps.append(Step(workload, group))
    return Plan(tuple(steps))


def _groups(architecture: Architecture) -> list[tuple[tuple[int, ...], str]]:
    """Return the nodes of each workload and its variant, ordered by their last node."""
    nodes = architecture.nodes
    region_of = {number: region for region in architecture.regions for number in region.nodes}
    readers: dict[int, int] = {}
    for node in nodes:
        for item in node.inputs:
            readers[item] = readers.get(item, 0) + 1
    groups: dict[int, list[int]] = {}
    leader: dict[int, int] = {}
    for number, node in enumerate(nodes):
        region = region_of.get(number)
        if region is not None:
            first = region.nodes[0]
        elif node.op.kind in _FREE or node.op.text in _FREE:
            continue
        else:
            first = _host(number, nodes, readers, leader, region_of)
        leader[number] = first
        groups.setdefault(first, []).append(number)
    placed = sorted(groups.values(), key=lambda group: group[-1])
    return [
        (tuple(group), str(region_of[group[0]].variant) if group[0] in region_of else "dense")
        for group in placed
    ]


def _host(
    number: int,
    nodes: Sequence[Node],
    readers: dict[int, int],
    leader: dict[int, int],
    regions: Mapping[int, object],
) -> int:
    """Return the first node of the launch that a node runs in, itself where it has its own."""
    node = nodes[number]
    pointwise = getattr(node.op, "norm", None) not in _REDUCING
    if node.op.kind in _FOLLOWERS and node.inputs and pointwise:
        last = max(node.inputs)  # the others are computed before it
        weighted = last in leader and nodes[leader[last]].facts.reach.weighted
        if weighted and readers[last] == 1 and last not in regions:
            return leader[last]
    return number


def _work(nodes: Sequence[Node]) -> tuple[str, tuple[tuple[str, Scalar], ...]]:
    """Return the operator of a launch and its attributes, numbered where it joins several."""
    main = [node.op for node in nodes if node.op.kind not in _FOLLOWERS] or [nodes[0].op]
    works = [op.work() for op in main]
    if len(works) == 1:
        op, attrs = works[0]
        return op, tuple(sorted(attrs.items()))
    pairs = [(f"{i}.{n}", v) for i, (_, attrs) in enumerate(works) for n, v in attrs.items()]
    return "+".join(op for op, _ in works), tuple(sorted(pairs))


def _fused(nodes: Sequence[Node]) -> tuple[str, ...]:
    names: list[str] = []
    for node in nodes:
        attrs = node.op.to_json()
        if node.op.kind in ("add", "mul") and len(nodes) > 1:
            names.append(node.op.kind)
        names += [str(attrs[name]) for name in ("norm", "act") if attrs.get(name)]
    return tuple(names)
