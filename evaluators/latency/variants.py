"""Which ways of computing a layer pay on this device: measured for every workload, never assumed.

Beside the implementations that kernel systems enrol in ``kernels.select`` stand the other kinds of
convolution that a space could put at the same place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from evaluators.latency.kinds import KINDS, place_of
from evaluators.latency.latency import LatencyEvaluator
from evaluators.latency.layers import LayerTime, layer_call, layer_of, plan_of, summary
from evaluators.latency.operands import OPERANDS
from evaluators.latency.setting import check_conditions, conditions_of
from evaluators.latency.subject import faults
from evaluators.latency.uncertainty import margin
from evaluators.protocol import EvaluationError
from kernels.errors import NasError, UnknownNameError
from kernels.exclusive import exclusive
from kernels.select import Implementation, implementations
from kernels.timing import CALLS_PER_GRAPH, Call
from kernels.workload import Workload
from search_spaces.architecture import Architecture
from search_spaces.architecture.graph import Value
from search_spaces.choose import LeftOut
from search_spaces.offers import offered, place_text
from search_spaces.ops.source import Input

BASELINE = {"implementation": "dense", "kind": "standard", "variant": "dense"}
"""What the others of a family must beat."""


@dataclass(frozen=True, slots=True)
class VariantRow:
    """One way of computing at one place.

    Attributes:
        workload: the place: a workload's text, or of a variant that of a layer by itself.
        family: ``"implementation"`` (the same function), ``"kind"`` (another convolution) or
            ``"variant"`` (another execution that a space may choose).
        name: unique in the family.
        time: its latency; None where it cannot run.
        offered: whether a search should have it.
        reason: why, or why not.
    """

    workload: str
    family: str
    name: str
    time: LayerTime | None
    offered: bool
    reason: str


@dataclass(frozen=True, slots=True)
class VariantTable:
    """What pays where, on one device and in one way of running.

    Attributes:
        conditions: see :func:`evaluators.latency.setting.conditions_of`.
        rows: by workload and family, the baseline first.
    """

    conditions: Mapping[str, Any]
    rows: tuple[VariantRow, ...]

    def offered(self, workload: Workload | str) -> list[str]:
        """Return the names of what is offered at a place."""
        return [row.name for row in self.rows if row.workload == str(workload) and row.offered]

    def left_out(self) -> LeftOut:
        """Return the variants that a search should not be offered, by place."""
        found: dict[str, set[str]] = {}
        for row in self.rows:
            if row.family == "variant" and not row.offered:
                found.setdefault(row.workload, set()).add(row.name)
        return {place: frozenset(names) for place, names in found.items()}

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values that :meth:`from_json` reads."""
        return {"conditions": dict(self.conditions), "rows": [asdict(row) for row in self.rows]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> VariantTable:
        """Read a table.

        Raises:
            NasError: it is no such table.
        """
        try:
            rows = []
            for item in document["rows"]:
                time = item["time"]
                if time is not None:
                    time = LayerTime(**{**time, "disturbed": tuple(time["disturbed"])})
                rows.append(VariantRow(**{**item, "time": time}))
            return cls(document["conditions"], tuple(rows))
        except (KeyError, TypeError) as problem:
            raise NasError(f"This is no table of variants: {problem!r}.") from None

    def __str__(self) -> str:
        lines = [f"device: {self.conditions.get('device')}"]
        width = max((len(row.name) for row in self.rows), default=0)
        place = ""
        for row in self.rows:
            if row.workload != place:
                lines.append(row.workload)
                place = row.workload
            time = "-" if row.time is None else f"{row.time.median_us:.4g} us"
            word = "offered" if row.offered else "left out"
            lines.append(f"  {row.name:<{width}}{time:>12}  {word}: {row.reason}")
        return "\n".join(lines)


def measure_variants(
    architectures: Iterable[Architecture], evaluator: LatencyEvaluator
) -> VariantTable:
    """Time every way of computing each distinct workload of some networks, side by side.

    Args:
        architectures: the networks; their own variants are left aside.
        evaluator: on which device and how to time.

    Raises:
        NasError: the device cannot be had, or the evaluator compiles networks.
    """
    conditions = conditions_of(evaluator)
    layers: dict[Workload, Architecture] = {}
    for architecture in architectures:
        dense = architecture.dense()
        for step in plan_of(dense, evaluator):
            if step.workload not in layers:
                layers[step.workload] = layer_of(dense, step)
    rows: list[VariantRow] = []
    with exclusive(evaluator.device), torch.inference_mode():
        for workload, layer in layers.items():
            ways = _implementations(workload, layer, evaluator)
            rows += _family(str(workload), "implementation", ways, evaluator)
            rows += _family(str(workload), "kind", _kinds(workload, evaluator), evaluator)
    return VariantTable(conditions, tuple(rows))


def measure_offers(
    architectures: Iterable[Architecture],
    evaluator: LatencyEvaluator,
    *,
    kinds: Sequence[str] = (),
    known: VariantTable | None = None,
) -> VariantTable:
    """Time the variants that kernel systems offer for the layers of some networks, and dense ones.

    A variant is timed as the layer that a network would have it as, packed, with random weights.

    Args:
        architectures: the networks; their own variants are left aside.
        evaluator: on which device and how to time.
        kinds: of variants; empty for all.
        known: rows of places that are not measured again.

    Returns:
        the known rows, and those of the other places.

    Raises:
        NasError: as :func:`measure_variants`, nothing offers variants of a kind, or what is known
            was measured under other conditions.
    """
    conditions = conditions_of(evaluator)
    rows: list[VariantRow] = []
    if known is not None:
        check_conditions(known.conditions, evaluator)
        rows += known.rows
    done = {(row.workload, row.name) for row in rows}
    with exclusive(evaluator.device), torch.inference_mode():
        for place, (layer, names) in _places(architectures, kinds).items():
            if all((place, name) in done for name in names):
                continue
            number = len(layer.nodes) - 1
            nets = {name: layer.with_variant([number], name) for name in names}
            ways = {
                name: _tried(partial(layer_call, net, evaluator), evaluator)
                for name, net in {BASELINE["variant"]: layer, **nets}.items()
            }
            rows = [row for row in rows if row.workload != place]
            rows += _family(place, "variant", ways, evaluator)
    return VariantTable(conditions, tuple(rows))


def _places(
    architectures: Iterable[Architecture], kinds: Sequence[str]
) -> dict[str, tuple[Architecture, list[str]]]:
    """Return the layers for which something is offered, each as a network, and what is offered."""
    found: dict[str, tuple[Architecture, list[str]]] = {}
    for architecture in architectures:
        for node in architecture.nodes:
            shapes = tuple(architecture.nodes[item].shape for item in node.inputs)
            place = place_text(node.op, shapes)
            if place in found or not node.facts.reach.weighted:
                continue
            names = offered(node.op, shapes, kinds)
            if names:
                sources = tuple(
                    Value(Input.of(shape=shape), (), f"input{index}")
                    for index, shape in enumerate(shapes)
                )
                found[place] = Architecture.freeze(Value(node.op, sources, node.scope)), names
    return found


Way = Call | str
"""What is timed, or why it cannot run."""


def _implementations(
    workload: Workload, layer: Architecture, evaluator: LatencyEvaluator
) -> dict[str, Way]:
    """Return the implementations of a workload's operator, what is fused behind it left out.

    An operator that no kernel system has taken up runs as torch's own layer.
    """
    try:
        found = implementations(workload.op)
    except UnknownNameError:
        return {BASELINE["implementation"]: _tried(lambda: layer_call(layer, evaluator), evaluator)}
    bare = replace(workload, inputs=workload.inputs[:1], fused=())
    make = OPERANDS.get(workload.op)

    def way(entry: Implementation) -> Way:
        reason = entry.refuses(bare, evaluator.device)
        return reason or _tried(lambda: make(bare, entry, evaluator.device), evaluator)

    return {entry.name: way(entry) for entry in found}


def _kinds(workload: Workload, evaluator: LatencyEvaluator) -> dict[str, Way]:
    """Return the kinds of convolution that could stand at a workload's place."""
    place = place_of(workload)
    if place is None:
        return {}
    found: dict[str, Way] = {}
    for name, kind in KINDS:
        try:
            layer = kind(place)
        except NasError as problem:  # this kind does not fit the shape
            found[name] = str(problem)
        else:
            found[name] = _tried(partial(layer_call, layer, evaluator), evaluator)
    return found


def _tried(make: Callable[[], Callable[[], Any]], evaluator: LatencyEvaluator) -> Way:
    """Return a call that has run once and given finite numbers, else what is wrong with it."""
    try:
        with faults(evaluator.device):
            call = make()
            finite = bool(torch.as_tensor(call()).isfinite().all())
    except EvaluationError as problem:
        return str(problem)
    return call if finite else "its outputs are not finite"


def _family(
    place: str, family: str, ways: Mapping[str, Way], evaluator: LatencyEvaluator
) -> list[VariantRow]:
    """Time the ways that can run, side by side, and judge them against the baseline."""
    # An implementation may have the name of the harness's own reference work.
    calls = {f"{family} {n}": way for n, way in ways.items() if not isinstance(way, str)}
    times: dict[str, LayerTime] = {}
    if calls:
        timings, disturbed = evaluator.time_all(calls, calls_per_graph=CALLS_PER_GRAPH)
        times = {
            name.removeprefix(f"{family} "): summary(timing, disturbed)
            for name, timing in timings.items()
        }
    baseline = BASELINE[family]
    rows = []
    for name in sorted(ways, key=lambda name: (name != baseline, name)):
        way = ways[name]
        if isinstance(way, str):
            taken, reason = False, way
        elif name == baseline:
            taken, reason = True, "what the others must beat"
        else:
            judge = _bearable if family == "variant" else _judged
            least = margin(evaluator.device.kind)
            taken, reason = judge(times[name], times.get(baseline), baseline, least)
        rows.append(VariantRow(place, family, name, times.get(name), taken, reason))
    return rows


def _judged(
    time: LayerTime, baseline: LayerTime | None, name: str, least: float
) -> tuple[bool, str]:
    """Offer what is faster than the baseline beyond the spread of both, by ``least`` or more."""
    if time.disturbed:
        return False, f"the measurement was disturbed: {time.disturbed[0]}"
    if baseline is None:
        return True, f"{name} cannot run here"
    words = f"{time.median_us:.4g} us against {baseline.median_us:.4g} us of {name}"
    if time.p90_us * (1 + least) < baseline.p10_us:
        return True, f"faster: {words}"
    if _slower(time, baseline, least):
        return False, f"slower: {words}"
    return False, f"no faster beyond the spread: {words}"


def _bearable(
    time: LayerTime, baseline: LayerTime | None, name: str, least: float
) -> tuple[bool, str]:
    """Leave out what is slower than the baseline beyond the spread of both, and nothing else.

    A search weighs other figures beside the latency, and measures whole networks in the end.
    """
    if time.disturbed:
        return True, f"not judged, the measurement was disturbed: {time.disturbed[0]}"
    _, words = _judged(time, baseline, name, least)
    return baseline is None or not _slower(time, baseline, least), words


def _slower(time: LayerTime, baseline: LayerTime, least: float) -> bool:
    return time.p10_us > baseline.p90_us * (1 + least)
