"""Putting sliding-channel layers into finished networks, as DSXplore's authors do.

- VGG: every 3x3 convolution but the first becomes depthwise 3x3 (with bias) + sliding.
- ResNet basic block: the second 3x3 becomes depthwise + sliding; bottleneck: the 3x3 does, the
  depthwise part carries its stride. No norm in between; shortcuts and stems stay.
- MobileNet: the pointwise convolution after each depthwise one becomes sliding.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise

from torch import nn

from kernels.errors import NasError
from kernels.sliding_channel.module import SlidingChannelConv2d


def to_sliding_channel(
    model: nn.Module, cg: int = 2, co: float | str | Fraction = 0.5
) -> nn.Module:
    """Return a copy of a VGG, ResNet or MobileNet with sliding-channel layers, newly initialised.

    The family is told by the layers: blocks with ``conv1``, ``conv2`` and ``bn2`` make a ResNet,
    depthwise convolutions a MobileNet, else 3x3 convolutions a VGG; torchvision's networks and
    those built like them. All other layers keep their weights.

    Args:
        model: the network; stays as it is.
        cg: number of channel groups.
        co: overlap of neighbouring windows, ``0 <= co < 1``.

    Raises:
        NasError: nothing to replace, or ``cg`` does not divide a layer's channels.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1))
        >>> [type(layer).__name__ for layer in to_sliding_channel(network)]
        ['Conv2d', 'Sequential']
    """
    changed = copy.deepcopy(model)
    names = list(_chosen(changed))
    if not names:
        raise NasError(
            "Nothing to replace: expected a VGG, ResNet or MobileNet with plain convolutions "
            f"(torchvision's or alike), got {type(model).__name__}."
        )
    for name in names:
        parent_name, _, child = name.rpartition(".")
        parent, old = changed.get_submodule(parent_name), changed.get_submodule(name)
        assert isinstance(old, nn.Conv2d)
        try:
            new = _replacement(old, cg, co)
        except NasError as problem:
            raise NasError(f"Layer {name}: {problem}") from None
        setattr(parent, child, new.to(old.weight.device, old.weight.dtype).train(old.training))
    return changed


def _chosen(model: nn.Module) -> Iterator[str]:
    """Return the names of the convolutions to replace."""
    convolutions = [
        (name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)
    ]
    blocks = [
        name
        for name, layer in model.named_modules()
        if all(hasattr(layer, part) for part in ("conv1", "conv2", "bn2"))
    ]
    if blocks:
        plain = {name for name, layer in convolutions if _is_plain(layer, 3)}
        return (f"{name}.conv2" for name in blocks if f"{name}.conv2" in plain)
    if any(_is_depthwise(layer) for _, layer in convolutions):
        return (
            name
            for (_, before), (name, layer) in pairwise(convolutions)
            if _is_depthwise(before) and _is_plain(layer, 1)
        )
    return (name for name, layer in convolutions[1:] if _is_plain(layer, 3))


def _replacement(old: nn.Conv2d, cg: int, co: float | str | Fraction) -> nn.Module:
    sliding = SlidingChannelConv2d(old.in_channels, old.out_channels, cg, co)
    if old.kernel_size == (1, 1):
        return sliding
    depthwise = nn.Conv2d(
        old.in_channels,
        old.in_channels,
        3,
        (old.stride[0], old.stride[1]),
        1,
        groups=old.in_channels,
    )
    return nn.Sequential(depthwise, sliding)


def _is_depthwise(layer: nn.Conv2d) -> bool:
    return layer.groups == layer.in_channels > 1


def _is_plain(layer: nn.Conv2d, size: int) -> bool:
    """Whether it is a dense convolution of that size, padded to keep the size of images."""
    return (
        layer.kernel_size == (size, size)
        and layer.groups == 1
        and layer.padding == (size // 2, size // 2)
        and layer.dilation == (1, 1)
        and (size > 1 or layer.stride == (1, 1))
    )
