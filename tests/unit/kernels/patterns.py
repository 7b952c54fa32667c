"""Inputs and patterns that the tests of Shfl-BW's kernels share."""

from __future__ import annotations

import torch

from kernels.shfl_bw.pattern import Pattern


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator)


def uneven(rows: int, columns: int, v: int, counts: list[int], seed: int = 0) -> Pattern:
    """A shuffled pattern whose groups keep the given numbers of columns."""
    generator = torch.Generator().manual_seed(seed)
    groups = len(counts)
    assert groups == -(-rows // v)
    ranks = torch.rand(groups, columns, generator=generator).argsort(1).argsort(1)
    kept = ranks < torch.tensor(counts)[:, None]
    order = torch.randperm(groups * v, generator=generator)
    mask = torch.zeros(groups * v, columns, dtype=torch.bool)
    mask[order] = kept.repeat_interleave(v, 0)
    return Pattern(mask[:rows], order, v)
