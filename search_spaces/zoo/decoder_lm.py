"""``decoder-lm``: causal language models, from GPT-2's blocks to Llama's."""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces.architecture.graph import Value
from search_spaces.builder import NetworkBuilder
from search_spaces.choose import Chooser
from search_spaces.offers import choose_variants
from search_spaces.space import DataSpec, space
from search_spaces.token_layers import MLP_KINDS

THETA = 10000.0


@dataclass(frozen=True, slots=True)
class Settings:
    """The ranges of a preset.

    Attributes:
        widths: features of a token.
        depth: least and most blocks.
        heads: of the queries.
        head_dims: features of a head; heads need not share out the width.
        groups: queries' heads that share one head of keys and values.
        windows: tokens that attention looks back; 0: all.
        ratios: features between the projections of an MLP, over the width.
        dropouts: shares of what a block adds that are zeroed in training.
    """

    widths: tuple[int, ...]
    depth: tuple[int, int]
    heads: tuple[int, ...]
    head_dims: tuple[int, ...]
    groups: tuple[int, ...]
    windows: tuple[int, ...]
    ratios: tuple[float, ...]
    dropouts: tuple[float, ...]


BASE = Settings(
    widths=(128, 192, 256, 384, 512),
    depth=(2, 12),
    heads=(2, 4, 6, 8),
    head_dims=(32, 64),
    groups=(1, 2, 4),
    windows=(0, 32, 64),
    ratios=(2.0, 3.0, 4.0),
    dropouts=(0.0, 0.1, 0.2),
)
SMALL = Settings(
    widths=(48, 64, 96, 128),
    depth=(1, 4),
    heads=(2, 4),
    head_dims=(16, 32),
    groups=(1, 2),
    windows=(0, 16),
    ratios=(1.0, 2.0, 4.0),
    dropouts=(0.0,),
)


@space("decoder-lm", version=2, reads="text")
def decoder_lm(
    choose: Chooser, data: DataSpec, settings: Settings = BASE, variants: bool = False
) -> Value:
    """Embedding, blocks of causal attention and MLP with the norm first, logits of each next token.

    Choices for the whole: width, norm, learned or rotary positions, kind of MLP, tied embeddings,
    dropout; for each block: heads, their size, how many share keys and values, window, MLP width;
    with ``variants`` also by which variant the layers of each role are executed.
    """
    width = choose("width", settings.widths)
    norm = choose("norm", ("ln", "rms"))
    places = choose("positions", ("learned", "rotary"))
    kind = choose("mlp", tuple(MLP_KINDS))
    tied = choose("tied", (True, False))
    dropout = choose("dropout", settings.dropouts)
    bias = norm == "ln"  # as GPT-2 has it; Llama's blocks have root-mean-square norms and no biases
    net = NetworkBuilder(data.input_shape, data.vocabulary)
    embedding = x = net.embedding(net.input, width)
    if places == "learned":
        x = net.positions(x)
    for _, block in choose.repeat("block", *settings.depth):
        heads = block("heads", settings.heads)
        group = block("group", [n for n in settings.groups if heads % n == 0])
        y = net.self_attention(
            net.norm(x, norm, name="norm1"),
            heads=heads,
            head_dim=block("head_dim", settings.head_dims),
            kv_heads=heads // group,
            causal=True,
            window=block("window", [n for n in settings.windows if n < data.input_shape[0]]),
            theta=THETA if places == "rotary" else 0.0,
            bias=bias,
        )
        x = net.add(x, _dropped(net, y, dropout))
        hidden = int(width * block("ratio", settings.ratios))
        y = net.mlp(net.norm(x, norm, name="norm2"), hidden, kind=kind, bias=bias)
        x = net.add(x, _dropped(net, y, dropout))
    x = net.norm(x, norm)
    if tied:
        x = net.unembedding(x, embedding)
    else:
        x = net.linear(x, data.classes, bias=False, name="head")
    return choose_variants(choose, x) if variants else x


def _dropped(net: NetworkBuilder, x: Value, share: float) -> Value:
    return net.dropout(x, share) if share else x


decoder_lm_variants = decoder_lm.preset("decoder-lm-variants", version=3, variants=True)
decoder_lm_small = decoder_lm.preset("decoder-lm-small", settings=SMALL)
