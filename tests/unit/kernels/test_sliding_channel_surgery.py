"""Sliding-channel layers in finished networks; totals are those of the DSXplore notes."""

from __future__ import annotations

import doctest

import pytest
import torch
import torchvision
from torch import nn

from kernels.errors import NasError
from kernels.sliding_channel import surgery
from kernels.sliding_channel.bench_network import mobilenet
from kernels.sliding_channel.module import SlidingChannelConv2d
from kernels.sliding_channel.surgery import to_sliding_channel


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _sliding(model: nn.Module) -> list[str]:
    return [name for name, m in model.named_modules() if isinstance(m, SlidingChannelConv2d)]


@pytest.mark.parametrize(("cg", "millions"), [(1, "1.687"), (2, "0.870"), (4, "0.461")])
def test_vgg16(cg: int, millions: str) -> None:
    with torch.device("meta"):
        model = torchvision.models.vgg16_bn().features
        changed = to_sliding_channel(model, cg)
    classifier = 512 * 10 + 10
    assert f"{(_count(model) + classifier) / 1e6:.3f}" == "14.728"
    assert f"{(_count(changed) + classifier) / 1e6:.3f}" == millions
    assert len(_sliding(changed)) == 12
    assert isinstance(changed.get_submodule("0"), nn.Conv2d)


@pytest.mark.parametrize(("cg", "millions"), [(1, "3.222"), (2, "1.652"), (8, "0.475")])
def test_mobilenet(cg: int, millions: str) -> None:
    with torch.device("meta"):
        changed = to_sliding_channel(mobilenet(False), cg)
    depthwise = sum(
        m.groups for m in changed.modules() if isinstance(m, nn.Conv2d) and m.groups > 1
    )
    # The authors' depthwise layers have a bias, those of the training case have none.
    assert f"{(_count(changed) + depthwise) / 1e6:.3f}" == millions
    assert len(_sliding(changed)) == 13


@pytest.mark.parametrize("cg", [1, 2, 4])
def test_resnet18_changes_the_second_convolution_of_each_block(cg: int) -> None:
    with torch.device("meta"):
        model = torchvision.models.resnet18()
        changed = to_sliding_channel(model, cg)
    widths = (64, 64, 128, 128, 256, 256, 512, 512)
    saved = sum(9 * w * w - (10 * w + w * w // cg) for w in widths)
    assert _count(model) - _count(changed) == saved
    assert all(name.endswith("conv2.1") for name in _sliding(changed))


def test_resnet50_keeps_the_pointwise_layers_and_the_stride() -> None:
    with torch.device("meta"):
        model = torchvision.models.resnet50()
        changed = to_sliding_channel(model, 2)
    saved = sum(
        blocks * (9 * w * w - (10 * w + w * w // 2))
        for blocks, w in zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True)
    )
    assert _count(model) - _count(changed) == saved
    depthwise = changed.get_submodule("layer2.0.conv2.0")
    assert isinstance(depthwise, nn.Conv2d)
    assert (depthwise.stride, depthwise.groups) == ((2, 2), 128)


def test_the_copy_runs_and_the_original_stays() -> None:
    torch.manual_seed(0)
    model = torchvision.models.mobilenet_v2(width_mult=0.5, num_classes=3).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    changed = to_sliding_channel(model, 2)
    x = torch.randn(2, 3, 32, 32)
    assert changed(x).shape == (2, 3)
    assert len(_sliding(changed)) == 17
    assert not changed.training
    assert not _sliding(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    kept = changed.state_dict()
    assert torch.equal(kept["classifier.1.weight"], before["classifier.1.weight"])


def test_networks_without_a_place_for_it() -> None:
    with pytest.raises(NasError, match=r"Nothing to replace.*got Linear"):
        to_sliding_channel(nn.Linear(2, 2))
    three = nn.Sequential(nn.Conv2d(3, 9, 3, padding=1), nn.Conv2d(9, 8, 3, padding=1))
    with pytest.raises(NasError, match="Layer 1: cg must be a divisor of in_channels=9"):
        to_sliding_channel(three, 2)


def test_docstring_example() -> None:
    assert doctest.testmod(surgery).failed == 0
