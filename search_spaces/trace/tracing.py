"""Tracing from end to end: record, read, freeze."""

from __future__ import annotations

import copy
import inspect
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.architecture import Architecture
from search_spaces.build import build
from search_spaces.errors import ArchitectureError, OpError
from search_spaces.ops import Input, Shape
from search_spaces.trace.reader import Reader, ReadError
from search_spaces.trace.record import Network, Step, record, scope_of
from search_spaces.trace.running import BATCH, record_run
from search_spaces.trace.tables import TABLES

_TOLERANCE = 1e-4
"""Of the largest output: how far those of a module and of what was read from it may lie apart."""


def trace(module: nn.Module, input_shape: Shape, *, vocabulary: int = 0) -> Architecture:
    """Return the architecture of a module, with its weights.

    The module is called with one tensor (b, *input_shape); its other arguments need defaults. It is
    left as it is, and its weights are taken by reference, not copied, but for those that are cut
    out of larger ones. What cannot be translated exactly is refused, as is a forward pass that
    differs between training and evaluation in more than dropout.

    A pass that depends on sizes in more than torch.fx can follow, as transformers have it, is run
    once and recorded as it runs; the architecture must then give the same outputs. Of a model that
    reads token ids, dropout inside attention is left out.

    Args:
        module: the network, in any mode.
        input_shape: of one sample, without the batch axis: (c, h, w), or (tokens,).
        vocabulary: how many token ids there are, where the input is ids; by default that of the
            module's own ``get_input_embeddings()``.

    Raises:
        ArchitectureError: a step has no translation, or control flow depends on the data; names the
            module or function at fault.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        >>> trace(net, (1, 8, 8)).text
        'input 1x8x8; conv 4 k3 p0 bias bn relu; flatten'
    """
    shape = tuple(input_shape)
    try:
        source = Input.of(shape, vocabulary or _vocabulary(module, shape))
    except OpError as problem:
        raise ArchitectureError(f"input: {problem}") from None
    if source.vocabulary:
        return _run(module, source)
    try:
        network = Network(module)
        steps = record(network, is_known=_is_known)
        return _read(Reader(network, source, tables=TABLES), steps)
    except ArchitectureError as problem:
        try:
            return _run(module, source)
        except ArchitectureError as second:
            further = isinstance(second, ReadError) and second.made > getattr(problem, "made", 0)
            raise (second if further else problem) from None


def _is_known(module: nn.Module) -> bool:
    return TABLES.translator_of(module) is not None


def _read(reader: Reader, steps: list[Step]) -> Architecture:
    architecture = Architecture.freeze(reader.run(steps))
    kept = {
        number: weights
        for number, weights in (architecture.weights or {}).items()
        if architecture.nodes[number].tie is None
    }
    return Architecture(architecture.nodes, architecture.regions, kept or None)


def _run(module: nn.Module, source: Input) -> Architecture:
    """Trace a module by running it, and compare what comes out."""
    x = _example(module, source, seed=0)
    if x.is_meta:
        raise ArchitectureError("network: its weights have no data (meta), so it cannot be run")
    network = Network(module, **_options(module, x))
    steps = record_run(network, x, is_known=_is_known)
    if not source.vocabulary:
        _check_modes(module, x, steps)
    architecture = _read(Reader(network, source, tables=TABLES, batch=BATCH), steps)
    other = _example(module, source, seed=1)
    modes = {item: item.training for item in network.modules()}
    with torch.inference_mode():
        try:
            expected = network.eval()(other)
        finally:
            for item, mode in modes.items():
                item.training = mode
        found = build(architecture).to(other.device).eval()(other)
    scale, difference = expected.abs().max(), (found - expected).abs().max()
    if found.shape != expected.shape or not bool(difference <= _TOLERANCE * scale):
        raise ArchitectureError(
            f"{type(module).__name__}: what was read gives other outputs: they differ by "
            f"{float(difference):.1e} at a scale of {float(scale):.1e}"
        )
    return architecture


def _check_modes(module: nn.Module, x: Tensor, steps: list[Step]) -> None:
    """Refuse a module that calls other things while it is trained.

    Raises:
        ArchitectureError: names where its pass parts from the one in evaluation mode.
    """
    twin = Network(copy.deepcopy(module))  # a pass changes the statistics of norms
    training = record_run(twin, x, is_known=_is_known, training=True)
    for first, second in zip_longest(map(_shown, training), map(_shown, steps)):
        if first != second:
            place = (first or second or ("network",))[0]
            raise ArchitectureError(f"{place}: the forward pass differs while training")


def _shown(step: Step) -> tuple[object, ...]:
    """Return what a step is, but for tensors and whether it drops values."""
    target = step.node.target
    drops = "dropout" in str(target)
    plain = [
        (name, item)
        for name, item in (*enumerate(step.args), *step.kwargs.items())
        if isinstance(item, bool | int | float | str) and name not in ("training", "dropout_p")
    ]
    return scope_of(step.node), step.node.op, target, () if drops else tuple(plain)


def _vocabulary(module: nn.Module, shape: Shape) -> int:
    """Return how many token ids a model in Hugging Face's manner has; 0 for others."""
    find = getattr(module, "get_input_embeddings", None)
    found = find() if callable(find) and len(shape) == 1 else None
    return found.num_embeddings if isinstance(found, nn.Embedding) else 0


def _example(module: nn.Module, source: Input, *, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    first = next(module.parameters(), torch.zeros(()))
    if source.vocabulary:
        ids = torch.randint(0, source.vocabulary, (BATCH, *source.shape), generator=generator)
        return ids.to(first.device)
    return torch.randn(BATCH, *source.shape, generator=generator).to(first.device, first.dtype)


def _options(module: nn.Module, x: Tensor) -> dict[str, Any]:
    """Return arguments that keep a model in Hugging Face's manner from what is not wanted here."""
    named = inspect.signature(module.forward).parameters
    options: dict[str, Any] = {}
    if "use_cache" in named:
        options["use_cache"] = False
    if "attention_mask" in named:  # left out, some models look for padding among the ids
        options["attention_mask"] = torch.ones_like(x)
    return options if not x.is_floating_point() else {}
