"""VKDNW: how even the Fisher information of a fresh network is over its layers.

Source: Tybl and Neumann, CVPR 2025, the "single" score: the number of layers with weights plus the
entropy of the spectrum, at most ln 9. A spectrum says nothing where it has fewer samples than
weights, so one weight stands for each layer, every class that the network may predict counts as a
sample, by its probability, and of very many layers only as many are asked as there are samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import ceil

import torch
from torch import Tensor, nn

from evaluators.proxies import statistics
from evaluators.proxies.probe import Probe

_MOST_CLASSES = 16
"""Beyond, so many random sums of classes stand for all."""


def curvature(probe: Probe, images: Tensor) -> Mapping[str, Tensor]:
    """Return the score, from gradients of each sample for one weight of each layer."""
    taken: list[tuple[nn.Module, Tensor, Tensor]] = []
    layers = probe.layers()
    with probe.settled(images):
        hooks = [layer.register_forward_hook(partial(_take, taken)) for layer in layers]
        logits = probe.run(images.detach().requires_grad_(True))[0][-1]
        for hook in hooks:
            hook.remove()
    spread = statistics.label_spread(logits.detach().softmax(1), _MOST_CLASSES).to(logits.dtype)
    samples = len(images) * max(1, min(_MOST_CLASSES, logits.shape[1] - 1))
    taken = taken[:: ceil(len(taken) / samples)]
    rows = []
    for number in range(spread.shape[1]):
        outer = torch.autograd.grad(
            (spread[:, number] * logits).sum(),
            [item[2] for item in taken],
            retain_graph=number + 1 < spread.shape[1],
        )
        columns = [
            weight_gradient(layer, inner, gradient, seed=place)
            for place, ((layer, inner, _), gradient) in enumerate(zip(taken, outer, strict=True))
        ]
        rows.append(torch.stack(columns, 1))
    spectrum = statistics.fisher_spectrum(torch.stack(rows, 1))
    return {"vkdnw": len(layers) + statistics.decile_entropy(spectrum)}


def _take(
    taken: list[tuple[nn.Module, Tensor, Tensor]],
    layer: nn.Module,
    inputs: tuple[Tensor, ...],
    output: Tensor,
) -> None:
    taken.append((layer, inputs[0].detach(), output))


def weight_gradient(layer: nn.Module, inner: Tensor, outer: Tensor, *, seed: int) -> Tensor:
    """Return the gradient of each sample for one weight of a layer, (b,).

    Args:
        layer: a convolution or linear layer.
        inner: what it read.
        outer: the gradient for what it gave.
        seed: of the choice of the weight.
    """
    draws = torch.Generator().manual_seed(seed)
    weight = layer.weight
    assert isinstance(weight, Tensor)
    place = [int(torch.randint(size, (1,), generator=draws)) for size in weight.shape]
    if isinstance(layer, nn.Conv2d):
        return _convolution_gradient(layer, inner, outer, place)
    both = outer[..., place[0]] * inner[..., place[1]]
    return both.flatten(1).sum(1) if both.dim() > 1 else both


def _convolution_gradient(
    layer: nn.Conv2d, inner: Tensor, outer: Tensor, place: Sequence[int]
) -> Tensor:
    out, channel, row, column = place
    group = out // (layer.out_channels // layer.groups)
    channel += group * (layer.in_channels // layer.groups)
    top, left = (int(size) for size in layer.padding)
    padded = nn.functional.pad(inner[:, channel], (left, left, top, top))
    y, x = row * layer.dilation[0], column * layer.dilation[1]
    height, width = outer.shape[2:]
    (down, right) = layer.stride
    seen = padded[
        :, y : y + down * (height - 1) + 1 : down, x : x + right * (width - 1) + 1 : right
    ]
    return (outer[:, out] * seen).sum((1, 2))
