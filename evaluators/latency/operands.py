"""How an implementation of an operator is called: kernel systems enrol what makes the operands."""

from __future__ import annotations

from collections.abc import Callable

import torch

from evaluators.latency.subject import DTYPES
from kernels.arbitrary_precision import implementations as low_bit
from kernels.arbitrary_precision.module import APConv2d, APLinear
from kernels.arbitrary_precision.operands import Geometry
from kernels.arbitrary_precision.precision import Precision
from kernels.device import Device
from kernels.dual_module.implementations import OP as DUAL
from kernels.extended_precision.implementations import OP as EXTENDED
from kernels.registry import Registry
from kernels.select import Implementation, load
from kernels.sliding_channel.implementations import OP, WHOLE_SHIFT
from kernels.sliding_channel.plan import whole_shift
from kernels.sliding_channel.windows import Order, Rule, window_starts
from kernels.workload import Workload

Run = Callable[[], torch.Tensor]
Maker = Callable[[Workload, Implementation, Device], Run]
"""Returns one call of an implementation on N(0, 1) operands of a workload."""

OPERANDS: Registry[Maker] = Registry("maker of operands")
"""By operator, as in ``Workload.op``."""


@OPERANDS.register(OP)
def sliding_channel(workload: Workload, implementation: Implementation, device: Device) -> Run:
    """Return one call of a sliding-channel implementation."""
    channels, out = workload.inputs[0][1], workload.output[1]
    attrs = {name: str(value) for name, value in workload.attrs}
    cg = int(attrs["cg"])
    rule: Rule = "shift" if attrs["rule"] == "shift" else "floor"
    order: Order = "block" if attrs["order"] == "block" else "cyclic"
    images = random_tensor(workload.inputs[0], workload, device)
    weight = random_tensor((out, channels // cg), workload, device)
    starts = torch.tensor(window_starts(channels, out, cg, attrs["co"], rule, order))
    placed = starts.to(device.torch_name)
    function: Callable[..., torch.Tensor] = load(implementation)  # type: ignore[assignment]
    if implementation.name in WHOLE_SHIFT:
        shift = whole_shift(channels, cg, attrs["co"], rule, order)
        return lambda: function(images, weight, placed, shift=shift)
    return lambda: function(images, weight, placed)


@OPERANDS.register(EXTENDED)
def extended_precision(workload: Workload, implementation: Implementation, device: Device) -> Run:
    """Return one call of an implementation of the extended-precision product."""
    a, b = (random_tensor(shape, workload, device) for shape in workload.inputs)
    function: Callable[..., torch.Tensor] = load(implementation)  # type: ignore[assignment]
    return lambda: function(a, b, None, 1.0, 1.0)


@OPERANDS.register(low_bit.LINEAR)
def low_bit_linear(workload: Workload, implementation: Implementation, device: Device) -> Run:
    """Return one call of an implementation of a low-bit linear layer, packing included."""
    shape, outputs = workload.inputs[0], workload.output[-1]
    precision = Precision.parse(workload.variant)
    layer = APLinear.of(
        _random_integers((outputs, shape[-1]), precision), torch.ones(outputs), precision
    )
    weights = layer.to(device.torch_name).weights()
    x = random_tensor(shape, workload, device)
    function: Callable[..., torch.Tensor] = load(implementation)  # type: ignore[assignment]
    return lambda: function(x, weights)


@OPERANDS.register(low_bit.CONV)
def low_bit_conv2d(workload: Workload, implementation: Implementation, device: Device) -> Run:
    """Return one call of an implementation of a low-bit convolution, packing included.

    A workload does not say how the window moves: the stride is the one of the sizes, and the
    padding the least that gives the output.
    """
    (_, channels, *image), (_, outputs, *size) = workload.inputs[0], workload.output
    attrs = {name: str(value) for name, value in workload.attrs}
    kernel = (int(attrs["kernel_height"]), int(attrs["kernel_width"]))
    strides = [max(1, round(whole / part)) for whole, part in zip(image, size, strict=True)]
    pads = [
        max(0, -(-((part - 1) * stride + taps - whole) // 2))
        for whole, part, stride, taps in zip(image, size, strides, kernel, strict=True)
    ]
    precision = Precision.parse(workload.variant)
    layer = APConv2d.of(
        _random_integers((outputs, channels, *kernel), precision), torch.ones(outputs), precision
    )
    weights = layer.to(device.torch_name).weights()
    geometry = Geometry(kernel, (strides[0], strides[1]), (pads[0], pads[1]), (1, 1))
    x = random_tensor(workload.inputs[0], workload, device)
    function: Callable[..., torch.Tensor] = load(implementation)  # type: ignore[assignment]
    return lambda: function(x, weights, geometry)


def _random_integers(shape: tuple[int, ...], precision: Precision) -> torch.Tensor:
    """Return integers that weights of a precision can be."""
    bits, generator = precision.weight_bits, torch.Generator().manual_seed(0)
    codes = torch.randint(0, 1 << bits, shape, generator=generator)
    return 2 * codes - 1 if bits == 1 else codes - (1 << (bits - 1))


@OPERANDS.register(DUAL)
def dual_module(workload: Workload, implementation: Implementation, device: Device) -> Run:
    """Return one call of a feed-forward block whose little module was fitted to such inputs."""
    from kernels.dual_module.calibrate import fit, set_ratio
    from kernels.dual_module.linear import DualModuleFFN

    inputs, outputs = workload.inputs[0][1], workload.output[1]
    attrs = dict(workload.attrs)
    hidden = int(str(attrs["hidden"]))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = (torch.nn.Linear(inputs, hidden), torch.nn.Linear(hidden, outputs))
    block = DualModuleFFN(*layers).to(device.torch_name)
    many = random_tensor((4 * inputs, inputs), workload, device).float()
    fit(block, lambda: block.first(many))
    set_ratio(block, float(str(attrs["ratio"])), lambda: block.first(many))
    x = many[:1].to(DTYPES[workload.dtype])
    make: Callable[..., Callable[[torch.Tensor], torch.Tensor]] = load(implementation)  # type: ignore[assignment]
    run = make(block, x.dtype)
    return lambda: run(x)


def random_tensor(shape: tuple[int, ...], workload: Workload, device: Device) -> torch.Tensor:
    """Return N(0, 1) of a fixed seed in a workload's element type and layout."""
    generator = torch.Generator().manual_seed(0)
    made = torch.randn(shape, generator=generator).to(device.torch_name, DTYPES[workload.dtype])
    if workload.layout == "channels_last" and made.ndim == 4:
        return made.contiguous(memory_format=torch.channels_last)
    return made
