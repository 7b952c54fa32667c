"""Tracing from end to end: record, read, freeze."""

from __future__ import annotations

from torch import nn

from search_spaces.architecture import Architecture
from search_spaces.ops import Shape
from search_spaces.trace.reader import Reader
from search_spaces.trace.record import Network, record
from search_spaces.trace.tables import TABLES


def trace(module: nn.Module, input_shape: Shape) -> Architecture:
    """Return the architecture of a module, with its weights.

    The module is called with one tensor (b, *input_shape); its other arguments need defaults. It is
    left as it is, and its weights are taken by reference, not copied. What cannot be translated
    exactly is refused, as is a forward pass that differs between training and evaluation in more
    than dropout.

    Args:
        module: the network, in any mode.
        input_shape: of one sample, without the batch axis.

    Raises:
        ArchitectureError: a step has no translation, or control flow depends on the data; names the
            module or function at fault.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        >>> trace(net, (1, 8, 8)).text
        'input 1x8x8; conv 4 k3 p0 bias bn relu; flatten'
    """
    network = Network(module)
    steps = record(network, is_known=lambda item: TABLES.translator_of(item) is not None)
    output = Reader(network, tuple(input_shape), tables=TABLES).run(steps)
    architecture = Architecture.freeze(output)
    kept = {
        number: weights
        for number, weights in (architecture.weights or {}).items()
        if architecture.nodes[number].tie is None
    }
    return Architecture(architecture.nodes, architecture.regions, kept or None)
