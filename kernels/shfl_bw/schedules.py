"""When to prune during training: gradually, or growing parts back and pruning them again.

One-shot pruning needs none: call :meth:`SparseTraining.prune` once and fine-tune.
"""

from __future__ import annotations

from kernels.errors import NasError
from kernels.shfl_bw.training import SparseTraining


def falling_density(done: float, final: float) -> float:
    """Return the density when a share of a gradual pruning is done: a cubic law, fast at first.

    Source: Zhu and Gupta, To prune, or not to prune, 2017 (arXiv 1710.01878).

    Args:
        done: 0 to 1.
        final: the density at the end.
    """
    return final + (1.0 - final) * (1.0 - done) ** 3


class Gradual:
    """Lowers the density step by step; rows are grouped anew each time.

    The density falls from 1 to each layer's own, see :func:`falling_density`.

    Args:
        sparse: what it prunes.
        begin: training steps before the first pruning.
        end: the step at which the final density is reached; masks stay from then on.
        every: steps from one pruning to the next.

    Raises:
        NasError: steps that do not rise.
    """

    def __init__(self, sparse: SparseTraining, *, begin: int, end: int, every: int) -> None:
        if not 0 <= begin <= end or every < 1:
            raise NasError(f"Expected 0 <= begin <= end and every >= 1, got {begin, end, every}.")
        self.sparse, self.begin, self.end, self.every = sparse, begin, end, every
        self.steps = 0

    def density(self, step: int, final: float) -> float:
        """Return the density at a step for a layer's final one."""
        if step >= self.end:
            return final
        return falling_density(max(0, step - self.begin) / max(1, self.end - self.begin), final)

    def step(self) -> bool:
        """Count a training step, call it after the optimiser's; return whether it pruned."""
        self.steps += 1
        due = self.begin <= self.steps < self.end and (self.steps - self.begin) % self.every == 0
        if not due and self.steps != self.end:
            return False
        for name, sparsity in self.sparse.layers.items():
            self.sparse.prune(self.density(self.steps, sparsity.density), names=[name])
        return True


class GrowAndPrune:
    """Lets one part of the layers after the other grow dense, train, and prunes it back.

    All layers are pruned at the beginning. Parts take turns: layer i is in part i modulo their
    number. After ``rounds`` turns of all parts every layer is sparse, with groups chosen from
    weights that were dense in the meantime. Source: Ma et al., Effective model sparsification by
    scheduled grow-and-prune methods, ICLR 2022 (arXiv 2106.09857).

    Args:
        sparse: what it grows and prunes.
        parts: into how many the layers are split.
        every: training steps of a turn.
        rounds: how often each part grows.

    Raises:
        NasError: numbers below 1.
    """

    def __init__(self, sparse: SparseTraining, *, parts: int, every: int, rounds: int = 1) -> None:
        if min(parts, every, rounds) < 1:
            raise NasError(f"Expected numbers of at least 1, got {parts, every, rounds}.")
        self.sparse, self.every, self.rounds = sparse, every, rounds
        names = list(sparse.layers)
        self.parts = [part for part in (names[i::parts] for i in range(parts)) if part]
        self.steps = 0
        sparse.prune()
        sparse.release(self.parts[0] if self.parts else [])

    @property
    def turns(self) -> int:
        """How many turns there are."""
        return self.rounds * len(self.parts)

    @property
    def done(self) -> bool:
        """Whether all layers are sparse for good."""
        return self.steps >= self.turns * self.every

    def step(self) -> bool:
        """Count a training step, call it after the optimiser's; return whether it pruned."""
        self.steps += 1
        if self.steps % self.every or self.steps > self.turns * self.every:
            return False
        turn = self.steps // self.every
        self.sparse.prune(names=self.parts[(turn - 1) % len(self.parts)])
        if turn < self.turns:
            self.sparse.release(self.parts[turn % len(self.parts)])
        return True
