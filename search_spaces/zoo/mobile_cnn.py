"""``mobile-cnn``: staged networks of standard, separable and sliding-channel blocks."""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces.architecture.graph import Value
from search_spaces.builder import NetworkBuilder
from search_spaces.choose import Chooser
from search_spaces.space import DataSpec, space

KINDS = ("standard", "separable", "sliding")


@dataclass(frozen=True, slots=True)
class Settings:
    """The ranges of a preset.

    Attributes:
        stem: channels of the first convolution.
        widths: channels of each stage; their number is the number of stages.
        strides: of the first block of each stage.
        depth: least and most blocks of a stage.
        kernels: sizes of the spatial convolution.
        expansions: factors by which a block widens its input before the spatial convolution.
        cg: channel groups of a sliding-channel convolution.
        co: overlaps of its windows.
        head: channels of the last pointwise convolution; 0 for none.
    """

    stem: tuple[int, ...]
    widths: tuple[tuple[int, ...], ...]
    strides: tuple[int, ...]
    depth: tuple[int, int]
    kernels: tuple[int, ...]
    expansions: tuple[int, ...]
    cg: tuple[int, ...]
    co: tuple[float, ...]
    head: tuple[int, ...]


BASE = Settings(
    stem=(16, 24, 32),
    widths=((16, 24, 32), (32, 48, 64), (64, 96, 128), (128, 192, 256)),
    strides=(1, 2, 2, 2),
    depth=(1, 4),
    kernels=(3, 5, 7),
    expansions=(1, 2, 4),
    cg=(2, 4),
    co=(0.25, 0.5),
    head=(0, 256, 512),
)
SMALL = Settings(
    stem=(4, 8, 16),
    widths=((4, 8, 16), (8, 16, 32), (12, 24, 48)),
    strides=(1, 2, 2),
    depth=(1, 2),
    kernels=(3, 5),
    expansions=(1, 2, 4),
    cg=(2, 4),
    co=(0.25, 0.5),
    head=(0, 64),
)


@space("mobile-cnn", version=1)
def mobile_cnn(choose: Chooser, data: DataSpec, settings: Settings = BASE) -> Value:
    """Stages of blocks; stride 2 at the stem too where the input is 64 pixels or larger."""
    net = NetworkBuilder(data.input_shape)
    large = min(data.input_shape[1:]) >= 64
    stem = choose("stem", settings.stem)
    x = net.conv(net.input, stem, kernel=3, stride=2 if large else 1, name="stem")
    for s, stage in choose.scopes("stage", len(settings.widths)):
        width = stage("width", settings.widths[s])
        residual = stage("residual", (True, False))
        for b, block in stage.repeat("block", *settings.depth):
            stride = settings.strides[s] if b == 0 else 1
            y = _block(net, x, block, settings, width=width, stride=stride)
            x = net.add(x, y) if residual and y.shape == x.shape else y
    head = choose("head", settings.head)
    if head:
        x = net.conv(x, head, name="head")
    return net.classifier(x, data.classes)


def _block(
    net: NetworkBuilder, x: Value, block: Chooser, settings: Settings, *, width: int, stride: int
) -> Value:
    """Add an expansion (if any) and a spatial convolution of the chosen kind."""
    kind = block("kind", KINDS)
    kernel = block("kernel", settings.kernels)
    hidden = x.shape[0] * block("expansion", settings.expansions)
    expands = hidden != x.shape[0]
    act = None if expands else "relu"  # a linear bottleneck after an expansion (MobileNetV2)
    if kind == "standard":
        x = net.conv(x, hidden if expands else width, kernel=kernel, stride=stride)
        return net.conv(x, width, act=None, name="project") if expands else x
    if expands:
        x = net.conv(x, hidden, name="expand")
    x = net.depthwise(x, kernel=kernel, stride=stride)
    if kind == "separable":
        return net.conv(x, width, act=act, name="pointwise")
    cg = block("cg", settings.cg)
    block.require(hidden % cg == 0, "cg divides the channels")
    return net.sliding_channel(x, width, cg=cg, co=block("co", settings.co), act=act)


mobile_cnn_small = mobile_cnn.preset("mobile-cnn-small", settings=SMALL)
