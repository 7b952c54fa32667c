"""What is understood: the translators by layer, by function and by method."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from search_spaces.ops import ChannelShuffle, Dropout, Zero
from search_spaces.ops.layers import (
    Attention,
    CausalAttention,
    ClassToken,
    Positions,
    Rotary,
    StochasticDepth,
)
from search_spaces.trace import functions, layers, sequences, tensors
from search_spaces.trace.reader import Tables, Translator

_HARMLESS = {
    *("__init__", "__repr__", "extra_repr", "reset_parameters"),
    *("__module__", "__doc__", "__qualname__", "__annotations__", "__annotate__"),
    *("__constants__", "__static_attributes__", "__firstlineno__"),
}
"""What a subclass of a layer may define and still be that layer."""

_MODULES: dict[type[nn.Module] | str, Translator] = {
    nn.Conv2d: layers.conv,
    nn.Linear: sequences.linear_layer,
    nn.Embedding: sequences.embedding,
    nn.MultiheadAttention: sequences.multihead_attention,
    nn.BatchNorm2d: layers.batch_norm,
    nn.LayerNorm: layers.layer_norm,
    nn.ReLU: functions.activation_layer("relu"),
    nn.ReLU6: functions.activation_layer("relu6"),
    nn.Hardswish: functions.activation_layer("hardswish"),
    nn.Hardsigmoid: functions.activation_layer("hardsigmoid"),
    nn.SiLU: functions.activation_layer("silu"),
    nn.Sigmoid: functions.activation_layer("sigmoid"),
    nn.Tanh: functions.activation_layer("tanh"),
    nn.GELU: lambda reader, module, x: functions.gelu(reader, x, module.approximate),
    nn.RMSNorm: sequences.rms_norm,
    nn.MaxPool2d: lambda reader, m, x: functions.max_pool(
        reader, x, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices
    ),
    nn.AvgPool2d: lambda reader, m, x: functions.avg_pool(
        reader,
        x,
        m.kernel_size,
        m.stride,
        m.padding,
        m.ceil_mode,
        m.count_include_pad,
        m.divisor_override,
    ),
    nn.AdaptiveAvgPool2d: lambda reader, m, x: functions.adaptive_pool(reader, x, m.output_size),
    nn.Dropout: lambda reader, module, x: reader.make(Dropout, x, p=module.p),
    nn.Identity: lambda reader, _, x: reader.tensor(x),
    nn.Flatten: lambda reader, module, x: sequences.flatten(
        reader, x, module.start_dim, module.end_dim
    ),
    nn.ChannelShuffle: lambda reader, module, x: reader.make(
        ChannelShuffle, x, groups=module.groups
    ),
    Attention: layers.attention,
    CausalAttention: layers.attention,
    Positions: sequences.positions,
    Rotary: sequences.rotary,
    ClassToken: sequences.class_token,
    StochasticDepth: layers.stochastic_depth,
    "torchvision.ops.stochastic_depth.StochasticDepth": layers.stochastic_depth,
    "kernels.sliding_channel.module.SlidingChannelConv2d": layers.sliding_channel,
    "kernels.sliding_channel.plain.SlidingChannelConv2d": layers.sliding_channel,
}
"""By class, or by the name of one that is not imported here."""

_ACTS = ("relu", "relu6", "hardswish", "hardsigmoid", "silu", "sigmoid", "tanh")
_ACT_FUNCTIONS: dict[Any, Translator] = {
    getattr(home, name + end): functions.activation(name)
    for home in (F, torch)
    for name in _ACTS
    for end in ("", "_")
    if hasattr(home, name + end)
}

_FUNCTIONS: dict[Any, Translator] = {
    **_ACT_FUNCTIONS,
    F.gelu: functions.gelu,
    F.dropout: functions.dropout,
    F.max_pool2d: functions.max_pool,
    F.avg_pool2d: functions.avg_pool,
    F.adaptive_avg_pool2d: functions.adaptive_pool,
    F.channel_shuffle: lambda reader, x, groups: reader.make(ChannelShuffle, x, groups=groups),
    torch.max_pool2d: functions.max_pool,
    F.linear: sequences.linear,
    F.embedding: sequences.lookup,
    torch.mean: sequences.mean,
    torch.flatten: sequences.flatten,
    torch.reshape: sequences.view,
    torch.split: sequences.split,
    torch.chunk: sequences.chunk,
    torch.permute: sequences.permute,
    torch.add: sequences.add,
    torch.mul: tensors.multiply,
    torch.multiply: tensors.multiply,
    torch.cat: sequences.cat,
    torch.concat: sequences.cat,
    torch.concatenate: sequences.cat,
    torch.clone: tensors.clone,
    torch.zeros_like: lambda reader, x: reader.make(Zero, shape=reader.tensor(x).shape),
    operator.add: sequences.add,
    operator.iadd: sequences.add,
    operator.mul: tensors.multiply,
    operator.imul: tensors.multiply,
    operator.sub: tensors.arithmetic(operator.sub),
    operator.floordiv: tensors.arithmetic(operator.floordiv),
    operator.getitem: sequences.item,
    getattr: tensors.attribute,
}

_METHODS: dict[Any, Translator] = {
    **{
        f"{name}{end}": functions.activation(name)
        for name in ("relu", "sigmoid", "tanh")
        for end in ("", "_")
    },
    "mean": sequences.mean,
    "flatten": sequences.flatten,
    "unflatten": sequences.unflatten,
    "view": sequences.view,
    "reshape": sequences.view,
    "permute": sequences.permute,
    "split": sequences.split,
    "chunk": sequences.chunk,
    "to": sequences.same,
    "float": sequences.same,
    "add": sequences.add,
    "add_": sequences.add,
    "mul": tensors.multiply,
    "mul_": tensors.multiply,
    "contiguous": tensors.same,
    "clone": tensors.clone,
    "new_zeros": tensors.zeros,
    "size": tensors.size,
    "dim": tensors.ndim,
}


def _translator_of(module: nn.Module) -> Translator | None:
    """Return the translator of a layer, also of a subclass that computes the same."""
    for cls in type(module).__mro__:
        found = _MODULES.get(cls) or _MODULES.get(f"{cls.__module__}.{cls.__qualname__}")
        if found is not None:
            return found
        if not vars(cls).keys() <= _HARMLESS:
            break
    return sequences.by_name(module)


TABLES = Tables(
    translator_of=_translator_of,
    modules=_MODULES,
    functions=_FUNCTIONS,
    methods=_METHODS,
    copies=(tensors.clone, sequences.add, sequences.mean),
)
