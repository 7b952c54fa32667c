"""A ReLU feed-forward block for one vector, each way: what ``implementations`` names."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from kernels.dual_module.launch import FFNStep
from kernels.dual_module.linear import DualModuleFFN

Run = Callable[[torch.Tensor], torch.Tensor]
"""Maps x (1, d) to (1, m)."""


def dense(block: DualModuleFFN, dtype: torch.dtype) -> Run:
    """Return the block as torch computes it, every row."""

    def given(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else tensor.detach().to(dtype)

    w1, w2 = (layer.weight.detach().to(dtype) for layer in (block.first, block.second))
    b1, b2 = given(block.first.bias), given(block.second.bias)
    return lambda x: F.linear(torch.relu_(F.linear(x, w1, b1)), w2, b2)


def lossless(block: DualModuleFFN, dtype: torch.dtype) -> Run:
    """Return the block in one launch that leaves out rows which meet a zero."""
    return _stepped(FFNStep(block, lossless=True), block, dtype)


def dual(block: DualModuleFFN, dtype: torch.dtype) -> Run:
    """Return the block in one launch that computes what the little module says matters."""
    return _stepped(FFNStep(block), block, dtype)


def _stepped(step: FFNStep, block: DualModuleFFN, dtype: torch.dtype) -> Run:
    y = torch.empty(1, block.second.out_features, dtype=dtype, device=block.second.weight.device)

    def run(x: torch.Tensor) -> torch.Tensor:
        step.launch(x[0], y[0]).run()
        return y

    return run
