"""Training on a GPU: steps that are replayed from a graph train as steps that are launched."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from evaluators.accuracy import loop
from evaluators.accuracy.data import TextDataset, load_dataset
from evaluators.accuracy.graphed import GraphedGradients
from evaluators.accuracy.initialise import initialise
from evaluators.accuracy.recipe import get_recipe
from evaluators.accuracy.training import TrainingResult, TrainingStatus, train
from search_spaces.build import build
from search_spaces.builder import NetworkBuilder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
RECIPE = replace(get_recipe("text-full"), epochs=3, batch_size=16, mixed_precision="none")


@pytest.fixture(scope="module")
def data() -> TextDataset:
    made = load_dataset(f"text:{Path(__file__).parents[2] / 'LICENSE'}?context=32")
    assert isinstance(made, TextDataset)
    return made


def run(data: TextDataset, *, dropout: float = 0.0, **changes: Any) -> TrainingResult:
    net = NetworkBuilder(data.input_shape, data.classes)
    embedding = x = net.embedding(net.input, 64)
    x = net.add(x, net.self_attention(net.norm(x, "rms"), heads=2, causal=True, theta=1e4))
    if dropout:
        x = net.dropout(x, dropout)
    x = net.add(x, net.mlp(net.norm(x, "rms"), 128, kind="swiglu"))
    module = build(net.freeze(net.unembedding(net.norm(x, "rms"), embedding)))
    initialise(module, 0)
    return train(module, data, replace(RECIPE, **changes), seed=0, device="cuda")


def losses(result: TrainingResult) -> list[float]:
    return [epoch.train_loss for epoch in result.history]


def test_replayed_steps_train_as_launched_ones(
    data: TextDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[GraphedGradients] = []

    def noted(compute: Callable[..., torch.Tensor], device: torch.device) -> GraphedGradients:
        recorded.append(GraphedGradients(compute, device))
        return recorded[-1]

    monkeypatch.setattr(loop, "GraphedGradients", noted)
    replayed = run(data)
    assert recorded[0]._recorded is not None
    monkeypatch.setattr(loop, "GraphedGradients", lambda compute, device: compute)
    launched = run(data)
    assert losses(replayed) == pytest.approx(losses(launched), rel=1e-3)
    assert replayed.history[-1].train_loss < 0.9 * replayed.history[0].train_loss


@pytest.mark.parametrize(
    "changes", [{"mixed_precision": "bf16"}, {"ema_decay": 0.9}, {"dropout": 0.2}]
)
def test_what_recipes_and_layers_add_is_replayed_too(
    data: TextDataset, changes: dict[str, Any]
) -> None:
    result = run(data, **changes)
    assert result.status is TrainingStatus.OK
    assert result.history[-1].train_loss < 0.95 * result.history[0].train_loss


def test_what_cannot_be_recorded_is_launched() -> None:
    """A layer that looks at values on the CPU, as some of a user's may."""
    layer = nn.Linear(4, 1, device="cuda")

    def compute(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        layer.zero_grad()
        loss = (layer(inputs) - targets).square().mean()
        assert loss.item() >= 0
        torch.autograd.backward(loss)
        return loss.detach()

    gradients = GraphedGradients(compute, torch.device("cuda"))
    x, y = torch.randn(8, 4, device="cuda"), torch.randn(8, 1, device="cuda")
    found = [float(gradients(x, y)) for _ in range(6)]
    assert found == pytest.approx([found[0]] * 6)
