"""What is measured: a network with random weights and an input, ready on a device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import nn

from evaluators.protocol import EvaluationError
from kernels.device import Device, detect
from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.build import build, load_weights
from search_spaces.ops.layers import Cache
from search_spaces.pack import pack
from search_spaces.pack import prepare as prepare_variants
from search_spaces.variants import realise

_INPUT_SEED = 0
_APART = 1 << 20  # bytes: torch keeps smaller tensors apart from larger ones
_DRAWN = 1 << 24  # numbers: more are not drawn for a batch but repeated
PHASES = ("", "prefill", "decode")
"""Of a decoder: a whole pass; a pass that fills a cache; a pass of one token behind a full one."""
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""Element types that networks are measured in."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A network in evaluation mode and a batch for it.

    Attributes:
        module: on the device; in half precision on a GPU its maps are channels-last.
        inputs: N(0, 1), or token ids, of a fixed seed.
        layout: ``"contiguous"`` or ``"channels_last"``.
        phase: one of :data:`PHASES`.
    """

    module: nn.Module
    inputs: torch.Tensor
    layout: str
    phase: str = ""

    def call(self, module: Callable[..., Any]) -> Callable[[], torch.Tensor]:
        """Return one pass of the phase through a module of this network, as often as wanted.

        A decoding pass reads the last of the tokens, with those before it in the cache; each call
        writes what the one before wrote.
        """
        inputs = self.inputs
        if not self.phase:
            return lambda: module(inputs)
        tokens = inputs.shape[1]
        if self.phase == "prefill":
            return lambda: module(inputs, Cache(tokens))
        cache = Cache(tokens)
        if tokens > 1:
            module(inputs[:, :-1], cache)
        last = inputs[:, -1:]

        def decode() -> torch.Tensor:
            cache.length = tokens - 1
            outputs: torch.Tensor = module(last, cache)
            return outputs

        return decode

    def move(self, generator: Random) -> bool:
        """Put the weights elsewhere in the device's memory, in the same order and layout.

        Args:
            generator: draws how far.

        Returns:
            whether there was room: weights that do not fit twice stay where they are.
        """
        held = [*self.module.parameters(), *self.module.buffers()]
        shifts = generator.randint(1, _APART), generator.randint(_APART + 1, 2 * _APART)
        try:
            before = [self.inputs.new_empty(size, dtype=torch.int8) for size in shifts]
            copies = [_copy(tensor) for tensor in held]
        except torch.OutOfMemoryError:
            return False
        for tensor, copy in zip(held, copies, strict=True):
            tensor.data = copy
        del before  # not earlier: the copies lie behind them
        return True

    def run(self) -> torch.Tensor:
        """Return the outputs of one forward pass."""
        return self.call(self.module)()


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy that may take the tensor's place: made for inference alone if that is."""
    with torch.inference_mode(tensor.is_inference()):
        return tensor.detach().clone()


def prepare(
    architecture: Architecture,
    device: Device,
    *,
    batch: int = 1,
    dtype: str = "float32",
    phase: str = "",
    tokens: int = 0,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> Subject:
    """Build a network for a measurement, its variants on their kernels, and see that it runs.

    Args:
        architecture: of one input.
        device: where it will run.
        batch: images or sequences a forward pass.
        dtype: a key of :data:`DTYPES`.
        phase: one of :data:`PHASES`.
        tokens: of a sequence, for a decoder; 0: as many as its input has.
        weights: trained ones by canonical node number, packed as its variants say; None: random
            ones, of a variant's declared density and balance.

    Raises:
        EvaluationError: it cannot be measured; the message is the reason.
    """
    if len(architecture.inputs) != 1:
        raise EvaluationError(
            f"A measurement needs a network of one input, got {len(architecture.inputs)}."
        )
    if dtype not in DTYPES:
        raise EvaluationError(f"Cannot measure in {dtype!r}; known: {', '.join(DTYPES)}.")
    _check_phase(architecture, phase, tokens)
    layout = layout_of(device, dtype)
    with faults(device):
        module = _network(architecture, weights).eval().to(device.torch_name, DTYPES[dtype])
        if layout == "channels_last":
            module = module.to(memory_format=torch.channels_last)
        (inputs,) = random_inputs(architecture, device, batch=batch, dtype=dtype, tokens=tokens)
        subject = Subject(module, inputs, layout, phase)
        with torch.inference_mode():
            outputs = subject.run()
            finite = bool(outputs.isfinite().all())
    if not finite:
        raise EvaluationError("The network's outputs are not finite with random weights.")
    return subject


def _network(architecture: Architecture, weights: Mapping[str, torch.Tensor] | None) -> nn.Module:
    """Return the network in the form in which it runs."""
    if weights is None:
        return build(realise(architecture, "packed").architecture)
    module = build(architecture)
    load_weights(module, architecture, weights)
    inputs = random_inputs(architecture, detect("cpu"), batch=1, dtype="float32")
    return pack(architecture, prepare_variants(architecture, module, inputs))


def _check_phase(architecture: Architecture, phase: str, tokens: int) -> None:
    if phase not in PHASES:
        known = ", ".join(PHASES[1:])
        raise EvaluationError(f"Unknown phase {phase!r} of a measurement; known: {known}.")
    if (phase or tokens) and not architecture.decodes:
        raise EvaluationError(
            "Only networks that read token ids and look back alone have phases and a number of "
            "tokens; leave phase and tokens out."
        )
    if tokens > architecture.nodes[0].shape[0]:
        raise EvaluationError(
            f"The network reads {architecture.nodes[0].shape[0]} tokens at most, not {tokens}."
        )


def random_inputs(
    architecture: Architecture, device: Device, *, batch: int, dtype: str, tokens: int = 0
) -> list[torch.Tensor]:
    """Return N(0, 1), or token ids, of a fixed seed for each input, in a layout for the device.

    Args:
        architecture: the network.
        device: where they go.
        batch: samples of each.
        dtype: a key of :data:`DTYPES`; token ids are int64.
        tokens: of a sequence of ids; 0: as many as the input has.
    """
    generator = torch.Generator().manual_seed(_INPUT_SEED)
    found = []
    for source in architecture.inputs:
        vocabulary: int = getattr(source.op, "vocabulary", 0)
        if vocabulary:
            shape: tuple[int, ...] = (batch, tokens or source.shape[0])
            made = torch.randint(0, vocabulary, shape, generator=generator).to(device.torch_name)
        else:
            shape = (batch, *source.shape)
            made = torch.empty(shape, device=device.torch_name, dtype=DTYPES[dtype])
            several = min(batch, max(1, _DRAWN // math.prod(source.shape)))
            drawn = torch.randn((several, *source.shape), generator=generator).to(made)
            for first in range(0, batch, several):
                made[first : first + several] = drawn[: batch - first]
            if layout_of(device, dtype) == "channels_last" and made.ndim == 4:
                made = made.contiguous(memory_format=torch.channels_last)
        found.append(made)
    return found


def layout_of(device: Device, dtype: str) -> str:
    """Return how maps lie in memory: channels-last for half precision on a GPU."""
    half = dtype in ("float16", "bfloat16")
    return "channels_last" if device.kind == "cuda" and half else "contiguous"


@contextmanager
def faults(device: Device) -> Iterator[None]:
    """Turn what a device or a layer raises into the candidate's reason.

    Raises:
        EvaluationError: with the first line of the error.
    """
    try:
        yield
    except EvaluationError:
        raise
    except (torch.OutOfMemoryError, MemoryError) as problem:
        raise EvaluationError(f"Out of memory on {device}: {_first_line(problem)}") from problem
    except NasError as problem:
        raise EvaluationError(str(problem)) from problem
    except (RuntimeError, ValueError, TypeError) as problem:
        raise EvaluationError(
            f"The network cannot run on {device}: {type(problem).__name__}: {_first_line(problem)}"
        ) from problem


def _first_line(problem: BaseException) -> str:
    return (str(problem).splitlines() or [type(problem).__name__])[0]
