"""Scores of fresh transformers: against the same sums on plain modules, and by hand."""

from __future__ import annotations

from math import exp

import pytest
import torch
from torch import nn

from evaluators.accuracy.initialise import seeded
from evaluators.protocol import EvaluationError
from evaluators.proxies.attention import attention_weights, confidence, importance
from evaluators.proxies.probe import Probe
from evaluators.proxies.untrained import UntrainedEvaluator
from search_spaces.architecture import Architecture
from search_spaces.builder import NetworkBuilder
from search_spaces.ops.attention import Attention
from search_spaces.ops.layers import Attention as PlainAttention
from search_spaces.ops.layers import CausalAttention

CPU = torch.device("cpu")


def transformer(*, heads: int = 2) -> Architecture:
    """Return one block of attention on patches."""
    net = NetworkBuilder((3, 8, 8))
    x = net.patches(net.input, 16, size=4)
    x = net.add(x, net.self_attention(net.norm(x, "ln"), heads=heads))
    x = net.add(x, net.mlp(net.norm(x, "ln", name="norm2"), 24))
    return net.freeze(net.linear(net.pool_tokens(x), 5, name="head"))


def language_model() -> Architecture:
    """Return one block of causal attention on tokens, two queries sharing a key."""
    net = NetworkBuilder((6,), vocabulary=11)
    x = net.embedding(net.input, 8)
    x = net.add(x, net.self_attention(x, heads=2, kv_heads=1, causal=True, theta=100.0))
    return net.freeze(net.linear(x, 11, name="head"))


def test_dss_of_one_block_of_attention() -> None:
    """Against the same sums on a plain module, layer by layer."""
    module = Probe(transformer(), 4, CPU).module.double().eval()
    for weight in module.parameters():
        weight.data.abs_()
    module(torch.ones(1, 3, 8, 8, dtype=torch.float64)).sum().backward()
    expected = 0.0
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            weight, gradient = layer.weight.detach(), layer.weight.grad
            if "attention" in name:
                norms = [torch.linalg.svdvals(item).sum() for item in (weight, gradient)]
                expected += float(norms[0] * norms[1])
            else:
                expected += float((weight * gradient).sum().abs())
    found = UntrainedEvaluator(("dss",), seed=4).scores(transformer())["dss"]
    assert found == pytest.approx(expected)
    assert sum("attention" in name for name, _ in module.named_modules()) >= 4


def test_attention_weights_by_hand() -> None:
    """Two tokens of one feature: scores 1 and 0 of the first, 2 and 0 of the second."""
    query, key = torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[1.0], [0.0]]])
    found = attention_weights(query, key, Attention.of(1, 0, False, 0))[0, 0]
    first, second = exp(1) / (exp(1) + 1), exp(2) / (exp(2) + 1)
    assert found.tolist()[0] == pytest.approx([first, 1 - first])
    assert found.tolist()[1] == pytest.approx([second, 1 - second])
    causal = attention_weights(query, key, Attention.of(1, 0, True, 0))[0, 0]
    assert causal.tolist()[0] == [1, 0]


@pytest.mark.parametrize(("causal", "window"), [(False, 0), (True, 0), (True, 3), (False, 2)])
@pytest.mark.parametrize("shared", [1, 2])
def test_attention_weights_are_those_of_the_layers(causal: bool, window: int, shared: int) -> None:
    torch.manual_seed(0)
    query = torch.randn(2, 5, 8)
    key, value = torch.randn(2, 2, 5, 8 // shared)
    op = Attention.of(4, 4 // shared if shared > 1 else 0, causal, window)
    weights = attention_weights(query, key, op)
    split = value.unflatten(-1, (op.key_heads, -1)).transpose(1, 2)
    ours = weights @ split.repeat_interleave(shared, dim=1)
    layer = (CausalAttention if causal else PlainAttention)(4, op.key_heads, window)
    torch.testing.assert_close(ours.transpose(1, 2).flatten(2), layer(query, key, value))


def test_confidence_of_attention_lies_between_even_and_sure() -> None:
    found = UntrainedEvaluator(("attention_confidence",)).scores(transformer())
    assert 1 / 4 < found["attention_confidence"] < 1  # four patches, one layer
    even = Probe(transformer(), 0, CPU)
    images = even.noise(2)
    for name, layer in even.module.named_modules():
        if isinstance(layer, nn.Linear) and "query" in name:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    assert float(confidence(even, images)["attention_confidence"]) == pytest.approx(1 / 4)


def test_importance_of_heads_is_what_their_absence_costs_to_first_order() -> None:
    """Against finite differences: each head's output is made a little smaller."""
    probe = Probe(transformer(), 1, CPU)
    probe.module.double()
    images = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    with seeded(7, CPU):
        found = float(importance(probe, images)["head_importance"])
    heads = next(item for name, item in probe.module.named_modules() if name.endswith("heads"))
    step, losses = 1e-6, []
    for head in (None, 0, 1):
        mask = torch.ones(16, dtype=torch.float64)
        if head is not None:
            mask[8 * head : 8 * head + 8] -= step
        hook = heads.register_forward_hook(lambda _, __, value, mask=mask: value * mask)
        with seeded(7, CPU), torch.no_grad():
            logits = probe.module.eval()(images)
            if head is None:
                labels = torch.multinomial(logits.softmax(1), 1)[:, 0]
            losses.append(nn.functional.cross_entropy(logits, labels, reduction="none"))
        hook.remove()
    changes = [(losses[0] - item).abs().mean() / step for item in losses[1:]]
    assert found == pytest.approx(float(sum(changes)), rel=1e-4)


def test_language_models_have_the_scores_of_attention_and_steadiness() -> None:
    names = ("attention_confidence", "head_importance", "zico")
    first = UntrainedEvaluator(names, seed=1).scores(language_model())
    assert UntrainedEvaluator(names, seed=1).scores(language_model()) == first
    assert all(0 < abs(value) < 1e9 for value in first.values())
    assert UntrainedEvaluator(names, seed=2).scores(language_model()) != first
    with pytest.raises(EvaluationError, match="naswot is a score of networks that read an image"):
        UntrainedEvaluator(("naswot",)).scores(language_model())
