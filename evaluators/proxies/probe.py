"""A fresh network, run operator by operator, so that what passes between them can be seen."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from evaluators.accuracy.initialise import initialise
from evaluators.protocol import EvaluationError
from search_spaces.architecture import Architecture, Node
from search_spaces.blocks import cuts
from search_spaces.build import build
from search_spaces.ops.attention import Attention
from search_spaces.source import module_names

_Call = Callable[..., Tensor]


class Probe:
    """A network with random weights, in training mode.

    Attributes:
        architecture: what it is.
        module: the network.
        cuts: canonical numbers of maps that everything passes through: where blocks end.
        vocabulary: how many token ids there are; 0 where it reads an image.
    """

    def __init__(self, architecture: Architecture, seed: int, device: torch.device) -> None:
        if not architecture.live:
            raise EvaluationError("Nothing of the input reaches the output.")
        first = architecture.inputs[0]
        self.vocabulary = getattr(first.op, "vocabulary", 0)
        if len(architecture.inputs) != 1 or (len(first.shape) != 3 and not self.vocabulary):
            raise EvaluationError(
                "Scores of fresh networks are for networks that read one image or one text."
            )
        self.architecture = architecture
        self._device = device
        self.module = build(Architecture(architecture.nodes)).to(device)
        initialise(self.module, seed)
        for layer in self.module.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.momentum = 1.0  # one pass sets the statistics that evaluation uses
        self.module.train()
        nodes = architecture.nodes
        self.cuts = [
            number
            for number in cuts(nodes)
            if number and nodes[number].op.kind != "act" and _is_map(nodes[number].shape)
        ]
        names = module_names(architecture)
        self._calls = [
            (
                _call(node.op.call("layer", _names(len(node.inputs))), len(node.inputs)),
                getattr(self.module, name) if name else None,
                node.inputs,
            )
            for node, name in zip(nodes, names, strict=True)
        ]

    def noise(self, batch: int) -> Tensor:
        """Draw inputs from the global generator: normal images (b, c, h, w), or tokens (b, t)."""
        shape = (batch, *self.architecture.inputs[0].shape)
        if self.vocabulary:
            return torch.randint(self.vocabulary, shape, device=self._device)
        return torch.randn(shape, device=self._device)

    @contextmanager
    def settled(self, images: Tensor) -> Iterator[None]:
        """Evaluate for a while, by the statistics of these inputs: samples do not mix."""
        with torch.no_grad():
            self.run(images)
        self.module.eval()
        try:
            yield
        finally:
            self.module.train()

    def positive(self) -> Probe:
        """Return a copy in double precision, all weights positive, that has seen nothing yet."""
        twin = Probe(self.architecture, 0, self._device)
        twin.module.double()
        with torch.no_grad():
            for mine, weight in zip(
                twin.module.parameters(), self.module.parameters(), strict=True
            ):
                mine.copy_(weight).abs_()
        return twin

    def run(
        self, images: Tensor, apart: Collection[int] = ()
    ) -> tuple[list[Tensor], Mapping[int, Tensor]]:
        """Run the network.

        Args:
            images: (b, c, h, w), or tokens (b, t).
            apart: nodes behind which the graph of gradients is cut.

        Returns:
            the value that the nodes behind each node read, by canonical number, and of those that
            are cut apart the value that belongs to what is before them.
        """
        values: list[Tensor] = []
        ends: dict[int, Tensor] = {}
        for number, (call, layer, inputs) in enumerate(self._calls):
            value = call(layer, *[values[item] for item in inputs]) if inputs else images
            if number in apart:
                ends[number] = value
                value = value.detach().requires_grad_(True)
            values.append(value)
        return values, ends

    def activated(self) -> list[int]:
        """Return the nodes with units that are positive when they are active, and only then."""
        nodes = self.architecture.nodes
        return [n for n, node in enumerate(nodes) if getattr(node.op, "act", None) in _ACTIVE]

    def attentions(self) -> list[int]:
        """Return the nodes that are attention."""
        nodes = self.architecture.nodes
        return [n for n, node in enumerate(nodes) if isinstance(node.op, Attention)]

    def of_attention(self) -> list[nn.Module]:
        """Return the linear layers that give attention what it reads, or read what it gives."""
        nodes = self.architecture.nodes
        near: set[int] = set()
        for number, node in enumerate(nodes):
            if any(nodes[item].op.kind == "attention" for item in node.inputs):
                near.add(number)
            if node.op.kind == "attention":
                near |= {_before_rotation(nodes, item) for item in node.inputs}
        layers = (self._calls[number][1] for number in sorted(near))
        return [layer for layer in layers if isinstance(layer, nn.Linear)]

    def layers(self) -> list[nn.Conv2d | nn.Linear]:
        """Return the convolutions and linear layers, in order of the network."""
        found = (nn.Conv2d, nn.Linear)
        return [layer for layer in self.module.modules() if isinstance(layer, found)]


_ACTIVE = frozenset({"relu", "relu6", "hardswish", "silu", "gelu", "gelu_tanh"})
"""Activations with the sign of what they read, or zero."""


def _before_rotation(nodes: Sequence[Node], number: int) -> int:
    return nodes[number].inputs[0] if nodes[number].op.kind == "rotary" else number


def _is_map(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[1] * shape[2] > 1


def _names(count: int) -> tuple[str, ...]:
    return tuple(f"a{number}" for number in range(count))


@lru_cache(maxsize=1024)
def _call(expression: str, count: int) -> _Call:
    """Return the function of an operator's own expression, with its layer and its inputs."""
    text = f"lambda layer, {', '.join(_names(count))}: {expression}"
    return cast("_Call", eval(text, {"torch": torch, "nn": nn})) if count else _nothing


def _nothing(*_: Any) -> Tensor:
    raise AssertionError("an input is given, not computed")
