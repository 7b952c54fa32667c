"""Latency of the layers of networks: each distinct workload of their plans, timed by itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import torch

from evaluators.latency.latency import LatencyEvaluator
from evaluators.latency.setting import check_conditions, conditions_of
from evaluators.latency.subject import DTYPES, faults, layout_of, random_inputs
from evaluators.protocol import EvaluationError
from kernels.errors import NasError
from kernels.exclusive import exclusive
from kernels.timing import CALLS_PER_GRAPH, Call, Timing
from search_spaces.architecture import Architecture
from search_spaces.architecture.graph import Value
from search_spaces.build import build
from search_spaces.lower import Step, lower
from search_spaces.ops.source import Input
from search_spaces.variants import realise

_TOGETHER = 24
"""Layers that are timed side by side: more hold more memory, fewer repeat the reference more."""


@dataclass(frozen=True, slots=True)
class LayerTime:
    """The latency of one workload.

    Attributes:
        median_us: in microseconds.
        p10_us: fast end of the samples.
        p90_us: slow end.
        count: samples.
        disturbed: why it is not to be trusted; empty where it is.
    """

    median_us: float
    p10_us: float
    p90_us: float
    count: int
    disturbed: tuple[str, ...] = ()


class LayerTable:
    """Latencies by workload, for one device and one way of running.

    Args:
        conditions: see :func:`evaluators.latency.setting.conditions_of`.
        times: by the workload's text.
        failed: reasons by the workload's text.
    """

    def __init__(
        self,
        conditions: Mapping[str, Any],
        times: Mapping[str, LayerTime] | None = None,
        failed: Mapping[str, str] | None = None,
    ) -> None:
        self.conditions = dict(conditions)
        self.times = dict(times or {})
        self.failed = dict(failed or {})

    def settled(self, name: str) -> bool:
        """Tell whether a workload's text needs no measurement: it failed, or was undisturbed."""
        return name in self.failed or (name in self.times and not self.times[name].disturbed)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values that :meth:`from_json` reads."""
        times = {name: asdict(item) for name, item in self.times.items()}
        return {"conditions": self.conditions, "times": times, "failed": self.failed}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> LayerTable:
        """Read a table.

        Raises:
            NasError: it is no such table.
        """
        try:
            times = {
                name: LayerTime(**{**item, "disturbed": tuple(item["disturbed"])})
                for name, item in document["times"].items()
            }
            return cls(document["conditions"], times, document["failed"])
        except (KeyError, TypeError, AttributeError) as problem:
            raise NasError(f"This is no table of layers: {problem!r}.") from None

    def __str__(self) -> str:
        return json.dumps(self.conditions)


def layer_of(architecture: Architecture, step: Step) -> Architecture:
    """Return the part of a network that one workload computes, as a network of its own.

    One that is a variant's stays one.
    """
    values: dict[int, Value] = {}

    def value(number: int) -> Value:
        if number not in values:
            node = architecture.nodes[number]
            if number in step.nodes:
                inputs = tuple(value(item) for item in node.inputs)
                values[number] = Value(node.op, inputs, node.scope)
            else:
                given = isinstance(node.op, Input)  # token ids stay token ids
                source = node.op if given else Input.of(shape=node.shape)
                values[number] = Value(source, (), f"input{number}")
        return values[number]

    layer = Architecture.freeze(value(step.nodes[-1]))
    if step.workload.variant == "dense":
        return layer
    inside = [n for n, node in enumerate(layer.nodes) if not isinstance(node.op, Input)]
    return layer.with_variant(inside, step.workload.variant)


def plan_of(architecture: Architecture, evaluator: LatencyEvaluator) -> tuple[Step, ...]:
    """Return the workloads of a network as an evaluator would run it."""
    plan = lower(architecture, evaluator.device, batch=evaluator.batch, dtype=evaluator.dtype)
    return plan.steps


def measure_layers(
    architectures: Iterable[Architecture],
    evaluator: LatencyEvaluator,
    *,
    table: LayerTable | None = None,
) -> LayerTable:
    """Time every distinct workload of some networks that a table does not hold undisturbed.

    Args:
        architectures: the networks.
        evaluator: on which device and how to time.
        table: filled where it is given.

    Raises:
        NasError: the device cannot be had, or the table is of other conditions.
    """
    found = LayerTable(conditions_of(evaluator)) if table is None else table
    check_conditions(found.conditions, evaluator)
    wanted: dict[str, Architecture] = {}
    for architecture in architectures:
        for step in plan_of(architecture, evaluator):
            name = str(step.workload)
            if not found.settled(name) and name not in wanted:
                wanted[name] = layer_of(architecture, step)
    with exclusive(evaluator.device), torch.inference_mode():
        for group in _groups(wanted):
            _time_group(group, evaluator, found)
    return found


def _groups(wanted: Mapping[str, Architecture]) -> Iterator[dict[str, Architecture]]:
    items = iter(wanted.items())
    while group := dict(islice(items, _TOGETHER)):
        yield group


def _time_group(
    group: Mapping[str, Architecture], evaluator: LatencyEvaluator, table: LayerTable
) -> None:
    calls: dict[str, Call] = {}
    for name, layer in group.items():
        try:
            calls[name] = layer_call(layer, evaluator)
        except EvaluationError as problem:
            table.failed[name] = str(problem)
    if not calls:
        return
    timings, disturbed = evaluator.time_all(calls, calls_per_graph=CALLS_PER_GRAPH)
    table.times.update({name: summary(timing, disturbed) for name, timing in timings.items()})


def summary(timing: Timing, disturbed: list[str]) -> LayerTime:
    """Return what a table keeps of a timing."""
    return LayerTime(timing.median_us, timing.p10_us, timing.p90_us, timing.count, tuple(disturbed))


def layer_call(layer: Architecture, evaluator: LatencyEvaluator) -> Call:
    """Return what runs a layer once, its variants packed, having run it once.

    Raises:
        EvaluationError: it cannot run; the message is the reason.
    """
    device = evaluator.device
    with faults(device):
        module = build(realise(layer, "packed").architecture).eval()
        module = module.to(device.torch_name, DTYPES[evaluator.dtype])
        if layout_of(device, evaluator.dtype) == "channels_last":
            module = module.to(memory_format=torch.channels_last)
        inputs = random_inputs(layer, device, batch=evaluator.batch, dtype=evaluator.dtype)
        module(*inputs)
    return lambda: module(*inputs)
