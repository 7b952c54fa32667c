"""The variant ``dual_module(bits=4)``: rows are computed where an estimate says they matter.

It executes one fully connected layer and its activation, or two with ReLU between them. The plain
form is the big module alone. The packed form computes everything, as the dense layers do, until
``kernels.dual_module.calibrate`` fits it to data and sets its thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kernels.errors import NasError
from search_spaces.ops import Op, Shape
from search_spaces.ops.base import Part, expression
from search_spaces.ops.linear import Linear
from search_spaces.source import Home, register_layer
from search_spaces.variants import VARIANTS, Form, Place

if TYPE_CHECKING:
    from torch import Tensor

    from kernels.dual_module.linear import DualModuleLinear
    from kernels.dual_module.regions import Activation

KIND = "dual_module"
"""Of the variant."""

_MODULE = "kernels.dual_module.module"
_ACTIVATIONS = ("relu", "sigmoid", "tanh")


@dataclass(frozen=True)
class DualLayers(Op):
    """One layer with its activation, or two with ReLU between them.

    Attributes:
        layers: what it executes.
        bits: of a little weight.
    """

    kind: ClassVar[str] = KIND

    layers: tuple[Linear, ...]
    bits: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", KIND)
        object.__setattr__(self, "_facts", {})

    def infer(self, inputs: tuple[Shape, ...]) -> Shape:
        """See :class:`search_spaces.ops.base.Op`."""
        return (*inputs[0][:-1], self.layers[-1].out_features)

    def is_causal(self) -> bool:
        """See :class:`search_spaces.ops.base.Op`."""
        return True

    def parts(self, inputs: tuple[Shape, ...]) -> tuple[Part, ...]:
        """See :class:`search_spaces.ops.base.Op`."""
        sizes = [inputs[0][-1], *(layer.out_features for layer in self.layers)]
        biases = tuple(not layer.no_bias for layer in self.layers)
        bits = {"bits": (self.bits, None)}
        if len(self.layers) == 1:
            act = f'"{self.layers[0].act}"'
            source = expression("DualLinear", *sizes, act, bias=(biases[0], True), **bits)
            return (Part("dual", source, uses=("DualLinear",)),)
        source = expression("DualFeedForward", *sizes, bias=(biases, (True, True)), **bits)
        return (Part("dual", source, uses=("DualFeedForward",)),)


@dataclass(frozen=True)
class PlainLayers(DualLayers):
    """The same in torch's layers."""

    def parts(self, inputs: tuple[Shape, ...]) -> tuple[Part, ...]:
        """See :class:`search_spaces.ops.base.Op`."""
        found: list[Part] = []
        shape = inputs[0]
        for number, layer in enumerate(self.layers):
            found += [
                Part(f"{part.role}{number}", part.source, uses=part.uses)
                for part in layer.parts((shape,))
            ]
            shape = layer.infer((shape,))
        return tuple(found)


class DualModule:
    """The system."""

    tolerance = 1e-6  # uncalibrated, both forms compute the same

    def operator(self, place: Place, form: Form) -> Op:
        """See :class:`search_spaces.variants.VariantSystem`."""
        layers, bits = _layers(place), _bits(place)
        return DualLayers(layers, bits) if form == "packed" else PlainLayers(layers, bits)

    def weights(
        self, place: Place, form: Form, trained: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """See :class:`search_spaces.variants.VariantSystem`."""
        layers = _layers(place)
        if form == "plain":
            parts = (key.split(".", 2) for key in trained)
            return {f"{role}{i}.{name}": trained[f"{i}.{role}.{name}"] for i, role, name in parts}
        import torch

        from kernels.dual_module.module import DualFeedForward, DualLinear, fit_blindly

        dual: torch.nn.Module

        inputs, outputs = place.inputs[0][-1], [layer.out_features for layer in layers]
        biases = [not layer.no_bias for layer in layers]
        first: DualModuleLinear
        if len(layers) == 1:
            act: Activation = layers[0].act  # type: ignore[assignment]  # _layers has looked
            dual = first = DualLinear(inputs, outputs[0], act, bias=biases[0], bits=_bits(place))
            big = [(first.weight, first.bias)]
        else:
            both = DualFeedForward(inputs, *outputs, bias=(biases[0], biases[1]), bits=_bits(place))
            dual, first = both, both.first
            big = [(first.weight, first.bias), (both.second.weight, both.second.bias)]
        with torch.no_grad():
            for i, (weight, bias) in enumerate(big):
                weight.copy_(trained[f"{i}.linear.weight"])
                if bias is not None:
                    bias.copy_(trained[f"{i}.linear.bias"])
        fit_blindly(first)
        return {f"dual.{name}": tensor for name, tensor in dual.state_dict().items()}


def _bits(place: Place) -> int:
    """Return the bits of a little weight that the variant says.

    Raises:
        NasError: it says something else too, or they are out of range.
    """
    given = dict(place.variant.params)
    text = given.pop("bits", "4")
    if given or not text.isdecimal() or not 2 <= int(text) <= 8:
        raise NasError(f"Expected {KIND}(bits=<2 to 8>), got {place.variant}.")
    return int(text)


def _layers(place: Place) -> tuple[Linear, ...]:
    """Return the layers of a region.

    Raises:
        NasError: they are not what a little module helps.
    """
    ops = [node.op for node in place.nodes]
    layers = tuple(op for op in ops if isinstance(op, Linear))
    one = len(ops) == len(layers) == 1 and layers[0].act in _ACTIVATIONS
    two = len(ops) == len(layers) == 2 and [op.act for op in layers] == ["relu", None]
    if not (one or two):
        raise NasError(
            f"{place.variant} takes one linear layer with {', '.join(_ACTIVATIONS)}, or two with "
            f"relu between them, not {', '.join(map(str, ops))}."
        )
    return layers


for _name in ("DualLinear", "DualFeedForward"):
    register_layer(_name, Home(_MODULE, _MODULE))
VARIANTS.add(KIND, DualModule())
