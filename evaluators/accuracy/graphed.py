"""The gradients of a training step as one CUDA graph: small networks are all launches otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

Gradients = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Fills the gradients for inputs and targets, and returns the loss."""

_WARM = 3
"""Steps that run as they are first: libraries choose algorithms and take their memory in them."""


class GraphedGradients:
    """Computes gradients on a GPU: the first steps one by one, then by replaying a graph.

    The kernels are the same ones in the same order. Inputs and targets must keep their shapes, and
    gradients must not be replaced between calls: the graph writes to where they are. What cannot be
    recorded, as a layer that looks at values on the CPU, goes on one by one.

    Args:
        compute: what is recorded.
        device: a GPU.
    """

    def __init__(self, compute: Gradients, device: torch.device) -> None:
        self._compute = compute
        # Gradients made on another stream would tie a recording to that stream.
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._left = _WARM
        self._recorded: _Recorded | None = None

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Fill the gradients and return the loss, which the next call may overwrite."""
        if self._left == 0 and self._recorded is None:
            self._record(inputs, targets)
        if self._recorded is not None:
            return self._recorded.replay(inputs, targets)
        self._left -= 1
        here = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            loss = self._compute(inputs, targets)
        here.wait_stream(self._stream)
        return loss

    def _record(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        held = inputs.clone(), targets.clone()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                loss = self._compute(*held)
        except RuntimeError:  # the next steps say what is wrong, if it is not the recording
            torch.cuda.synchronize(self._stream.device)
            return
        self._recorded = _Recorded(graph, *held, loss)


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A graph, and the memory that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: torch.Tensor
    targets: torch.Tensor
    loss: torch.Tensor

    def replay(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self.inputs.copy_(inputs)
        self.targets.copy_(targets)
        self.graph.replay()
        return self.loss
