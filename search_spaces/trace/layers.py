"""Translators of layers: they take the reader, the module and its inputs."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from typing import Any, get_args

from torch import Tensor, nn

from kernels.errors import NasError
from kernels.sliding_channel.windows import Order, Rule, window_starts
from search_spaces.architecture.graph import Value
from search_spaces.ops import Attention, Conv, Dropout, Norm, SlidingChannel
from search_spaces.ops import layers as modules
from search_spaces.trace.reader import Reader


def conv(reader: Reader, module: nn.Conv2d, x: Value) -> Value:
    """Translate a 2-d convolution; padding 'same' becomes the number of pixels."""
    reader.tensor(x, channels=module.in_channels)
    padding = module.padding
    if module.padding_mode != "zeros":
        raise reader.error(f"padding_mode {module.padding_mode!r} is not supported; use 'zeros'")
    if isinstance(padding, str):
        total = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        total = [0, 0] if padding == "valid" else total
        if any(item % 2 for item in total):
            raise reader.error("padding 'same' of an even kernel pads unevenly; not supported")
        padding = (total[0] // 2, total[1] // 2)
    return reader.make(
        Conv,
        x,
        tensors=_held(module, "conv", "weight", "bias"),
        out_channels=module.out_channels,
        kernel=module.kernel_size,
        stride=module.stride,
        padding=padding,
        dilation=module.dilation,
        groups=module.groups,
        bias=module.bias is not None,
    )


def batch_norm(reader: Reader, module: nn.BatchNorm2d, x: Value) -> Value:
    """Translate batch norm; what lacks weights or running statistics is refused."""
    reader.tensor(x, channels=module.num_features)
    if not (module.affine and module.track_running_stats) or module.momentum is None:
        raise reader.error(
            "batch norm needs affine=True, track_running_stats=True and a momentum, got "
            f"{module.affine}, {module.track_running_stats} and {module.momentum}"
        )
    stats = ("running_mean", "running_var", "num_batches_tracked")
    held = _held(module, "norm", "weight", "bias", *stats)
    return reader.make(Norm, x, tensors=held, norm="bn", eps=module.eps, momentum=module.momentum)


def layer_norm(reader: Reader, module: nn.LayerNorm, x: Value) -> Value:
    """Translate layer norm over the last axis, with a weight and a bias."""
    held = _held(module, "norm", "weight", "bias")
    if len(module.normalized_shape) != 1 or len(held) != 2:
        raise reader.error("layer norm needs one normalised axis, a weight and a bias")
    reader.tensor(x, features=module.normalized_shape[0])
    return reader.make(Norm, x, tensors=held, norm="ln", eps=module.eps)


def sliding_channel(reader: Reader, module: Any, x: Value) -> Value:
    """Translate a sliding-channel convolution, native or plain."""
    channels = reader.tensor(x).shape[0]
    settings = {name: getattr(module, name, None) for name in ("cg", "co", "rule", "order")}
    if settings["cg"] is None:  # the plain form keeps the windows alone
        settings = _settings(reader, module, channels)
    reader.tensor(x, channels=settings["cg"] * module.weight.shape[1])
    return reader.make(
        SlidingChannel,
        x,
        tensors=_held(module, "conv", "weight", "bias"),
        out_channels=module.weight.shape[0],
        bias=module.bias is not None,
        **{**settings, "co": Fraction(str(settings["co"]))},
    )


def _settings(reader: Reader, module: Any, channels: int) -> dict[str, Any]:
    """Return the simplest settings that give the windows of a sliding-channel convolution."""
    out, width = module.weight.shape
    cg, starts = max(1, channels // width), module.starts.tolist()
    overlaps = {Fraction(n, d) for d in (width, 100) for n in range(d)}
    simplest = sorted(overlaps, key=lambda co: (co.denominator, co))
    for order, rule, co in product(get_args(Order), get_args(Rule), simplest):
        try:
            found = window_starts(channels, out, cg, co, rule, order)
        except NasError:
            continue
        if list(found) == starts:
            return {"cg": cg, "co": co, "rule": rule, "order": order}
    raise reader.error("its windows are those of no setting of cg, co, rule and order")


def attention(
    reader: Reader, module: modules.Attention | modules.CausalAttention, *inputs: Value
) -> Value:
    """Translate attention; as many key heads as heads is the default, and so left out."""
    return reader.make(
        Attention,
        *inputs[:3],  # a cache, the fourth, is None where a network is traced
        heads=module.heads,
        kv_heads=0 if module.kv_heads == module.heads else module.kv_heads,
        causal=isinstance(module, modules.CausalAttention),
        window=module.window,
    )


def stochastic_depth(reader: Reader, module: Any, x: Value) -> Value:
    """Translate dropout of whole samples; torchvision's by batch is refused."""
    if getattr(module, "mode", "row") != "row" and module.p:
        raise reader.error(f"mode {module.mode!r} is not supported; use 'row'")
    return reader.make(Dropout, x, p=module.p, path=True)


def _held(module: nn.Module, role: str, *names: str) -> dict[str, Tensor]:
    """Return the tensors of a module by role; absent ones are left out."""
    found = {f"{role}.{name}": getattr(module, name) for name in names}
    return {name: tensor for name, tensor in found.items() if tensor is not None}
