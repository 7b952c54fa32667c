"""The training step of record: MobileNet v1 for 32x32 images, pointwise or sliding-channel."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from kernels.sliding_channel.module import SlidingChannelConv2d

_WIDTHS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
_HALVED = (1, 3, 5, 11)
"""Blocks whose depthwise convolution has stride 2."""


def mobilenet(sliding: bool, *, classes: int = 10, cg: int = 2, co: float = 0.5) -> nn.Sequential:
    """Return MobileNet v1 for images (b, 3, 32, 32), with DW+PW or DW+SCC blocks."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 1, 1, bias=False)]
    layers += [nn.BatchNorm2d(32), nn.ReLU(inplace=True)]
    channels = 32
    for number, width in enumerate(_WIDTHS):
        stride = 2 if number in _HALVED else 1
        mixing: nn.Module = nn.Conv2d(channels, width, 1, bias=False)
        if sliding:
            mixing = SlidingChannelConv2d(channels, width, cg, co)
        layers += [
            nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            mixing,
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
        channels = width
    tail = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
    return nn.Sequential(*layers, *tail)


def training_steps(batch: int = 128) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return one step of SGD in bf16, channels-last, with SCC and with pointwise layers."""
    return _step(True, batch), _step(False, batch)


def _step(sliding: bool, batch: int) -> Callable[[], None]:
    generator = torch.Generator().manual_seed(0)
    network = mobilenet(sliding).to("cuda", torch.bfloat16).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    images = torch.randn(batch, 3, 32, 32, generator=generator).to("cuda", torch.bfloat16)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (batch,), generator=generator).to("cuda")

    def step() -> None:
        with torch.enable_grad():
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(network(images).float(), labels)
            torch.autograd.backward(loss)
            optimizer.step()

    return step
