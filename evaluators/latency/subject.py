"""What is measured: a network with random weights and an input, ready on a device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from evaluators.protocol import EvaluationError
from kernels.device import Device
from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.build import build

_INPUT_SEED = 0
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""Element types that networks are measured in."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A network in evaluation mode and a batch for it.

    Attributes:
        module: on the device; in half precision on a GPU its maps are channels-last.
        images: N(0, 1), of a fixed seed.
        layout: ``"contiguous"`` or ``"channels_last"``.
    """

    module: nn.Module
    images: torch.Tensor
    layout: str

    def run(self) -> torch.Tensor:
        """Return the outputs of one forward pass."""
        outputs: torch.Tensor = self.module(self.images)
        return outputs


def prepare(
    architecture: Architecture, device: Device, *, batch: int = 1, dtype: str = "float32"
) -> Subject:
    """Build a network for a measurement and see that it runs.

    Args:
        architecture: of one input, without variants.
        device: where it will run.
        batch: images a forward pass.
        dtype: a key of :data:`DTYPES`.

    Raises:
        EvaluationError: it cannot be measured; the message is the reason.
    """
    if len(architecture.inputs) != 1:
        raise EvaluationError(
            f"A measurement needs a network of one input, got {len(architecture.inputs)}."
        )
    if architecture.regions:
        raise EvaluationError(
            f"Variants cannot be measured yet; this network has {architecture.regions[0]}."
        )
    if dtype not in DTYPES:
        raise EvaluationError(f"Cannot measure in {dtype!r}; known: {', '.join(DTYPES)}.")
    layout = layout_of(device, dtype)
    generator = torch.Generator().manual_seed(_INPUT_SEED)
    shape = (batch, *architecture.inputs[0].shape)
    with faults(device):
        module = build(architecture).eval().to(device.torch_name, DTYPES[dtype])
        images = torch.randn(shape, generator=generator).to(device.torch_name, DTYPES[dtype])
        if layout == "channels_last":
            module = module.to(memory_format=torch.channels_last)
            images = images.contiguous(memory_format=torch.channels_last)
        subject = Subject(module, images, layout)
        with torch.inference_mode():
            outputs = subject.run()
            finite = bool(outputs.isfinite().all())
    if not finite:
        raise EvaluationError("The network's outputs are not finite with random weights.")
    return subject


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
