"""Operators that make sequences of tokens, say where each stands, and take them apart again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from search_spaces.errors import OpError
from search_spaces.ops.attributes import attr, choice, integer, number
from search_spaces.ops.base import (
    Op,
    Part,
    Reach,
    Shape,
    expression,
    image,
    register,
    sequence,
)

if TYPE_CHECKING:
    from search_spaces.ops.base import Mask

THETA = 10000.0
"""Base of the wavelengths of rotary positions (Su et al. 2021)."""


@register
@dataclass(frozen=True)
class Embedding(Op):
    """A learned vector for each token id; (tokens,) -> (tokens, features)."""

    kind: ClassVar[str] = "embedding"
    plain: ClassVar[bool] = True

    vocabulary: int = attr(integer())
    features: int = attr(integer(), "d")

    def infer(self, inputs: tuple[Shape, ...]) -> Shape:
        if len(inputs[0]) != 1:
            raise OpError(f"embedding needs token ids (tokens,), got {inputs[0]}")
        return inputs[0][0], self.features

    def params(self, inputs: tuple[Shape, ...]) -> int:
        return self.vocabulary * self.features

    def weights_read(self, inputs: tuple[Shape, ...]) -> int:
        return inputs[0][0] * self.features

    def shared(self, inputs: tuple[Shape, ...]) -> object:
        return self.kind, self.vocabulary, self.features

    def is_causal(self) -> bool:
        return True

    def parts(self, inputs: tuple[Shape, ...]) -> tuple[Part, ...]:
        return (Part("embedding", expression("nn.Embedding", self.vocabulary, self.features)),)


@register
@dataclass(frozen=True)
class Unembedding(Op):
    """Products with the vectors of an embedding, whose parameters it is there to share.

    (tokens, features) -> (tokens, vocabulary): the logits of a language model with tied embeddings.
    """

    kind: ClassVar[str] = "unembedding"
    plain: ClassVar[bool] = True

    vocabulary: int = attr(integer())

    def infer(self, inputs: tuple[Shape, ...]) -> Shape:
        return sequence(inputs, self.kind)[0], self.vocabulary

    def params(self, inputs: tuple[Shape, ...]) -> int:
        return self.vocabulary * inputs[0][1]

    def macs(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return inputs[0][1] * output[0] * output[1]

    def shared(self, inputs: tuple[Shape, ...]) -> object:
        return Embedding.kind, self.vocabulary, inputs[0][1]

    def is_causal(self) -> bool:
        return True

    def reach(self, inputs: tuple[Shape, ...]) -> Reach:
        return Reach(channels=inputs[0][1], weighted=True)

    def parts(self, inputs: tuple[Shape, ...]) -> tuple[Part, ...]:
        return (Part("embedding", expression("nn.Embedding", self.vocabulary, inputs[0][1])),)

    def call(self, layer: str, args: tuple[str, ...]) -> str:
        return f"nn.functional.linear({args[0]}, {layer}.weight)"


@register
@dataclass(frozen=True)
class Positions(Op):
    """Adds a learned vector to each token, by its place; the shape stays."""

    kind: ClassVar[str] = "positions"
    placed: ClassVar[str] = "start"

    def infer(self, inputs: tuple[Shape, ...]) -> Shape:
        return sequence(inputs, self.kind)

    def params(self, inputs: tuple[Shape, ...]) -> int:
        return inputs[0][0] * inputs[0][1]

    def is_causal(self) -> bool:
        return True

    def parts(self, inputs: tuple[Shape, ...]) -> tuple[Part, ...]:
        source = expression("Positions", *inputs[0])
        return (Part("positions", source, uses=("Positions",)),)


@register
@dataclass(frozen=True)
class Rotary(Op):
    """Turns the features of each head by angles that grow with the token's place (RoPE).

    Feature i of a head of size h turns with feature i + h / 2, as in Llama and GPT-NeoX. Attention
    of turned queries and keys depends on their distance.
    """

    kind: ClassVar[str] = "rotary"
    placed: ClassVar[str] = "start"

    heads: int = attr(integer(), "h")
    theta: float = attr(number(1.0), "theta", default=THETA)

    def infer(self, inputs: tuple[Shape, ...]) -> Shape:
        _, features = sequence(inputs, self.kind)
        if features % (2 * self.heads):
            raise OpError(
                f"{self.heads} heads of an even number of features do not fit {features} features"
            )
        return inputs[0]

    def is_causal(self) -> bool:
        return True

    def reach(self, inputs: tuple[Shape, ...]) -> Reach:
        return Reach(channels=2)

    def parts(self, inputs: tuple[Shape, ...]) -> tuple[Part, ...]:
        tokens, features = inputs[0]
        source = expression("Rotary", self.heads, features, tokens, theta=(self.theta, THETA))
        return (Part("rotary", source, uses=("Rotary",)),)


@register
@dataclass(frozen=True)
class Tokens(Op):
    """The pixels of a feature map as a sequence, row by row; (c, h, w) -> (h * w, c)."""

    kind: ClassVar[str] = "tokens"

    def infer(self, inputs: tuple[Shape, ...]) -> Shape:
        c, h, w = image(inputs, self.kind)
        return h * w, c

    def masks(self, inputs: tuple[Shape, ...]) -> tuple[Mask, ...]:
        import numpy as np

        c, h, w = inputs[0]
        return (np.ones((h * w, c), np.bool_),)

    def call(self, layer: str, args: tuple[str, ...]) -> str:
        return f"{args[0]}.flatten(2).transpose(1, 2)"


@register
@dataclass(frozen=True)
class ClassToken(Op):
    """A learned token before the others; (tokens, features) -> (tokens + 1, features)."""

    kind: ClassVar[str] = "classtoken"

    def infer(self, inputs: tuple[Shape, ...]) -> Shape:
        tokens, features = sequence(inputs, self.kind)
        return tokens + 1, features

    def params(self, inputs: tuple[Shape, ...]) -> int:
        return inputs[0][1]

    def masks(self, inputs: tuple[Shape, ...]) -> tuple[Mask, ...]:
        import numpy as np

        return (np.eye(inputs[0][0] + 1, inputs[0][0], k=-1, dtype=np.bool_),)

    def parts(self, inputs: tuple[Shape, ...]) -> tuple[Part, ...]:
        source = expression("ClassToken", inputs[0][1])
        return (Part("token", source, uses=("ClassToken",)),)


_PICKED = {"first": "{}[:, 0]", "last": "{}[:, -1]", "mean": "{}.mean(1)"}


@register
@dataclass(frozen=True)
class TokenPool(Op):
    """One vector of a sequence: its first token, its last, or their mean; -> (features,)."""

    kind: ClassVar[str] = "tokenpool"

    pool: str = attr(choice(*_PICKED))

    def infer(self, inputs: tuple[Shape, ...]) -> Shape:
        return (sequence(inputs, self.kind)[1],)

    def reach(self, inputs: tuple[Shape, ...]) -> Reach:
        return Reach(everywhere=self.pool == "mean")

    def masks(self, inputs: tuple[Shape, ...]) -> tuple[Mask, ...]:
        import numpy as np

        tokens, features = inputs[0]
        mask = np.ones((features, tokens), np.bool_)
        if self.pool != "mean":
            mask[:] = False
            mask[:, 0 if self.pool == "first" else -1] = True
        return (mask,)

    def call(self, layer: str, args: tuple[str, ...]) -> str:
        return _PICKED[self.pool].format(args[0])
