"""``vit``: vision transformers, with a convolutional stem or stages of convolutions before them."""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces import scope
from search_spaces.architecture.graph import Value
from search_spaces.builder import NetworkBuilder
from search_spaces.choose import Chooser
from search_spaces.offers import choose_variants
from search_spaces.space import DataSpec, space

STEMS = ("patches", "conv", "hybrid")


@dataclass(frozen=True, slots=True)
class Settings:
    """The ranges of a preset.

    Attributes:
        tokens: least and most tokens that an image becomes; decides which patches there are.
        widths: features of a token.
        depth: least and most blocks.
        heads: of attention; those that divide the width.
        ratios: features between the projections of an MLP, over the width.
        hybrid_width: channels of the first convolution of a hybrid; doubled with each halving.
        hybrid_depth: convolutional blocks of a stage of a hybrid, at least and at most.
    """

    tokens: tuple[int, int]
    widths: tuple[int, ...]
    depth: tuple[int, int]
    heads: tuple[int, ...]
    ratios: tuple[float, ...]
    hybrid_width: tuple[int, ...]
    hybrid_depth: tuple[int, int]


BASE = Settings(
    tokens=(16, 256),
    widths=(192, 256, 384, 512, 768),
    depth=(4, 12),
    heads=(3, 4, 6, 8, 12),
    ratios=(2.0, 3.0, 4.0),
    hybrid_width=(32, 64),
    hybrid_depth=(1, 3),
)
SMALL = Settings(
    tokens=(4, 64),
    widths=(32, 48, 64, 96),
    depth=(1, 4),
    heads=(1, 2, 4),
    ratios=(1.0, 2.0, 4.0),
    hybrid_width=(8, 16),
    hybrid_depth=(1, 1),
)


@space("vit", version=1)
def vit(
    choose: Chooser, data: DataSpec, settings: Settings = BASE, variants: bool = False
) -> Value:
    """Patches, a stem or stages of convolutions, then blocks of attention and MLP, norm first.

    Dosovitskiy et al. (ICLR 2021); the convolutional stem of Xiao et al. (NeurIPS 2021). Patches
    are those powers of two that cut the image into a fitting number of tokens.
    """
    patch = choose("patch", _patches(data, settings))
    width = choose("width", settings.widths)
    # A stem halves the map with each convolution, so a patch of one pixel leaves it no work.
    stem = choose("stem", STEMS if patch > 1 else STEMS[:1])
    net = NetworkBuilder(data.input_shape)
    if stem == "patches":
        x = net.patches(net.input, width, size=patch)
    elif stem == "conv":
        x = _conv_stem(net, width, patch)
    else:
        x = _hybrid_stem(net, choose, width, patch, settings)
    pool = choose("pool", ("mean", "first"))
    if pool == "first":
        x = net.class_token(x)
    x = net.positions(x)
    for _, block in choose.repeat("block", *settings.depth):
        heads = block("heads", [n for n in settings.heads if width % n == 0])
        hidden = int(width * block("ratio", settings.ratios))
        x = net.add(x, net.self_attention(net.norm(x, "ln", name="norm1"), heads=heads))
        x = net.add(x, net.mlp(net.norm(x, "ln", name="norm2"), hidden))
    x = net.pool_tokens(net.norm(x, "ln"), pool)
    x = net.linear(x, data.classes, name="classifier")
    return choose_variants(choose, x) if variants else x


def _patches(data: DataSpec, settings: Settings) -> list[int]:
    """Return the sides of patches that cut an image into a fitting number of tokens."""
    _, height, width = data.input_shape
    least, most = settings.tokens
    sizes = [1 << power for power in range(8)]
    return [
        size
        for size in sizes
        if height % size == width % size == 0 and least <= height // size * (width // size) <= most
    ]


def _conv_stem(net: NetworkBuilder, width: int, patch: int) -> Value:
    """Halve the map by 3x3 convolutions until a pixel is what a patch would be."""
    x = net.input
    halvings = patch.bit_length() - 1
    with scope.inside("stem"):
        for step in range(halvings):
            channels = max(8, width >> (halvings - step))
            x = net.conv(x, channels, kernel=3, stride=2, name=f"conv{step}")
        x = net.conv(x, width, norm=None, act=None, bias=True, name="project")
    return net.tokens(x)


def _hybrid_stem(
    net: NetworkBuilder, choose: Chooser, width: int, patch: int, settings: Settings
) -> Value:
    """Halve the map by stages of residual convolutions, each twice as wide as the one before."""
    channels = choose("stage_width", settings.hybrid_width)
    x = net.conv(net.input, channels, kernel=3, name="stem")
    for s, stage in choose.scopes("stage", patch.bit_length() - 1):
        channels *= 2 if s else 1
        kind = stage("kind", ("standard", "separable"))
        x = net.conv_block(x, channels, kind=kind, stride=2)
        for _, _ in stage.repeat("block", *settings.hybrid_depth):
            x = net.add(x, net.conv_block(x, channels, kind=kind))
    return net.tokens(net.conv(x, width, norm=None, act=None, bias=True, name="project"))


vit_variants = vit.preset("vit-variants", version=2, variants=True)
vit_small = vit.preset("vit-small", settings=SMALL)
