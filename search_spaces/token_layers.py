"""The part of the network builder that writes tokens, and what transformers do to them."""

from __future__ import annotations

from abc import ABC, abstractmethod

from search_spaces import scope
from search_spaces.architecture.graph import Value, share_parameters
from search_spaces.errors import ArchitectureError
from search_spaces.ops import (
    Attention,
    ClassToken,
    Conv,
    Embedding,
    Linear,
    Multiply,
    Op,
    Positions,
    Rotary,
    TokenPool,
    Tokens,
    Unembedding,
)

MLP_KINDS = {"gelu": ("gelu", False), "relu": ("relu", False), "swiglu": ("silu", True)}
"""Activation of each kind of MLP, and whether its result gates a second projection."""


class TokenLayers(ABC):
    """Methods of :class:`search_spaces.builder.NetworkBuilder`; x is (tokens, features)."""

    @abstractmethod
    def apply(self, op: Op, *inputs: Value, name: str = "") -> Value:
        """Add any operator."""

    # From pixels and ids to tokens, and back.

    def patches(self, x: Value, width: int, *, size: int, name: str = "patches") -> Value:
        """Cut a feature map into squares of ``size`` pixels and project each to a token.

        Raises:
            ArchitectureError: the squares do not cover the map.
        """
        if x.shape[1] % size or x.shape[2] % size:
            raise ArchitectureError(f"{name}: {size} does not divide {x.shape[1]}x{x.shape[2]}")
        op = Conv.of(width, kernel=size, stride=size, padding=0, bias=True)
        return self.tokens(self.apply(op, x, name=name))

    def tokens(self, x: Value, *, name: str = "") -> Value:
        """Read the pixels of a feature map as tokens, row by row."""
        return self.apply(Tokens.of(), x, name=name)

    def class_token(self, x: Value, *, name: str = "class_token") -> Value:
        """Put a learned token before the others."""
        return self.apply(ClassToken.of(), x, name=name)

    def pool_tokens(self, x: Value, pool: str = "mean", *, name: str = "pool") -> Value:
        """Take one vector of a sequence: its ``first`` token, its ``last``, or the ``mean``."""
        return self.apply(TokenPool.of(pool), x, name=name)

    def embedding(self, ids: Value, width: int, *, name: str = "embedding") -> Value:
        """Look up a learned vector for each token id.

        Raises:
            ArchitectureError: the value is not the network's input, or that holds no token ids.
        """
        vocabulary = getattr(ids.op, "vocabulary", 0)
        if not vocabulary:
            raise ArchitectureError(f"{name}: needs token ids, got {ids.op}")
        return self.apply(Embedding.of(vocabulary, width), ids, name=name)

    def unembedding(self, x: Value, embedding: Value, *, name: str = "unembedding") -> Value:
        """Add the logits of a language model that shares the vectors of its embedding."""
        op = embedding.op
        if not isinstance(op, Embedding):
            raise ArchitectureError(f"{name}: needs an embedding to share, got {op}")
        logits = self.apply(Unembedding.of(op.vocabulary), x, name=name)
        share_parameters(logits, embedding)
        return logits

    # Places.

    def positions(self, x: Value, *, name: str = "positions") -> Value:
        """Add a learned vector to each token by its place."""
        return self.apply(Positions.of(), x, name=name)

    def rotary(self, x: Value, *, heads: int, theta: float = 1e4, name: str = "rotary") -> Value:
        """Turn the features of each head by angles that grow with the token's place."""
        return self.apply(Rotary.of(heads, theta), x, name=name)

    # Attention and MLP.

    def attention(
        self,
        query: Value,
        key: Value,
        value: Value,
        *,
        heads: int,
        kv_heads: int = 0,
        causal: bool = False,
        window: int = 0,
        name: str = "",
    ) -> Value:
        """Add scaled dot-product attention of projected (tokens, features)."""
        op = Attention.of(heads, kv_heads, causal, window)
        return self.apply(op, query, key, value, name=name)

    def self_attention(
        self,
        x: Value,
        *,
        heads: int,
        head_dim: int = 0,
        kv_heads: int = 0,
        causal: bool = False,
        window: int = 0,
        theta: float = 0.0,
        bias: bool = True,
        name: str = "attention",
    ) -> Value:
        """Add the projections of x, attention between its tokens, and the projection back.

        Args:
            x: a sequence.
            heads: of the queries.
            head_dim: features of a head; by default those of x shared out among the heads.
            kv_heads: of keys and values; by default as many as of the queries.
            causal: whether a token sees itself and those before it alone.
            window: how many tokens it sees on a side; 0: all.
            theta: base of rotary positions; 0: none.
            bias: of the four projections.
            name: of the group.

        Raises:
            ArchitectureError: heads do not fit the features or one another; names the place.
        """
        width = x.shape[1]
        if not head_dim and width % heads:
            raise ArchitectureError(
                f"{scope.join(scope.current(), name)}: {heads} heads do not divide {width} features"
            )
        size = head_dim or width // heads
        grouped = kv_heads or heads
        with scope.inside(name):
            q, k, v = (
                self.apply(Linear.of(size * count, not bias), x, name=role)
                for role, count in (("query", heads), ("key", grouped), ("value", grouped))
            )
            if theta:
                q = self.rotary(q, heads=heads, theta=theta, name="rotary_query")
                k = self.rotary(k, heads=grouped, theta=theta, name="rotary_key")
            y = self.attention(
                q,
                k,
                v,
                heads=heads,
                kv_heads=0 if grouped == heads else grouped,
                causal=causal,
                window=window,
                name="heads",
            )
            return self.apply(Linear.of(width, not bias), y, name="out")

    def mlp(
        self, x: Value, hidden: int, *, kind: str = "gelu", bias: bool = True, name: str = "mlp"
    ) -> Value:
        """Add a projection of each token to ``hidden`` features and back.

        Args:
            x: a sequence.
            hidden: features between the projections.
            kind: ``gelu``, ``relu``, or ``swiglu``: two projections up, of which one passes a SiLU
                and scales the other (Shazeer 2020).
            bias: of the projections.
            name: of the group.

        Raises:
            ArchitectureError: there is no such kind.
        """
        if kind not in MLP_KINDS:
            raise ArchitectureError(f"{name}: kind must be one of {list(MLP_KINDS)}, got {kind!r}")
        act, gated = MLP_KINDS[kind]
        with scope.inside(name):
            y = self.apply(Linear.of(hidden, not bias, act), x, name="gate" if gated else "up")
            if gated:
                up = self.apply(Linear.of(hidden, not bias), x, name="up")
                y = self.apply(Multiply.of(), y, up, name="gated")
            return self.apply(Linear.of(x.shape[1], not bias), y, name="down")
