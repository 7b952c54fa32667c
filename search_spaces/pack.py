"""From the module that was trained to the one that is reported: variants on their kernels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from search_spaces.architecture import Architecture
from search_spaces.build import build, weights_by_node
from search_spaces.source import weight_prefixes
from search_spaces.variants import Form, Preparing, place_of, realise, system_of

if TYPE_CHECKING:
    from torch import Tensor, nn


def prepare(architecture: Architecture, module: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """Return a trained network with what its variants learn from inputs; itself if they do not.

    Args:
        architecture: the network, with its variants.
        module: a trained module of it, as :func:`search_spaces.build.build` makes; left unchanged.
        batches: inputs of the network.

    Raises:
        NasError: nothing executes a variant, it does not fit, or the inputs do not serve.
    """
    given = list(batches)
    for system in dict.fromkeys(system_of(region) for region in architecture.regions):
        if isinstance(system, Preparing):
            module = system.prepare(architecture, module, given)
    return module


def pack(architecture: Architecture, module: nn.Module, form: Form = "packed") -> nn.Module:
    """Return a trained network in the form in which it runs; itself where it has no variants.

    Args:
        architecture: the network, with its variants.
        module: a trained module of it, as :func:`search_spaces.build.build` makes; left unchanged.
        form: on which layers: the systems' own, or torch's.

    Returns:
        a module of its own on the CPU, in evaluation mode, where the network has variants.

    Raises:
        NasError: nothing executes a variant, its settings are wrong, or it was to be prepared.
    """
    if not architecture.regions:
        return module
    packed = build(realise(architecture, form).architecture)
    state = {name: x.clone() for name, x in _state(architecture, module, form).items()}
    packed.load_state_dict(state, assign=True)
    return packed.eval()


def _state(architecture: Architecture, module: nn.Module, form: Form) -> dict[str, Tensor]:
    """Return the state dict of a form."""
    realised = realise(architecture, form)
    trained = {key: x.detach().cpu() for key, x in weights_by_node(module, architecture).items()}
    last = {region.nodes[-1]: region for region in architecture.regions}
    state: dict[str, Tensor] = {}
    prefixes = weight_prefixes(realised.architecture)
    for origin, roles in zip(realised.origin, prefixes, strict=True):
        region = last.get(origin)
        if region is None:
            weights = _of_node(trained, origin)
        else:
            parts = [_of_node(trained, number) for number in region.nodes]
            given = {f"{i}.{key}": x for i, part in enumerate(parts) for key, x in part.items()}
            place = place_of(architecture, region)
            weights = dict(system_of(region).weights(place, form, given))
        for key, tensor in weights.items():
            role, _, name = key.partition(".")
            state[roles[role] + name] = tensor
    return state


def _of_node(weights: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    """Return the tensors of one node, as ``<role>.<tensor>``."""
    start = f"{number}."
    return {key.removeprefix(start): x for key, x in weights.items() if key.startswith(start)}
