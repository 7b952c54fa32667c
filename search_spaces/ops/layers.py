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
    """Scaled dot-product attention of projected queries, keys and values; tokens see all others."""

    def __init__(self, heads: int, kv_heads: int | None = None, window: int = 0) -> None:
        super().__init__()
        self.heads = heads
        self.kv_heads = kv_heads or heads
        self.window = window

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Map (b, tokens, d), (b, keys, d'), (b, keys, d') to (b, tokens, d)."""
        q = torch.unflatten(query, -1, (self.heads, -1)).transpose(1, 2)
        k = torch.unflatten(key, -1, (self.kv_heads, -1)).transpose(1, 2)
        v = torch.unflatten(value, -1, (self.kv_heads, -1)).transpose(1, 2)
        mask = None
        if 0 < self.window < k.shape[2]:  # tokens less than a window apart see one another
            place = torch.arange(k.shape[2], device=k.device)
            mask = (place[:, None] - place).abs() < self.window
        grouped = self.kv_heads != self.heads
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped)
        return y.transpose(1, 2).flatten(2)


class Cache:
    """What a decoder keeps of the tokens it has read: keys and values, by layer.

    A new one goes with a new batch of sequences; hand it to every call. A layer with a window keeps
    no more than that.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.start = 0
        self.length = 0
        self.kept: dict[nn.Module, tuple[torch.Tensor, torch.Tensor]] = {}

    def begin(self, tokens: int) -> int:
        """Count tokens that are read now; return how many were read before."""
        if self.length + tokens > self.capacity:
            raise ValueError(f"no room for {self.length + tokens} tokens, only {self.capacity}")
        self.start, self.length = self.length, self.length + tokens
        return self.start

    def extend(
        self, layer: nn.Module, key: torch.Tensor, value: torch.Tensor, window: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep keys and values (b, heads, tokens, d); return them with those kept before."""
        room = min(window or self.capacity, self.capacity)
        if layer not in self.kept:
            b, heads, _, size = key.shape
            empty = key.new_zeros(b, heads, room, size)
            self.kept[layer] = (empty, torch.zeros_like(empty))
        held, tokens, start = self.kept[layer], key.shape[2], self.start
        if tokens == 1:  # the oldest place is free; attention does not ask for order
            for buffer, new in zip(held, (key, value), strict=True):
                buffer[:, :, start % room : start % room + 1] = new
            return held[0][:, :, : start + 1], held[1][:, :, : start + 1]
        seen = []
        for buffer, new in zip(held, (key, value), strict=True):
            old = buffer.roll(-(start % room), 2) if start > room else buffer[:, :, :start]
            both = torch.cat([old, new], 2)
            last = both[:, :, -room:]
            places = torch.arange(self.length - last.shape[2], self.length, device=new.device)
            buffer[:, :, places % room] = last
            seen.append(both)
        return seen[0], seen[1]


class CausalAttention(nn.Module):
    """Attention in which a token sees itself and those before it, within a window if there is one.

    With a cache, the tokens stand behind those that it holds.
    """

    def __init__(self, heads: int, kv_heads: int | None = None, window: int = 0) -> None:
        super().__init__()
        self.heads = heads
        self.kv_heads = kv_heads or heads
        self.window = window

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        cache: Cache | None = None,
    ) -> torch.Tensor:
        """Map (b, tokens, d), (b, tokens, d'), (b, tokens, d') to (b, tokens, d)."""
        q = torch.unflatten(query, -1, (self.heads, -1)).transpose(1, 2)
        k = torch.unflatten(key, -1, (self.kv_heads, -1)).transpose(1, 2)
        v = torch.unflatten(value, -1, (self.kv_heads, -1)).transpose(1, 2)
        if cache is not None:
            k, v = cache.extend(self, k, v, self.window)
        tokens, seen = q.shape[2], k.shape[2]
        whole = tokens == seen and not 0 < self.window < tokens
        mask = None
        if tokens > 1 and not whole:
            place = torch.arange(seen, device=q.device)
            age = place[seen - tokens :, None] - place
            mask = (age >= 0) & (age < (self.window or seen))
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=whole, enable_gqa=self.kv_heads != self.heads
        )
        return y.transpose(1, 2).flatten(2)


class Positions(nn.Module):
    """Adds a learned vector to each token, by its place."""

    def __init__(self, tokens: int, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(tokens, features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Begin small."""
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: torch.Tensor, start: int = 0) -> torch.Tensor:
        """Map x (b, tokens, d), whose first token has the place ``start``, to the same shape."""
        return x + self.weight[start : start + x.shape[1]]


class Rotary(nn.Module):
    """Turns the features of each head by angles that grow with the token's place (RoPE)."""

    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(self, heads: int, features: int, tokens: int, theta: float = 10000.0) -> None:
        super().__init__()
        self.heads = heads
        self.theta = theta
        half = features // heads // 2
        speed = theta ** (-torch.arange(half, dtype=torch.float64) / half)
        angle = torch.outer(torch.arange(tokens, dtype=torch.float64), speed)[:, None]
        self.register_buffer("cos", angle.cos().float(), persistent=False)
        self.register_buffer("sin", angle.sin().float(), persistent=False)

    def forward(self, x: torch.Tensor, start: int = 0) -> torch.Tensor:
        """Map x (b, tokens, d), whose first token has the place ``start``, to the same shape."""
        cos = self.cos[start : start + x.shape[1]]
        sin = self.sin[start : start + x.shape[1]]
        first, second = torch.unflatten(x, -1, (self.heads, 2, -1)).unbind(-2)
        turned = torch.cat([first * cos - second * sin, second * cos + first * sin], -1)
        return turned.flatten(2)


class ClassToken(nn.Module):
    """Puts a learned token before the others."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Begin small."""
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x (b, tokens, d) to (b, tokens + 1, d)."""
        return torch.cat([self.weight.expand(x.shape[0], 1, -1), x], 1)
