"""A trained network in the form in which it runs, its variants on their kernels."""

from __future__ import annotations

from torch import nn

from evaluators.accuracy.data import AnyDataset
from evaluators.accuracy.tasks import example_inputs
from search_spaces.architecture import Architecture
from search_spaces.pack import pack, prepare


def packed(architecture: Architecture, module: nn.Module, dataset: AnyDataset) -> nn.Module:
    """Return a trained network as it runs; itself where it has no variants.

    Args:
        architecture: the network, with its variants.
        module: a trained module of it; left unchanged.
        dataset: what it was trained on; variants that learn from inputs are shown the first ones
            of its training split.

    Raises:
        NasError: nothing executes a variant, or it does not fit.
    """
    if not architecture.regions:
        return module
    device = next(module.parameters()).device
    shown = [x.to(device) for x in example_inputs(dataset)]
    return pack(architecture, prepare(architecture, module, shown))
