"""Scores of fresh transformers: what attention and its weights are like before training.

- ``dss``: ``|W|_* |dR/dW|_*`` of the linear layers of attention and ``|sum W dR/dW|`` of the others
  (TF-TAS: Zhou et al., CVPR 2022).
- ``attention_confidence``: the largest share that a token gives to one, mean over tokens and heads,
  sum over layers ("softmax confidence" of Serianni and Kalita, ACL 2023).
- ``head_importance``: ``|A dL/dA|``, A what a head gives, sum over heads and layers (same paper,
  after Michel et al., NeurIPS 2019).

Of a network without attention the last two are 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from evaluators.proxies import statistics
from evaluators.proxies.probe import Probe
from search_spaces.ops.attention import Attention


def diversity(probe: Probe, images: Tensor) -> Mapping[str, Tensor]:
    """Return DSS (Zhou et al.): R is the output for ones, all weights positive, norms as they are.

    Linear layers of attention count ``|W|_* |dR/dW|_*``, nuclear norms that are large where the
    weights are of high rank; the others ``sum W dR/dW``.
    """
    twin = probe.positive()
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


def confidence(probe: Probe, inputs: Tensor) -> Mapping[str, Tensor]:
    """Return how large the largest weight of attention is, the mean of each layer summed up."""
    nodes = probe.architecture.nodes
    total = torch.zeros((), dtype=torch.float64, device=inputs.device)
    with torch.no_grad(), probe.settled(inputs):
        values, _ = probe.run(inputs)
        for number in probe.attentions():
            op = nodes[number].op
            assert isinstance(op, Attention)
            query, key = (values[item] for item in nodes[number].inputs[:2])
            total += attention_weights(query, key, op).amax(-1).double().mean()
    return {"attention_confidence": total}


def importance(probe: Probe, inputs: Tensor) -> Mapping[str, Tensor]:
    """Return how much the loss of a sample changes, to first order, with each head taken away.

    Labels are drawn from what the network itself predicts.
    """
    nodes, places = probe.architecture.nodes, probe.attentions()
    total = torch.zeros((), dtype=torch.float64, device=inputs.device)
    if not places:
        return {"head_importance": total}
    with probe.settled(inputs):
        values, _ = probe.run(inputs)
    loss = statistics.drawn_loss(values[-1]).sum()
    given = [values[number] for number in places]
    for number, value, gradient in zip(
        places, given, torch.autograd.grad(loss, given), strict=True
    ):
        op = nodes[number].op
        assert isinstance(op, Attention)
        both = torch.unflatten((value.detach() * gradient).double(), -1, (op.heads, -1))
        total += both.sum((1, 3)).abs().mean(0).sum()
    return {"head_importance": total}


def attention_weights(query: Tensor, key: Tensor, op: Attention) -> Tensor:
    """Return the share that each token gives each it sees, (b, heads, tokens, keys).

    Args:
        query: projected, (b, tokens, d).
        key: likewise, (b, keys, d').
        op: heads, and which tokens are seen.
    """
    q = torch.unflatten(query, -1, (op.heads, -1)).transpose(1, 2)
    k = torch.unflatten(key, -1, (op.key_heads, -1)).transpose(1, 2)
    k = k.repeat_interleave(op.heads // op.key_heads, dim=1)
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    places = (torch.arange(size, device=q.device) for size in scores.shape[-2:])
    age = next(places)[:, None] - next(places)
    unseen = (age < 0) & op.causal
    if op.window:
        unseen |= age.abs() >= op.window
    weights: Tensor = scores.masked_fill(unseen, float("-inf")).softmax(-1)
    return weights
