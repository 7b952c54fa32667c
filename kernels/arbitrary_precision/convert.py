"""An existing network with layers of a few bits: replaced, calibrated, trained, packed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from kernels.arbitrary_precision.precision import Precision
from kernels.arbitrary_precision.training import QuantConv2d, QuantLinear
from kernels.errors import NasError, UnknownNameError

_SAMPLE = 1 << 20  # inputs of a layer that its step is chosen on


def candidates(model: nn.Module) -> list[str]:
    """Return the names of layers that can be replaced, in order: linear layers and convolutions.

    Convolutions of several groups and those that pad with other than zeros cannot.
    """
    return [name for name, module in model.named_modules() if _refusal(module) is None]


def to_arbitrary_precision(
    model: nn.Module,
    bits: Mapping[str, str | Precision] | str | Precision,
    *,
    keep: Iterable[str] | None = None,
) -> nn.Module:
    """Replace layers of a model by trainable ones of a few bits, in place; returns the model.

    Their weights are the model's, rounded while they are used. Call :func:`calibrate` next, then
    train, then :func:`pack`.

    Args:
        model: changed in place.
        bits: one precision for all layers, or one a layer by name.
        keep: layers left as they are. None keeps the first and the last candidate where one
            precision is given for all, and nothing else.

    Raises:
        NasError: a layer does not exist, or cannot be replaced.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 2, 1))
        >>> to_arbitrary_precision(net, "w1a2")[1].precision
        Precision(weight_bits=1, activation_bits=2)
    """
    known = candidates(model)
    if isinstance(bits, Mapping):
        wanted = {name: _precision(item) for name, item in bits.items()}
    else:
        wanted = dict.fromkeys(known, _precision(bits))
        keep = {known[0], known[-1]} if keep is None and known else keep
    kept = set(keep or ())
    modules = dict(model.named_modules())
    for name in (*wanted, *kept):
        if name not in modules:
            raise UnknownNameError("layer", name, known)
    for name, precision in wanted.items():
        if name in kept:
            continue
        why = _refusal(modules[name])
        if why is not None:
            raise NasError(f"The layer {name!r} cannot have {precision}: {why}.")
        _replace(model, name, _quantised(modules[name], precision))
    return model


def calibrate(model: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Set the activation steps of trainable low-bit layers from the inputs they see, in place.

    Layers are set in the order in which they run, each on what the layers before it, already of a
    few bits, put out.

    Args:
        model: in evaluation mode while this runs.
        batches: inputs of the model.

    Raises:
        NasError: there is no batch, or an input is not finite.
    """
    layers = [item for item in model.modules() if isinstance(item, QuantLinear | QuantConv2d)]
    inputs = list(batches)
    if not inputs:
        raise NasError("Calibration needs at least one batch.")
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            if len(inputs) == 1:
                _in_one_pass(model, layers, inputs[0])
            else:
                _one_by_one(model, layers, inputs)
    finally:
        model.train(was_training)


def _in_one_pass(
    model: nn.Module, layers: Sequence[QuantLinear | QuantConv2d], batch: torch.Tensor
) -> None:
    """Set each layer when its input comes, before it runs."""
    left: set[nn.Module] = {*layers}

    def set_up(layer: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        if layer in left:
            assert isinstance(layer, QuantLinear | QuantConv2d)
            left.remove(layer)
            layer.calibrate(_some(given[0], _SAMPLE))

    handles = [layer.register_forward_pre_hook(set_up) for layer in layers]
    try:
        model(batch)
    finally:
        for handle in handles:
            handle.remove()


def _one_by_one(
    model: nn.Module, layers: Sequence[QuantLinear | QuantConv2d], inputs: Sequence[torch.Tensor]
) -> None:
    """Set a layer by what it sees of all batches, then the next."""
    share = max(1, _SAMPLE // len(inputs))
    for layer in layers:
        seen: list[torch.Tensor] = []

        def watch(_: nn.Module, given: tuple[torch.Tensor, ...], seen: Any = seen) -> None:
            seen.append(_some(given[0], share))

        handle = layer.register_forward_pre_hook(watch)
        try:
            for batch in inputs:
                model(batch)
        finally:
            handle.remove()
        if seen:
            layer.calibrate(torch.cat(seen))


def _some(x: torch.Tensor, most: int) -> torch.Tensor:
    """Return values of a tensor, no more than about so many, evenly from all of it."""
    flat = x.detach().flatten()
    return flat[:: -(-len(flat) // most)]


def pack(model: nn.Module) -> nn.Module:
    """Replace trainable low-bit layers by packed ones, in place; returns the model."""
    for name, module in list(model.named_modules()):
        if _is_quantised(module):
            _replace(model, name, module.pack())
    return model


def _is_quantised(module: nn.Module) -> bool:
    return isinstance(module, QuantLinear | QuantConv2d)


def _precision(bits: str | Precision) -> Precision:
    return Precision.parse(bits) if isinstance(bits, str) else bits


def _refusal(module: nn.Module) -> str | None:
    if isinstance(module, QuantLinear | QuantConv2d):
        return "it has few bits already"
    if isinstance(module, nn.Linear):
        return None
    if not isinstance(module, nn.Conv2d):
        return f"it is a {type(module).__name__}, not a linear layer or a convolution"
    if module.groups != 1:
        return f"only convolutions of one group, it has {module.groups}"
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        return "only convolutions that pad with a number of zeros"
    return None


def _quantised(layer: nn.Module, precision: Precision) -> QuantLinear | QuantConv2d:
    made: QuantLinear | QuantConv2d
    if isinstance(layer, nn.Linear):
        made = QuantLinear(
            layer.in_features, layer.out_features, precision, bias=layer.bias is not None
        )
    else:
        assert isinstance(layer, nn.Conv2d)
        made = QuantConv2d(
            layer.in_channels,
            layer.out_channels,
            (layer.kernel_size[0], layer.kernel_size[1]),
            precision,
            stride=(layer.stride[0], layer.stride[1]),
            padding=(int(layer.padding[0]), int(layer.padding[1])),
            dilation=(layer.dilation[0], layer.dilation[1]),
            bias=layer.bias is not None,
        )
    made = made.to(layer.weight.device, layer.weight.dtype)
    made.load_dense(layer.weight, layer.bias)
    return made.train(layer.training)


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)
