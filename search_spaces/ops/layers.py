"""The few layers that operators need and torch lacks; each is self-contained plain PyTorch.

Exported models carry the text of the classes they use, so nothing here imports from this project.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

PLAIN_IMPORTS = (
    "import torch",
    "from torch import nn",
    "from torch.nn import functional as F",
)
"""What these classes need in scope."""


class StochasticDepth(nn.Module):
    """While training, zeroes whole samples with probability p and divides the rest by 1 - p."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x (b, ...) to the same shape."""
        if not self.training or self.p == 0.0:
            return x
        keep = x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(1.0 - self.p)
        return x * keep.div_(1.0 - self.p)


class Attention(nn.Module):
    """Scaled dot-product attention of projected queries, keys and values."""

    def __init__(self, heads: int, kv_heads: int | None = None, causal: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.kv_heads = kv_heads or heads
        self.causal = causal

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Map (b, tokens, d), (b, keys, d'), (b, keys, d') to (b, tokens, d)."""
        q = torch.unflatten(query, -1, (self.heads, -1)).transpose(1, 2)
        k = torch.unflatten(key, -1, (self.kv_heads, -1)).transpose(1, 2)
        v = torch.unflatten(value, -1, (self.kv_heads, -1)).transpose(1, 2)
        grouped = self.kv_heads != self.heads
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal, enable_gqa=grouped)
        return y.transpose(1, 2).flatten(2)
