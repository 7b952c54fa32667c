"""Networks that tests share: the classics, and random graphs with an interpreter of their own."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import nn

from kernels.sliding_channel.module import SlidingChannelConv2d
from search_spaces import scope
from search_spaces.architecture import Architecture
from search_spaces.architecture.graph import Value, in_order, share_parameters
from search_spaces.builder import NetworkBuilder
from search_spaces.ops import (
    Activation,
    Add,
    AvgPool,
    ChannelShuffle,
    Concat,
    Conv,
    Dropout,
    Input,
    MaxPool,
    Multiply,
    Norm,
    Op,
    Zero,
)
from search_spaces.ops import layers as layers_of_ours
from search_spaces.ops.sliding_channel import SlidingChannel

LAYERS = {
    "torch": torch,
    "nn": nn,
    "SlidingChannelConv2d": SlidingChannelConv2d,
    **{name: item for name, item in vars(layers_of_ours).items() if isinstance(item, type)},
}
"""What the sources of :class:`search_spaces.ops.base.Part` name."""


# The classics.


def chain(shape: tuple[int, ...], *ops: str) -> Architecture:
    """Write a network whose operators each read the one before, from their text forms."""
    return Architecture.parse("; ".join([f"input {'x'.join(map(str, shape))}", *ops]))


def vgg(
    depths: Sequence[int] = (2, 2, 3, 3, 3),
    widths: Sequence[int] = (64, 128, 256, 512, 512),
    size: int = 32,
) -> Architecture:
    """Write the feature part of a VGG: stages of plain 3x3 convolutions, a 2x2 pool behind each."""
    net = NetworkBuilder((3, size, size))
    x = net.input
    for depth, width in zip(depths, widths, strict=True):
        for _ in range(depth):
            x = net.conv(x, width, kernel=3, norm=None)
        x = net.max_pool(x, kernel=2, stride=2)
    return net.freeze(x)


def resnet18(size: int = 224) -> Architecture:
    """Write ResNet-18 (He et al., CVPR 2016)."""
    net = NetworkBuilder((3, size, size))
    x = net.conv(net.input, 64, kernel=7, stride=2)
    x = net.max_pool(x, kernel=3, stride=2, padding=1)
    for stage, width in enumerate((64, 128, 256, 512)):
        for block in range(2):
            stride = 2 if stage and not block else 1
            y = net.conv(x, width, kernel=3, stride=stride)
            y = net.conv(y, width, kernel=3, act=None)
            same = x.shape == y.shape
            shortcut = x if same else net.conv(x, width, stride=stride, act=None)
            x = net.activation(net.add(y, shortcut))
    return net.freeze(net.classifier(x, 1000))


def resnet50(*, stride_on: int, size: int = 224) -> Architecture:
    """Write ResNet-50 with the stride of a stage on its first 1x1 (``1``) or 3x3 (``3``)."""
    net = NetworkBuilder((3, size, size))
    x = net.conv(net.input, 64, kernel=7, stride=2)
    x = net.max_pool(x, kernel=3, stride=2, padding=1)
    for stage, (width, depth) in enumerate(zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True)):
        for block in range(depth):
            stride = 2 if stage and not block else 1
            y = net.conv(x, width, stride=stride if stride_on == 1 else 1)
            y = net.conv(y, width, kernel=3, stride=stride if stride_on == 3 else 1)
            y = net.conv(y, 4 * width, act=None)
            shortcut = x if block else net.conv(x, 4 * width, stride=stride, act=None)
            x = net.activation(net.add(y, shortcut))
    return net.freeze(net.classifier(x, 1000))


MOBILENET_BLOCKS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *[(512, 1)] * 5,
    *((1024, 2), (1024, 1)),
)


def mobilenet(size: int = 32) -> Architecture:
    """Write MobileNet (Howard et al. 2017) with the strides used for CIFAR: none at the stem."""
    net = NetworkBuilder((3, size, size))
    x = net.conv(net.input, 32, kernel=3)
    for width, stride in MOBILENET_BLOCKS:
        x = net.conv_block(x, width, kind="separable", stride=stride)
    return net.freeze(net.classifier(x, 10))


def vit_b_16() -> Architecture:
    """Write ViT-B/16 (Dosovitskiy et al., ICLR 2021) as torchvision has it."""
    net = NetworkBuilder((3, 224, 224))
    x = net.positions(net.class_token(net.patches(net.input, 768, size=16)))
    for _ in range(12):
        x = net.add(x, net.self_attention(net.norm(x, "ln", eps=1e-6), heads=12))
        x = net.add(x, net.mlp(net.norm(x, "ln", eps=1e-6), 3072))
    x = net.pool_tokens(net.norm(x, "ln", eps=1e-6), "first")
    return net.freeze(net.linear(x, 1000))


def gpt2(
    tokens: int = 1024, *, width: int = 768, depth: int = 12, heads: int = 12, words: int = 50257
) -> Architecture:
    """Write GPT-2 (Radford et al. 2019), small by default, its embeddings tied."""
    net = NetworkBuilder((tokens,), words)
    embedding = net.embedding(net.input, width)
    x = net.positions(embedding)
    for block in range(depth):
        with scope.inside(f"block{block}"):
            x = net.add(x, net.self_attention(net.norm(x, "ln"), heads=heads, causal=True))
            x = net.add(x, net.mlp(net.norm(x, "ln"), 4 * width))
    return net.freeze(net.unembedding(net.norm(x, "ln"), embedding))


def llama_1b(tokens: int = 128) -> Architecture:
    """Write the shape of Llama 3.2 1B: grouped queries, SwiGLU, tied embeddings, no biases."""
    net = NetworkBuilder((tokens,), 128256)
    embedding = x = net.embedding(net.input, 2048)
    for _ in range(16):
        y = net.norm(x, "rms")
        y = net.self_attention(y, heads=32, kv_heads=8, causal=True, theta=5e5, bias=False)
        x = net.add(x, y)
        x = net.add(x, net.mlp(net.norm(x, "rms"), 8192, kind="swiglu", bias=False))
    return net.freeze(net.unembedding(net.norm(x, "rms"), embedding))


# An interpreter that knows nothing of normalisation, canonical order or source generation.


class Layers(nn.Sequential):
    """Layers one after the other, of which the first may take several inputs."""

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        first, *rest = self
        x: torch.Tensor = first(*inputs)
        for item in rest:
            x = item(x)
        return x


def layer(op: Op, shapes: tuple[tuple[int, ...], ...]) -> Layers:
    """Make the layers of one operator."""
    return Layers(*[eval(part.source, LAYERS) for part in op.parts(shapes)])


def shapes_in(value: Value) -> tuple[tuple[int, ...], ...]:
    return tuple(item.shape for item in value.inputs)


def is_absent(op: Op, inputs: Sequence[bool]) -> bool:
    """Tell whether nothing of the network's input reaches an operator, given its inputs."""
    if isinstance(op, Zero):
        return True
    if isinstance(op, Multiply):
        return any(inputs)
    return bool(inputs) and all(inputs)


def absent_values(order: Sequence[Value]) -> set[Value]:
    result: set[Value] = set()
    for value in order:
        if is_absent(value.op, [item in result for item in value.inputs]):
            result.add(value)
    return result


def randomise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights and statistics; deviations stay within [0.5, 2]."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0, generator=generator)
            else:
                tensor.normal_(0.0, 0.5, generator=generator)


class Interpreter(nn.Module):
    """Runs a raw graph value by value, with weights of its own for every value or tied group.

    Values that nothing of the input reaches keep their initial weights. :meth:`attach` puts the
    weights where ``freeze`` and ``build`` look for them.
    """

    def __init__(self, output: Value, seed: int) -> None:
        super().__init__()
        self.order = in_order(output)
        generator = torch.Generator().manual_seed(seed)
        absent = absent_values(self.order)
        self.layers = nn.ModuleList()
        self.owner: dict[Value, int] = {}
        by_group: dict[object, int] = {}
        for value in self.order:
            made = layer(value.op, shapes_in(value))
            if value not in absent:
                randomise(made, generator)  # in float32, as build makes its modules
            index = len(self.layers)
            if value.group is not None:
                index = by_group.setdefault(value.group, index)
            self.owner[value] = index
            self.layers.append(made.double())

    def attach(self) -> None:
        for value in self.order:
            parts = value.op.parts(shapes_in(value))
            tensors: dict[str, Any] = {}
            layers: Any = self.layers[self.owner[value]]
            for part, module in zip(parts, layers, strict=True):
                tensors.update({f"{part.role}.{k}": v for k, v in module.state_dict().items()})
            value.weights = tensors or None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        results: dict[Value, torch.Tensor] = {}
        for value in self.order:
            if isinstance(value.op, Input):
                results[value] = x
            elif isinstance(value.op, Zero):
                results[value] = x.new_zeros(x.shape[0], *value.shape)
            else:
                names = {f"a{i}": results[item] for i, item in enumerate(value.inputs)}
                names["layer"] = self.layers[self.owner[value]]
                results[value] = eval(value.op.call("layer", tuple(names)[:-1]), LAYERS, names)
        return results[self.order[-1]]


# Random graphs.

ZERO_TO_ZERO = ("relu", "tanh", "hardswish", "gelu")
"""Activations that map an absent value to an absent one, as normalisation assumes."""

_SIDE = 5


@st.composite
def raw_graphs(draw: st.DrawFn, steps: int = 12) -> Value:
    """Draw an unnormalised graph over (4, 5, 5) with everything that normalisation touches."""
    values = [Value(Input.of(shape=(4, _SIDE, _SIDE)), (), "in")]
    makers = [_conv, _conv, _norm, _act, _act, _add, _add, _zero, _nothing, _pool, _concat]
    makers += [_multiply, _shuffle, _again, _again, _tied, _sliding]
    for number in range(draw(st.integers(1, steps))):
        made = draw(st.sampled_from(makers))(draw, values)
        if made is not None:
            made.scope = f"s{number}"
            values.append(made)
    return values[draw(st.integers(max(0, len(values) - 4), len(values) - 1))]


def _pick(draw: st.DrawFn, values: list[Value]) -> Value:
    return draw(st.sampled_from(values[-5:]))  # mostly recent, so that graphs are deep


def _alike(draw: st.DrawFn, values: list[Value], least: int) -> list[Value]:
    first = _pick(draw, values)
    same = [item for item in values if item.shape == first.shape]
    more = draw(st.lists(st.sampled_from(same), min_size=least - 1, max_size=2))
    return [first, *more]


def _conv(draw: st.DrawFn, values: list[Value]) -> Value:
    x = _pick(draw, values)
    safe = x not in absent_values(in_order(x))
    op = Conv.of(
        draw(st.sampled_from([4, 8])),
        draw(st.sampled_from([1, 3])),
        groups=draw(st.sampled_from([1, 2])),
        bias=safe and draw(st.booleans()),
        norm=draw(st.sampled_from([None, "bn"])),
        act=draw(st.sampled_from([None, *ZERO_TO_ZERO])),
    )
    return Value(op, (x,), "")


def _sliding(draw: st.DrawFn, values: list[Value]) -> Value:
    norm = draw(st.sampled_from([None, "bn"]))
    return Value(SlidingChannel.of(8, 2, 0.5, norm=norm), (_pick(draw, values),), "")


def _norm(draw: st.DrawFn, values: list[Value]) -> Value:
    act = draw(st.sampled_from([None, "relu"]))
    return Value(Norm.of(norm="bn", act=act), (_pick(draw, values),), "")


def _act(draw: st.DrawFn, values: list[Value]) -> Value:
    x = _pick(draw, values)
    safe = x not in absent_values(in_order(x))
    names = [*ZERO_TO_ZERO, "sigmoid", "hardsigmoid"] if safe else ZERO_TO_ZERO
    return Value(Activation.of(act=draw(st.sampled_from(names))), (x,), "")


def _add(draw: st.DrawFn, values: list[Value]) -> Value:
    return Value(Add.of(), tuple(_alike(draw, values, 1)), "")


def _zero(draw: st.DrawFn, values: list[Value]) -> Value:
    return Value(Zero.of(shape=_pick(draw, values).shape), (), "")


def _nothing(draw: st.DrawFn, values: list[Value]) -> Value:
    path = draw(st.booleans())
    return Value(Dropout.of(p=0.0, path=path), (_pick(draw, values),), "")


def _pool(draw: st.DrawFn, values: list[Value]) -> Value:
    kind, size = draw(st.sampled_from([MaxPool, AvgPool])), draw(st.sampled_from([1, 3]))
    return Value(kind.of(kernel=size, padding=size // 2), (_pick(draw, values),), "")


def _concat(draw: st.DrawFn, values: list[Value]) -> Value | None:
    picked = [_pick(draw, values) for _ in range(draw(st.integers(1, 3)))]
    return Value(Concat.of(), tuple(picked), "") if sum(v.shape[0] for v in picked) <= 16 else None


def _multiply(draw: st.DrawFn, values: list[Value]) -> Value:
    return Value(Multiply.of(), tuple(_alike(draw, values, 2)[:2]), "")


def _shuffle(draw: st.DrawFn, values: list[Value]) -> Value:
    return Value(ChannelShuffle.of(groups=2), (_pick(draw, values),), "")


def _again(draw: st.DrawFn, values: list[Value]) -> Value | None:
    old = _pick(draw, values)
    return None if isinstance(old.op, Input) else Value(old.op, old.inputs, "")


def _tied(draw: st.DrawFn, values: list[Value]) -> Value | None:
    having = [value for value in values if value.facts.params]
    if not having:
        return None
    old = draw(st.sampled_from(having))
    absent = absent_values(in_order(old))
    same = [v for v in values if v.shape == old.inputs[0].shape]
    x = draw(st.sampled_from(same))
    if old in absent or x in absent_values(in_order(x)):
        return None  # an absent value keeps initial weights, a present one does not
    made = Value(old.op, (x,), "")
    share_parameters(made, old)
    return made


def rewritten(output: Value, rng: random.Random) -> Value:
    """Write the same network down differently: order of sums, names, dead branches."""
    new: dict[Value, Value] = {}
    groups: dict[object, object] = {}
    for value in in_order(output):
        inputs = [new[item] for item in value.inputs]
        if value.op.commutative:
            rng.shuffle(inputs)
        group = None if value.group is None else groups.setdefault(value.group, object())
        made = Value(value.op, tuple(inputs), f"r{rng.random()}", group=group)
        new[value] = made
        if rng.random() < 0.3:  # read by nobody
            Value(Activation.of(act="relu"), (made,), "dead")
    return new[output]


def coverage_of(output: Value) -> Iterator[str]:
    """Name the kinds in a graph, for statistics of what a strategy reaches."""
    for value in in_order(output):
        yield value.op.kind
