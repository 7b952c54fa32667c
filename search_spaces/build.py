"""From the description to an ordinary ``nn.Module``, and weights by canonical node number."""

from __future__ import annotations

import linecache
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from search_spaces.architecture import Architecture
from search_spaces.errors import ArchitectureError
from search_spaces.source import generate, weight_prefixes

_SOURCES_KEPT = 256
_sources: list[str] = []


def build(architecture: Architecture) -> nn.Module:
    """Return the network as a module with readable names and code.

    The module is made by executing :func:`search_spaces.source.generate`'s text, which tracebacks
    and ``inspect.getsource`` show. Its input is (b, ...) with the architecture's input shape.
    Weights are torch's random initial ones in float32, or, in their type, those the architecture
    was traced with.

    Example:
        >>> small = Architecture.parse("input 1x8x8; conv 4 k3 bn relu; gap; flatten; linear 10")
        >>> build(small)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """
    source = generate(architecture, form="native")
    filename = f"<architecture {architecture.topology_key}>"
    _remember(filename, source)
    namespace: dict[str, object] = {"__name__": __name__}
    exec(compile(source, filename, "exec"), namespace)
    module = cast("type[nn.Module]", namespace["Network"])()
    if architecture.weights:
        weights = _flat(architecture.weights)
        load_weights(module.to(_dtype(weights)), architecture, weights)
    return module


def _remember(filename: str, source: str) -> None:
    """Let tracebacks and ``inspect`` find the source of the latest modules."""
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    _sources.append(filename)
    if len(_sources) > _SOURCES_KEPT:
        old = _sources.pop(0)
        if old not in _sources:
            linecache.cache.pop(old, None)


def _dtype(weights: Mapping[str, Tensor]) -> torch.dtype:
    floats = (tensor.dtype for tensor in weights.values() if tensor.is_floating_point())
    return next(floats, torch.float32)


def _flat(weights: Mapping[int, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{n}.{role}": tensor for n, roles in weights.items() for role, tensor in roles.items()}


def weights_by_node(module: nn.Module, architecture: Architecture) -> dict[str, Tensor]:
    """Return the state of a module of this architecture under names that no scope enters.

    Keys are ``<canonical node number>.<role>.<tensor>``, such as ``3.norm.running_mean``; they fit
    every module of an equal architecture. Tensors are not copied.
    """
    state = module.state_dict()
    return {
        f"{number}.{role}.{key.removeprefix(prefix)}": tensor
        for number, roles in enumerate(weight_prefixes(architecture))
        for role, prefix in roles.items()
        for key, tensor in state.items()
        if key.startswith(prefix)
    }


def load_weights(
    module: nn.Module, architecture: Architecture, weights: Mapping[str, Tensor]
) -> None:
    """Copy weights by canonical node number into a module of this architecture.

    Raises:
        ArchitectureError: a tensor is missing, left over or of another shape; names it.
    """
    own = weights_by_node(module, architecture)
    for key in sorted(own.keys() ^ weights.keys()):
        if not key.endswith("num_batches_tracked"):
            raise ArchitectureError(
                f"The weights do not fit: {key} is {'missing' if key in own else 'left over'}."
            )
    with torch.no_grad():
        for key, tensor in weights.items():
            if key in own:
                if own[key].shape != tensor.shape:
                    raise ArchitectureError(
                        f"The weights do not fit: {key} is {tuple(tensor.shape)}, "
                        f"the network has {tuple(own[key].shape)}."
                    )
                own[key].copy_(tensor)
