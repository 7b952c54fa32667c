"""The kinds of convolution that could stand at one place of a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kernels.registry import Registry
from kernels.sliding_channel.implementations import OP as SLIDING
from kernels.workload import Workload
from search_spaces.architecture import Architecture
from search_spaces.builder import NetworkBuilder
from search_spaces.errors import ArchitectureError

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a convolution stands.

    Attributes:
        shape: of its input, (c, h, w).
        channels: of its output.
        kernel: height and width.
        stride: height and width.
    """

    shape: tuple[int, int, int]
    channels: int
    kernel: Pair
    stride: Pair


Kind = Callable[[Place], Architecture]
"""Writes the network of one kind; raises ``ArchitectureError`` where it does not fit."""

KINDS: Registry[Kind] = Registry("kind of convolution")
"""By name; ``standard`` is the one to beat."""


def place_of(workload: Workload) -> Place | None:
    """Return where a workload stands; None where it is no convolution over all channels."""
    attrs = {name: str(value) for name, value in workload.attrs}
    plain = attrs.get("dilation", "1x1") == "1x1" and attrs.get("groups", "1") == "1"
    if workload.op not in ("conv", SLIDING) or not plain:
        return None
    _, c, h, w = workload.inputs[0]
    kernel, stride = (_pair(attrs.get(name, "1x1")) for name in ("kernel", "stride"))
    place = Place((c, h, w), workload.output[1], kernel, stride)
    same = _standard(place).output.shape == workload.output[1:]  # an own padding has no match
    return place if same else None


def _pair(text: str) -> Pair:
    height, width = map(int, text.split("x"))
    return height, width


@KINDS.register("standard")
def _standard(place: Place) -> Architecture:
    net = NetworkBuilder(place.shape)
    return net.freeze(net.conv(net.input, place.channels, kernel=place.kernel, stride=place.stride))


@KINDS.register("separable")
def _separable(place: Place) -> Architecture:
    if place.kernel == (1, 1):
        raise ArchitectureError("a 1x1 convolution has no spatial part to separate")
    net = NetworkBuilder(place.shape)
    x = net.depthwise(net.input, kernel=place.kernel, stride=place.stride)
    return net.freeze(net.conv(x, place.channels))


def _sliding(place: Place, cg: int) -> Architecture:
    net = NetworkBuilder(place.shape)
    x = net.input
    if place.kernel != (1, 1):
        x = net.depthwise(x, kernel=place.kernel, stride=place.stride)
    elif place.stride != (1, 1):
        raise ArchitectureError("a sliding-channel convolution has no stride of its own")
    return net.freeze(net.sliding_channel(x, place.channels, cg=cg, co=0.5))


@KINDS.register("sliding(cg=2,co=0.5)")
def _sliding_2(place: Place) -> Architecture:
    return _sliding(place, 2)


@KINDS.register("sliding(cg=4,co=0.5)")
def _sliding_4(place: Place) -> Architecture:
    return _sliding(place, 4)
