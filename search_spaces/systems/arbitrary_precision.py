"""The variants ``w1a1`` to ``w8a8``: a layer of p bits of weights times q bits of activations.

Each executes one fully connected layer or one convolution. What inputs are rounded to is learned,
so a network is prepared before it is packed (:func:`search_spaces.pack.prepare`): calibrated, and
trained further if that is wanted. The plain form rounds as the packed one does, and counts the same
whole numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING, ClassVar

from kernels.arbitrary_precision.precision import Precision
from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.ops import Op, Shape
from search_spaces.ops.base import Part, expression, short
from search_spaces.ops.conv import Conv
from search_spaces.ops.linear import Linear
from search_spaces.source import Home, register_layer, weight_prefixes
from search_spaces.variants import VARIANTS, Form, Place, system_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kernels.arbitrary_precision.module import APConv2d, APLinear

_PACKAGE = "kernels.arbitrary_precision"
_OFFERED = ("w8a8", "w4a4", "w2a2", "w1a2")
_LEAST = 64
"""Rows and columns of a weight below which few bits are not offered."""


@dataclass(frozen=True)
class LowBitLayer(Op):
    """A layer of few bits; norm and activation as the layer has them.

    Attributes:
        layer: what it executes.
        precision: how.
        form: on which layers.
    """

    kind: ClassVar[str] = "low_bit"

    layer: Linear | Conv
    precision: Precision
    form: Form

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", self.kind)
        object.__setattr__(self, "_facts", {})

    def infer(self, inputs: tuple[Shape, ...]) -> Shape:
        """See :class:`search_spaces.ops.base.Op`."""
        return self.layer.infer(inputs)

    def is_causal(self) -> bool:
        """See :class:`search_spaces.ops.base.Op`."""
        return self.layer.is_causal()

    def parts(self, inputs: tuple[Shape, ...]) -> tuple[Part, ...]:
        """See :class:`search_spaces.ops.base.Op`."""
        first, *rest = self.layer.parts(inputs)
        if self.form == "packed":
            return (self._packed(inputs[0], first.role), *rest)
        axis = -1 if isinstance(self.layer, Linear) else -3
        worth = expression("Worth", self.layer.infer(inputs)[axis], axis)
        return (
            Part("input", "RoundedInput()", uses=("RoundedInput",)),
            self._plain(inputs[0], first.role),
            Part("worth", worth, uses=("Worth",)),
            *rest,
        )

    def _packed(self, shape: Shape, role: str) -> Part:
        layer, p = self.layer, self.precision
        bits = f"Precision({p.weight_bits}, {p.activation_bits})"
        if isinstance(layer, Linear):
            options = {"bias": (not layer.no_bias, True)}
            source = expression("APLinear", shape[-1], layer.out_features, bits, **options)
            return Part(role, source, uses=("APLinear", "Precision"))
        source = expression(
            "APConv2d",
            shape[0],
            layer.out_channels,
            layer.kernel,
            bits,
            stride=(layer.stride, (1, 1)),
            padding=(layer.padding, (0, 0)),
            dilation=(layer.dilation, (1, 1)),
            bias=(layer.bias, True),
        )
        return Part(role, source, uses=("APConv2d", "Precision"))

    def _plain(self, shape: Shape, role: str) -> Part:
        layer = self.layer
        wide = {"wide": (self._wide(shape), False)}
        if isinstance(layer, Linear):
            source = expression("WholeLinear", shape[-1], layer.out_features, **wide)
            return Part(role, source, uses=("WholeLinear",))
        source = expression(
            "WholeConv2d",
            shape[0],
            layer.out_channels,
            short(layer.kernel),
            stride=(short(layer.stride), 1),
            padding=(short(layer.padding), 0),
            dilation=(short(layer.dilation), 1),
            **wide,
        )
        return Part(role, source, uses=("WholeConv2d",))

    def _wide(self, shape: Shape) -> bool:
        """Tell whether sums may exceed what float32 counts exactly, whatever the zero point."""
        taps = 1 if isinstance(self.layer, Linear) else self.layer.kernel[0] * self.layer.kernel[1]
        length = shape[-1] if isinstance(self.layer, Linear) else shape[0]
        p, q = self.precision.weight_bits, self.precision.activation_bits
        return length * taps * max(1, 1 << (p - 1)) * ((1 << q) - 1) >= 1 << 24


class ArbitraryPrecision:
    """The system."""

    tolerance = 1e-4  # where norm and activation round; the products are equal

    def offers(self, op: Op, inputs: tuple[Shape, ...]) -> Sequence[str]:
        """See :class:`search_spaces.offers.Offering`."""
        if isinstance(op, Linear):
            sizes = op.out_features, inputs[0][-1]
        elif isinstance(op, Conv) and op.groups == 1:
            sizes = op.out_channels, prod(op.kernel) * inputs[0][0]
        else:
            return ()
        return _OFFERED if min(sizes) >= _LEAST else ()

    def operator(self, place: Place, form: Form) -> Op:
        """See :class:`search_spaces.variants.VariantSystem`."""
        return LowBitLayer(_layer(place), Precision.parse(place.variant.kind), form)

    def prepare(
        self, architecture: Architecture, module: nn.Module, batches: Iterable[Tensor]
    ) -> nn.Module:
        """See :class:`search_spaces.variants.Preparing`; what comes back can be trained further."""
        import copy

        from kernels.arbitrary_precision.convert import calibrate, to_arbitrary_precision

        prefixes = weight_prefixes(architecture)
        bits = {}
        for region in architecture.regions:
            if system_of(region) is self:
                layer = architecture.nodes[region.nodes[0]].op
                role = "linear" if isinstance(layer, Linear) else "conv"
                name = prefixes[region.nodes[0]][role].removesuffix(".")
                bits[name] = region.variant.kind
        made = to_arbitrary_precision(copy.deepcopy(module), bits)
        calibrate(made, batches)
        return made

    def weights(
        self, place: Place, form: Form, trained: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """See :class:`search_spaces.variants.VariantSystem`.

        Raises:
            NasError: the layer has no steps, which :meth:`prepare` gives it.
        """
        role = "linear" if isinstance(_layer(place), Linear) else "conv"
        found = {name.removeprefix("0."): tensor for name, tensor in trained.items()}
        own = {k: found.pop(k) for k in [*found] if k.startswith(f"{role}.")}
        layer = _packed(place, {k.removeprefix(f"{role}."): x for k, x in own.items()})
        if form == "packed":
            return {**found, **{f"{role}.{k}": x for k, x in layer.state_dict().items()}}
        return {**found, **_plain(layer, role)}


def _packed(place: Place, weights: Mapping[str, Tensor]) -> APLinear | APConv2d:
    """Return the layer on codes of a trained one's tensors."""
    from kernels.arbitrary_precision.training import QuantConv2d, QuantLinear

    layer, precision = _layer(place), Precision.parse(place.variant.kind)
    if "activation_step" not in weights:
        raise NasError(
            f"{place.variant} has no steps to round inputs to; give the trained network to "
            "search_spaces.pack.prepare first."
        )
    made: QuantLinear | QuantConv2d
    if isinstance(layer, Linear):
        features = place.inputs[0][-1]
        made = QuantLinear(features, layer.out_features, precision, bias=not layer.no_bias)
    else:
        made = QuantConv2d(
            place.inputs[0][0],
            layer.out_channels,
            layer.kernel,
            precision,
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            bias=layer.bias,
        )
    made.load_state_dict({**weights})
    return made.pack()


def _plain(layer: APLinear | APConv2d, role: str) -> dict[str, Tensor]:
    """Return what layers of torch need to compute the same."""
    import torch

    integers = layer.integers().float()
    spatial = () if role == "linear" else (1, 1)
    shape = (-1, *spatial)
    kernel = getattr(layer, "kernel_size", ())
    limits = (layer.inputs.lowest, layer.inputs.highest)
    return {
        "input.step": layer.step,
        "input.lowest": torch.tensor(float(limits[0])),
        "input.highest": torch.tensor(float(limits[1])),
        f"{role}.weight": integers.view(layer.outputs, layer.features, *kernel),
        "worth.factor": layer.factor.view(shape),
        "worth.bias": layer.offset.view(shape),
    }


def _layer(place: Place) -> Linear | Conv:
    """Return the layer of a region.

    Raises:
        NasError: the variant has settings, or the region is not one layer that can have few bits.
    """
    op = place.nodes[0].op
    if place.variant.params:
        raise NasError(f"{place.variant.kind} has no settings, got {place.variant}.")
    if len(place.nodes) > 1 or not isinstance(op, Linear | Conv):
        names = ", ".join(str(node.op) for node in place.nodes)
        raise NasError(f"{place.variant} takes one linear layer or convolution, not {names}.")
    if isinstance(op, Conv) and op.groups != 1:
        raise NasError(f"{place.variant} takes convolutions of one group, not {op}.")
    return op


for _name in ("APLinear", "APConv2d"):
    register_layer(_name, Home(f"{_PACKAGE}.module", f"{_PACKAGE}.module"))
register_layer("Precision", Home(f"{_PACKAGE}.precision", f"{_PACKAGE}.precision"))
for _name in ("RoundedInput", "WholeConv2d", "WholeLinear", "Worth"):
    register_layer(_name, Home(f"{_PACKAGE}.plain", f"{_PACKAGE}.plain"))
_SYSTEM = ArbitraryPrecision()
for _p, _q in product(range(1, 9), repeat=2):
    VARIANTS.add(str(Precision(_p, _q)), _SYSTEM)
