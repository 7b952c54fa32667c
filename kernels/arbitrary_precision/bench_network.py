"""ResNet-18 of a few bits for the bench: from the stem's output to the input of average pooling.

Between layers run codes; the sums of residual blocks stay float16, as quantised ResNets have them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from kernels.arbitrary_precision import exact, planes_path
from kernels.arbitrary_precision.direct_path import conv2d_fused
from kernels.arbitrary_precision.module import APConv2d
from kernels.arbitrary_precision.operands import Geometry, Weights
from kernels.arbitrary_precision.packed import LowBit
from kernels.arbitrary_precision.precision import Precision
from kernels.arbitrary_precision.quantise import integers
from kernels.bench import relative_error
from kernels.timing import Call

_WIDTHS = (64, 128, 256, 512)
_HALF = torch.float16


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A residual block: two 3x3 convolutions, and a 1x1 one where the size changes."""

    first: APConv2d
    second: APConv2d
    down: APConv2d | None


class LowBitBody:
    """The residual blocks of ResNet-18 with packed layers, batch norm folded into each.

    Args:
        blocks: in order.
    """

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.blocks = list(blocks)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Map the stem's output (b, 64, h, w), float16 channels-last, to (b, 512, h/8, w/8)."""
        codes: LowBit | None = planes_path.pack(x, self.blocks[0].first.weights())
        real = x
        for number, block in enumerate(self.blocks):
            assert codes is not None
            skip = real
            if block.down is not None:
                _, made = _convolve(block.down, codes, real=True, relu=False)
                assert made is not None
                skip = made
            inner, _ = _convolve(block.first, codes, reads=block.second.weights())
            assert inner is not None
            following = self.blocks[number + 1].first if number + 1 < len(self.blocks) else None
            reads = None if following is None else following.weights()
            codes, made = _convolve(block.second, inner, reads=reads, real=True, residual=skip)
            assert made is not None
            real = made
        return real

    def reference(self, x: torch.Tensor) -> torch.Tensor:
        """Return the same by whole numbers in float64, rounded where the kernels round.

        Codes are made of float32 numbers, before these are rounded to float16. Where one number
        falls to another code, all that depends on it differs by whole steps, so that no other
        order of rounding comes near.
        """
        number, real = x.float(), x
        for block in self.blocks:
            skip = real if block.down is None else _exact(block.down, number).half()
            inner = _exact(block.first, number).clamp_min(0)
            number = (_exact(block.second, inner) + skip.float()).clamp_min(0)
            real = number.half()
        return real


def _convolve(
    layer: APConv2d,
    codes: LowBit,
    *,
    reads: Weights | None = None,
    real: bool = False,
    residual: torch.Tensor | None = None,
    relu: bool = True,
) -> tuple[LowBit | None, torch.Tensor | None]:
    geometry = Geometry(layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    return conv2d_fused(
        *(codes, layer.weights(), geometry), reads=reads, real=real, residual=residual, relu=relu
    )


def _exact(layer: APConv2d, x: torch.Tensor) -> torch.Tensor:
    """Return the layer's output of numbers x, float32, rounded once."""
    codes = integers(x, layer.step, layer.inputs).double()
    w = layer.integers().double().view(layer.out_channels, -1, *layer.kernel_size)
    settings = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
    whole = exact.conv2d(codes, w, **settings)
    counted = whole - layer.constants.double()[:, None, None]
    factor, shift = layer.factor.double(), layer.shift.double()
    return (counted * factor[:, None, None] + shift[:, None, None]).float()


def low_bit_body(precision: Precision, device: str) -> LowBitBody:
    """Return a body with random weights whose maps stay of the size that steps suit."""
    blocks = []
    channels = 64
    for width in _WIDTHS:
        for number in range(2):
            stride = 2 if number == 0 and width > 64 else 1
            first = _layer(channels, width, 3, stride, precision, device)
            second = _layer(width, width, 3, 1, precision, device)
            down = _layer(channels, width, 1, stride, precision, device) if stride == 2 else None
            blocks.append(Block(first, second, down))
            channels = width
    return LowBitBody(blocks)


def _layer(
    channels: int, width: int, kernel: int, stride: int, precision: Precision, device: str
) -> APConv2d:
    low, high = precision.weights.lowest, precision.weights.highest
    shape = (width, channels, kernel, kernel)
    weights = torch.randint(low, high + 1, shape, device=device)
    if precision.weight_bits == 1:
        weights = torch.where(weights > 0, 1, -1)
    scale = torch.full((width,), (channels * kernel**2) ** -0.5, device=device)
    bias = torch.randn(width, device=device) * 0.1
    pads = (kernel // 2, kernel // 2)
    return APConv2d.of(
        weights, scale, precision, step=0.5, bias=bias, stride=(stride, stride), padding=pads
    )


class HalfBody(nn.Module):
    """The same body in float16, as torchvision's ResNet-18 has it with batch norm folded."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 64
        for width in _WIDTHS:
            for number in range(2):
                stride = 2 if number == 0 and width > 64 else 1
                layers += [
                    nn.Conv2d(channels, width, 3, stride, 1),
                    nn.Conv2d(width, width, 3, 1, 1),
                    nn.Conv2d(channels, width, 1, stride) if stride == 2 else nn.Identity(),
                ]
                channels = width
        self.layers = nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (b, 64, h, w) to (b, 512, h / 8, w / 8)."""
        for i in range(0, len(self.layers), 3):
            first, second, down = self.layers[i : i + 3]
            x = F.relu(second(F.relu(first(x))) + down(x))
        return x


def network_calls(
    batch: int,
) -> tuple[Call, dict[str, Sequence[Call]], Callable[[], float]]:
    """Return our body, float16 ones, and the error of ours against whole numbers.

    Args:
        batch: images of 224 x 224, whose stem outputs are 64 x 56 x 56.
    """
    last = torch.channels_last
    x = torch.rand(batch, 64, 56, 56, device="cuda", dtype=_HALF).to(memory_format=last)
    ours = low_bit_body(Precision(1, 2), "cuda")
    half = HalfBody().to("cuda", _HALF).to(memory_format=last).eval()
    compiled = torch.compile(half)
    with torch.no_grad():
        compiled(x)

    def error() -> float:
        return relative_error(ours(x[:2]), ours.reference(x[:2]))

    baselines: dict[str, Callable[..., object]] = {"eager": half, "compile": compiled}
    calls: dict[str, Sequence[Call]] = {name: [partial(f, x)] for name, f in baselines.items()}
    return partial(ours, x), calls, error
