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
| ``vkdnw`` | layers with weights, and evenness of the Fisher information | VKDNW, CVPR 2025 |
| ``dss`` | for transformers: diversity of attention's weights, saliency of others | CVPR 2022 |
| ``attention_confidence`` | how sure attention is of one token | Serianni, Kalita, ACL 2023 |
| ``head_importance`` | how much of the loss hangs on each head | Michel et al., NeurIPS 2019 |

Networks that read tokens have the scores of attention and ``zico``, on random tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from itertools import pairwise

import torch
from torch import Tensor, nn

from evaluators.accuracy.initialise import seeded
from evaluators.protocol import EvaluationError, Measured, Slot
from evaluators.proxies import statistics
from evaluators.proxies.attention import confidence, diversity, importance
from evaluators.proxies.curvature import curvature
from evaluators.proxies.probe import Probe
from kernels.errors import UnknownNameError
from search_spaces.architecture import Architecture

_VERSION = 2
"""Of the formulas and of how they are fed; a change of either raises it."""
IMAGES = 64
"""Real images that the scores that compare samples are given, where there are some."""
_BATCHES = 2


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
            EvaluationError: nothing of the input reaches the output, or it reads what a score
                cannot be found with.
        """
        device = torch.device(self._device)
        probe = Probe(architecture, self._seed, device)
        if probe.vocabulary:
            for name in self.metrics:
                if SCORES[name] not in _OF_TOKENS:
                    raise EvaluationError(f"{name} is a score of networks that read an image.")
        found: dict[str, Tensor] = {}
        for measure in dict.fromkeys(SCORES[name] for name in self.metrics):
            with seeded(self._seed, device):  # each as if it were alone
                inputs = probe.noise(self._batch)
                if measure is _inputs and self._images is not None:
                    inputs = self._images.to(device)
                found.update(measure(probe, inputs))
        return {name: float(found[name].detach()) for name in self.metrics}


_Measure = Callable[[Probe, Tensor], Mapping[str, Tensor]]


def _inputs(probe: Probe, images: Tensor) -> Mapping[str, Tensor]:
    """Return what the whole network does to its inputs: codes and gradients."""
    images = images.detach().requires_grad_(True)
    values, _ = probe.run(images)
    output = values[-1]
    (gradient,) = torch.autograd.grad(output, images, torch.ones_like(output))
    independent = max(2, gradient[0].numel() // 2)  # more gradients than pixels are never unlike
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64, device=images.device)
    for number in probe.activated():
        kernel += statistics.code_kernel((values[number].detach() > 0).flatten(1))
    return {
        "jacob_cov": statistics.jacobian_correlation(gradient.flatten(1)[:independent]),
        "naswot": statistics.log_determinant(kernel),
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
    twin = probe.positive()
    for layer in twin.module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.forward = _same  # type: ignore[method-assign, assignment]
    ones = torch.ones_like(images[:1], dtype=torch.float64)
    weights = [layer.weight for layer in twin.layers()]
    gradients = torch.autograd.grad(twin.run(ones)[0][-1].sum(), weights)
    flows = [(w.detach() * g).sum() for w, g in zip(weights, gradients, strict=True)]
    return {"synflow": torch.stack(flows).sum().log()}


def _same(values: Tensor) -> Tensor:
    return values


def _steadiness(probe: Probe, images: Tensor) -> Mapping[str, Tensor]:
    """Return ZiCo, with labels that the network itself draws."""
    weights = [layer.weight for layer in probe.layers()]
    batches = []
    for part in images.chunk(_BATCHES):
        loss = statistics.drawn_loss(probe.run(part)[0][-1]).mean()
        batches.append(torch.autograd.grad(loss, weights))
    layers = [torch.stack(items) for items in zip(*batches, strict=True)]
    return {"zico": torch.stack([statistics.gradient_steadiness(item) for item in layers]).sum()}


SCORES: Mapping[str, _Measure] = {
    "jacob_cov": _inputs,
    "naswot": _inputs,
    "synflow": _flow,
    "zico": _steadiness,
    "expressivity": _blocks,
    "narrowest": _blocks,
    "progressivity": _blocks,
    "trainability": _blocks,
    "vkdnw": curvature,
    "dss": diversity,
    "attention_confidence": confidence,
    "head_importance": importance,
}
"""What computes each score; those that share a pass stand together. More is better of all."""

_OF_TOKENS = frozenset({_steadiness, confidence, importance})
"""What needs no pixels: the others differentiate for the input, or feed numbers of their own."""
