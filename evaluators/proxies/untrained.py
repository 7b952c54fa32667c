"""Scores of a fresh network: what its features, gradients and curvature are like before training.

Every score is from the formula of its paper, in code of our own. None needs labels: where a loss is
needed, they are drawn from what the network itself predicts. Images are normal noise, but
``jacob_cov`` and ``naswot`` ask how differently a network treats samples, and noise says little of
that (``docs/results.md``): they take real images where there are some.

| score | what it says | source |
| --- | --- | --- |
| ``jacob_cov`` | gradients for the inputs differ between samples | Mellor et al. 2020 |
| ``naswot`` | patterns of active units differ between samples | Mellor et al., ICML 2021 |
| ``synflow`` | product of weights over all paths, in ln | Tanaka et al., NeurIPS 2020 |
| ``zico`` | gradients of weights are steady over batches | Li et al., ICLR 2023 |
| ``expressivity`` | spread of features over channels, mean over blocks | AZ-NAS, CVPR 2024 |
| ``narrowest`` | spread of features of the block where it is least | after AZ-NAS |
| ``progressivity`` | its least growth from block to block | AZ-NAS |
| ``trainability`` | gradients neither grow nor fade in a block | AZ-NAS |
| ``vkdnw`` | evenness of the Fisher information's spectrum | VKDNW, CVPR 2025 |
| ``dss`` | for transformers: diversity of attention's weights, saliency of others | CVPR 2022 |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from itertools import pairwise

import torch
from torch import Tensor, nn

from evaluators.accuracy.initialise import seeded
from evaluators.protocol import EvaluationError, Measured, Slot
from evaluators.proxies import statistics
from evaluators.proxies.probe import Probe
from kernels.errors import UnknownNameError
from search_spaces.architecture import Architecture

_VERSION = 1
"""Of the formulas and of how they are fed; a change of either raises it."""
_BATCHES = 2
_WEIGHTS_A_LAYER = 2
_DRAWS = 2


class UntrainedEvaluator:
    """Scores networks with random weights; see :class:`evaluators.protocol.Evaluator`.

    Args:
        metrics: names of the scores; what several of them need is computed once.
        seed: of weights, noise and labels.
        batch: images; with 16 the joint ranking is as good as with 32, at half the price.
        device: a name torch knows.
        images: normalised ones, (b, c, h, w), for the scores that compare samples.

    Raises:
        UnknownNameError: there is no such score.
    """

    slot: Slot = "training"

    def __init__(
        self,
        metrics: Sequence[str],
        *,
        seed: int = 0,
        batch: int = 16,
        device: str = "cpu",
        images: Tensor | None = None,
    ) -> None:
        for name in metrics:
            if name not in SCORES:
                raise UnknownNameError("score of fresh networks", name, SCORES)
        self.metrics = tuple(metrics)
        self._seed, self._batch, self._device = seed, batch, device
        self._images = images

    def cache_key(self, architecture: Architecture) -> str:
        """See :class:`evaluators.protocol.Evaluator`."""
        parts = [architecture.topology_key, str((_VERSION, self.metrics, self._seed, self._batch))]
        digest = blake2b("\0".join(parts).encode(), digest_size=16)
        if self._images is not None:
            digest.update(self._images.cpu().numpy().tobytes())
        return digest.hexdigest()

    def evaluate(self, architecture: Architecture) -> list[Measured]:
        """Return the scores.

        Raises:
            EvaluationError: nothing reaches the output, or a score is not finite.
        """
        found = self.scores(architecture)
        for name, value in found.items():
            if not abs(value) < float("inf"):
                raise EvaluationError(f"The score {name} of this network is {value}.")
        return [Measured(name, value) for name, value in found.items()]

    def scores(self, architecture: Architecture) -> dict[str, float]:
        """Return the scores by name; what has no value is nan or infinite.

        Raises:
            EvaluationError: nothing of the input reaches the output, or it reads no image.
        """
        device = torch.device(self._device)
        probe = Probe(architecture, self._seed, device)
        shape = architecture.inputs[0].shape
        found: dict[str, Tensor] = {}
        with seeded(self._seed, device):
            noise = torch.randn(self._batch, *shape, device=device)
            real = noise if self._images is None else self._images.to(device)
            for measure in dict.fromkeys(SCORES[name] for name in self.metrics):
                found.update(measure(probe, real if measure is _inputs else noise))
        return {name: float(found[name].detach()) for name in self.metrics}


_Measure = Callable[[Probe, Tensor], Mapping[str, Tensor]]


def _inputs(probe: Probe, images: Tensor) -> Mapping[str, Tensor]:
    """Return what the whole network does to its inputs: codes and gradients."""
    images = images.detach().requires_grad_(True)
    values, _ = probe.run(images)
    output = values[-1]
    (gradient,) = torch.autograd.grad(output, images, torch.ones_like(output))
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64, device=images.device)
    units = 0
    for number in probe.rectified():
        codes = (values[number].detach() > 0).flatten(1)
        kernel += statistics.code_kernel(codes)
        units += codes.shape[1]
    return {
        "jacob_cov": statistics.jacobian_correlation(gradient.flatten(1)),
        "naswot": statistics.log_determinant(kernel, max(units, 1)),
    }


def _blocks(probe: Probe, images: Tensor) -> Mapping[str, Tensor]:
    """Return what single blocks do: spread of features, gain of gradients."""
    places = probe.cuts
    with torch.enable_grad():
        values, ends = probe.run(images, set(places))
    spread = torch.stack([statistics.feature_entropy(values[place].detach()) for place in places])
    scores = []
    for before, after in pairwise(places):
        signs = torch.randint(0, 2, ends[after].shape, device=images.device).float() * 2 - 1
        (inner,) = torch.autograd.grad(ends[after], values[before], signs)
        scores.append(statistics.trainability(statistics.backward_gain(inner, signs)))
    alone = spread.new_zeros(1)
    return {
        "expressivity": spread.mean(),
        "narrowest": spread.min(),
        "progressivity": (spread.diff() if len(spread) > 1 else alone).min(),
        "trainability": (torch.stack(scores) if scores else alone).mean(),
    }


def _flow(probe: Probe, images: Tensor) -> Mapping[str, Tensor]:
    """Return ln of ``sum |w| dR/d|w|``, R the output for ones with all weights positive."""
    twin = _positive(probe)
    for layer in twin.module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.forward = _same  # type: ignore[method-assign, assignment]
    ones = torch.ones_like(images[:1], dtype=torch.float64)
    weights = [layer.weight for layer in twin.layers()]
    gradients = torch.autograd.grad(twin.run(ones)[0][-1].sum(), weights)
    flows = [(w.detach() * g).sum() for w, g in zip(weights, gradients, strict=True)]
    return {"synflow": torch.stack(flows).sum().log()}


def _diversity(probe: Probe, images: Tensor) -> Mapping[str, Tensor]:
    """Return DSS of TF-TAS (Zhou et al.): R as for SynFlow, with norms as they are.

    Linear layers of attention count ``|W|_* |dR/dW|_*``, nuclear norms that are large where the
    weights are of high rank; the others ``sum W dR/dW``.
    """
    twin = _positive(probe)
    twin.module.eval()
    ones = torch.ones_like(images[:1], dtype=torch.float64)
    layers = twin.layers()
    near = {id(layer) for layer in twin.of_attention()}
    gradients = torch.autograd.grad(twin.run(ones)[0][-1].sum(), [layer.weight for layer in layers])
    total = torch.zeros((), dtype=torch.float64, device=images.device)
    for layer, gradient in zip(layers, gradients, strict=True):
        weight = layer.weight.detach()
        if id(layer) in near:
            norms = (torch.linalg.matrix_norm(item, "nuc") for item in (weight, gradient))
            total += torch.stack(list(norms)).prod()
        else:
            total += (weight * gradient).sum().abs()
    return {"dss": total}


def _positive(probe: Probe) -> Probe:
    """Return a copy in double precision whose weights are all positive."""
    twin = Probe(probe.architecture, 0, next(probe.module.parameters()).device)
    twin.module.load_state_dict(probe.module.state_dict())
    twin.module.double()
    with torch.no_grad():
        for weight in twin.module.parameters():
            weight.abs_()
    return twin


def _same(values: Tensor) -> Tensor:
    return values


def _steadiness(probe: Probe, images: Tensor) -> Mapping[str, Tensor]:
    """Return ZiCo, with labels that the network itself draws."""
    weights = [layer.weight for layer in probe.layers()]
    batches = []
    for part in images.chunk(_BATCHES):
        output = probe.run(part)[0][-1]
        loss = nn.functional.cross_entropy(output, _drawn(output))
        batches.append(torch.autograd.grad(loss, weights))
    layers = [torch.stack(items) for items in zip(*batches, strict=True)]
    return {"zico": torch.stack([statistics.gradient_steadiness(item) for item in layers]).sum()}


def _drawn(output: Tensor) -> Tensor:
    """Draw labels from what the network predicts, (b,)."""
    return torch.multinomial(output.detach().softmax(1), 1)[:, 0]


def _curvature(probe: Probe, images: Tensor) -> Mapping[str, Tensor]:
    """Return VKDNW: gradients of each sample for few weights of each layer, labels drawn.

    Normalisation uses the statistics of one pass, so that samples do not depend on one another.
    """
    with torch.no_grad():
        probe.run(images)
    taken: list[tuple[nn.Module, Tensor, Tensor]] = []
    layers = probe.layers()
    hooks = [layer.register_forward_hook(partial(_take, taken)) for layer in layers]
    probe.module.eval()
    output = probe.run(images.detach().requires_grad_(True))[0][-1]
    probe.module.train()
    for hook in hooks:
        hook.remove()
    rows = []
    for draw in range(_DRAWS):
        loss = nn.functional.cross_entropy(output, _drawn(output), reduction="sum")
        outer = torch.autograd.grad(
            loss, [item[2] for item in taken], retain_graph=draw + 1 < _DRAWS
        )
        columns: list[Tensor] = []
        for number, (layer, inner, _) in enumerate(taken):
            columns += _weight_gradients(layer, inner, outer[number], seed=number)
        rows.append(torch.stack(columns, 1))
    return {"vkdnw": statistics.decile_entropy(statistics.fisher_spectrum(rows))}


def _take(
    taken: list[tuple[nn.Module, Tensor, Tensor]],
    layer: nn.Module,
    inputs: tuple[Tensor, ...],
    output: Tensor,
) -> None:
    taken.append((layer, inputs[0].detach(), output))


def _weight_gradients(layer: nn.Module, inner: Tensor, outer: Tensor, *, seed: int) -> list[Tensor]:
    """Return the gradient of each sample for some weights of a layer, (b,) each."""
    draws = torch.Generator().manual_seed(seed)
    weight = layer.weight
    assert isinstance(weight, Tensor)
    found = []
    for _ in range(_WEIGHTS_A_LAYER):
        place = [int(torch.randint(size, (1,), generator=draws)) for size in weight.shape]
        if isinstance(layer, nn.Conv2d):
            found.append(_convolution_gradient(layer, inner, outer, place))
        else:
            both = outer[..., place[0]] * inner[..., place[1]]
            found.append(both.flatten(1).sum(1) if both.dim() > 1 else both)
    return found


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


SCORES: Mapping[str, _Measure] = {
    "jacob_cov": _inputs,
    "naswot": _inputs,
    "synflow": _flow,
    "zico": _steadiness,
    "expressivity": _blocks,
    "narrowest": _blocks,
    "progressivity": _blocks,
    "trainability": _blocks,
    "vkdnw": _curvature,
    "dss": _diversity,
}
"""What computes each score; those that share a pass stand together. More is better of all."""
