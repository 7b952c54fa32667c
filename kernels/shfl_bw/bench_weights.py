"""Pruned weights for the bench; patterns are kept on disk, as a large matrix takes a while."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels.environment import cache_dir
from kernels.shfl_bw.images import Images, images_of
from kernels.shfl_bw.packed import Packed, pack
from kernels.shfl_bw.pattern import Pattern
from kernels.shfl_bw.prune import prune

HALF = torch.float16
DENSITY = 0.25
DEVICE = "cuda"


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """A pruned matrix.

    Attributes:
        packed: its packed form, on the GPU.
    """

    packed: Packed

    def images(self) -> Images:
        """Return it as the Hopper kernel reads it, in memory of its own."""
        return images_of(*self.packed.tensors())

    def dense(self) -> torch.Tensor:
        """Return it with its zeros."""
        return self.packed.dense()


def pruned(rows: int, columns: int, v: int, *, scale: float = 1.0) -> Weight:
    """Return N(0, 1) weights times a scale, pruned to a quarter."""
    weight, pattern = drawn(rows, columns, v)
    return Weight(pack(weight * scale, pattern).to(DEVICE, HALF))


def drawn(rows: int, columns: int, v: int) -> tuple[torch.Tensor, Pattern]:
    """Return N(0, 1) weights and what our pruner keeps of them; needs no GPU."""
    generator = torch.Generator().manual_seed(rows + columns + v)
    weight = torch.randn(rows, columns, generator=generator)
    path = cache_dir() / "shfl_bw" / f"{rows}x{columns}-v{v}.pt"
    if path.exists():
        kept = torch.load(path, weights_only=True)
        return weight, _pattern(kept["columns"], kept["order"], rows, v)
    pattern = prune(weight, v, DENSITY)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"columns": pattern.kept(), "order": pattern.order}, path)
    return weight, pattern


def _pattern(kept: torch.Tensor, order: torch.Tensor, rows: int, v: int) -> Pattern:
    mask = torch.zeros(len(order), kept.shape[1], dtype=torch.bool)
    mask[order] = kept.repeat_interleave(v, 0)
    return Pattern(mask[:rows], order, v)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return N(0, 1) on the GPU."""
    generator = torch.Generator(DEVICE).manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=HALF, device=DEVICE)
