"""How variants are executed: the seam where a kernel system joins a network.

A variant is another execution of nearly the same function (``architecture/node.py``). Its system
says here, in one object, which operator stands for a region in each form and what that operator's
weights are. Building, exporting and auditing read variants through it alone, so a new system
touches none of them. Nothing here imports torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from kernels.errors import NasError
from kernels.registry import Registry
from search_spaces.architecture import Architecture
from search_spaces.architecture.node import Node, Region, Variant
from search_spaces.ops import Op, Shape

if TYPE_CHECKING:
    from torch import Tensor, nn

Form = Literal["packed", "plain"]
"""``packed`` runs on the system's kernels, ``plain`` on torch alone."""


@dataclass(frozen=True, slots=True)
class Place:
    """A region of a network, as a variant's system sees it.

    Attributes:
        variant: how the region is executed.
        numbers: canonical numbers of its nodes, rising.
        nodes: the nodes; what they read is given by canonical number.
        sources: canonical numbers of what the region reads from outside, rising.
        inputs: shapes of these.
    """

    variant: Variant
    numbers: tuple[int, ...]
    nodes: tuple[Node, ...]
    sources: tuple[int, ...]
    inputs: tuple[Shape, ...]


class VariantSystem(Protocol):
    """What a kernel system says of the regions that it executes.

    Attributes:
        tolerance: largest difference between the outputs of a network in the two forms, relative to
            the largest output.
    """

    tolerance: float

    def operator(self, place: Place, form: Form) -> Op:
        """Return the one operator that stands for a region; it reads ``place.sources`` in order.

        It need not be registered: it is built and exported, never written down. Its parts may use
        layers that :func:`search_spaces.source.register_layer` knows; the plain form's must come as
        source that needs torch alone.

        Raises:
            NasError: the variant's settings are wrong or do not fit these nodes.
        """
        ...

    def weights(
        self, place: Place, form: Form, trained: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """Return the operator's weights as ``<role>.<tensor>``.

        Args:
            place: the region.
            form: which form they are for.
            trained: those of the region's nodes, as ``<position in the region>.<role>.<tensor>``.
        """
        ...


@runtime_checkable
class Preparing(Protocol):
    """What a system adds whose variants learn something from inputs before they are packed."""

    def prepare(
        self, architecture: Architecture, module: nn.Module, batches: Iterable[Tensor]
    ) -> nn.Module:
        """Return a copy of a trained module whose state also holds what ``weights`` then takes.

        Args:
            architecture: the network, with its variants; those of other systems are left alone.
            module: a trained module of it.
            batches: inputs of the network.

        Raises:
            NasError: a variant does not fit its layer, or the inputs do not serve.
        """
        ...


VARIANTS: Registry[VariantSystem] = Registry("variant")
"""By ``Variant.kind``."""
SYSTEMS: tuple[str, ...] = (
    "search_spaces.systems.arbitrary_precision",
    "search_spaces.systems.dual_module",
    "search_spaces.systems.extended_precision",
    "search_spaces.systems.shfl_bw",
)
"""Modules that add systems to :data:`VARIANTS` when they are imported; a new one adds its line.

They are imported at the first look-up and must not import torch.
"""


@dataclass(frozen=True, slots=True)
class Realised:
    """A network whose regions are single operators.

    Attributes:
        architecture: it has no regions, and is for building and exporting, not for the record.
        origin: for each of its nodes, that node's canonical number in the network it was made from;
            for a region's operator, the number of the region's last node.
    """

    architecture: Architecture
    origin: tuple[int, ...]


def systems() -> Registry[VariantSystem]:
    """Return all systems that execute variants, by kind."""
    for module in SYSTEMS:
        importlib.import_module(module)
    return VARIANTS


def system_of(region: Region) -> VariantSystem:
    """Return the system that executes a region.

    Raises:
        NasError: none does.
    """
    found = systems()
    if region.variant.kind not in found:
        raise NasError(
            f"This network has {region}, and nothing here executes that; variants that are: "
            f"{_known(found)}. Use its dense form: Architecture.dense()."
        )
    return found.get(region.variant.kind)


def _known(found: Registry[VariantSystem]) -> str:
    """Return the kinds of all systems, those of one that has many as a range."""
    kinds: dict[VariantSystem, list[str]] = {}
    for kind, system in found:
        kinds.setdefault(system, []).append(kind)
    texts = [f"{k[0]} to {k[-1]}" if len(k) > 2 else ", ".join(k) for k in kinds.values()]
    return ", ".join(texts) or "none yet"


def place_of(architecture: Architecture, region: Region) -> Place:
    """Return a region as its system sees it."""
    inside = {*region.nodes}
    nodes = tuple(architecture.nodes[number] for number in region.nodes)
    sources = tuple(sorted({item for node in nodes for item in node.inputs} - inside))
    shapes = tuple(architecture.nodes[number].shape for number in sources)
    return Place(region.variant, region.nodes, nodes, sources, shapes)


def tolerance_of(architecture: Architecture) -> float:
    """Return how far the two forms of a network may differ; 0 where it has no variants."""
    return max((system_of(region).tolerance for region in architecture.regions), default=0.0)


def realise(architecture: Architecture, form: Form) -> Realised:
    """Put one operator in the place of each region.

    Raises:
        NasError: nothing executes a variant, its settings are wrong, or something outside a region
            reads a value in the middle of it.
    """
    if not architecture.regions:
        return Realised(architecture, tuple(range(len(architecture.nodes))))
    region_of = {number: region for region in architecture.regions for number in region.nodes}
    new_number: dict[int, int] = {}
    nodes: list[Node] = []
    origin: list[int] = []
    for number, node in enumerate(architecture.nodes):
        region = region_of.get(number)
        if region is None:
            made, sources = node.op, node.inputs
        elif number == region.nodes[-1]:
            place = place_of(architecture, region)
            made, sources = system_of(region).operator(place, form), place.sources
        else:
            continue
        if not new_number.keys() >= {*sources}:
            raise NasError(f"{node.scope or number} reads the middle of a region that runs as one.")
        shapes = tuple(architecture.nodes[item].shape for item in sources)
        inputs = tuple(new_number[item] for item in sources)
        tie = None if node.tie is None or region else new_number[node.tie]
        new_number[number] = len(nodes)
        origin.append(number)
        nodes.append(Node(made, inputs, node.scope, made.facts(shapes), tie))
    return Realised(Architecture(nodes), tuple(origin))
