"""The variant ``fp32_emulated``: float32 products from half-precision tensor cores, at its error.

It executes one fully connected layer or one 1x1 convolution. Weights are those of the dense layer,
and the plain form is the dense layer itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kernels.errors import NasError
from search_spaces.ops import Op, Shape
from search_spaces.ops.base import Part
from search_spaces.ops.conv import Conv
from search_spaces.ops.linear import Linear
from search_spaces.source import Home, register_layer
from search_spaces.variants import VARIANTS, Form, Place

if TYPE_CHECKING:
    from torch import Tensor

KIND = "fp32_emulated"
"""Of the variant."""

_MODULE = "kernels.extended_precision.module"
_LEAST = 64
"""Rows and columns of a weight below which the variant is not offered."""
_LAYERS = {"nn.Linear": "Linear", "nn.Conv2d": "PointwiseConv2d"}


@dataclass(frozen=True)
class EmulatedLayer(Op):
    """A layer whose product runs in extended precision; norm and activation as the layer has them.

    Attributes:
        layer: what it executes.
    """

    kind: ClassVar[str] = KIND

    layer: Linear | Conv

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", KIND)
        object.__setattr__(self, "_facts", {})

    def infer(self, inputs: tuple[Shape, ...]) -> Shape:
        """See :class:`search_spaces.ops.base.Op`."""
        return self.layer.infer(inputs)

    def is_causal(self) -> bool:
        """See :class:`search_spaces.ops.base.Op`."""
        return self.layer.is_causal()

    def parts(self, inputs: tuple[Shape, ...]) -> tuple[Part, ...]:
        """See :class:`search_spaces.ops.base.Op`."""
        product, *rest = self.layer.parts(inputs)
        function, _, arguments = product.source.partition("(")
        ours = _LAYERS[function]
        return Part(product.role, f"{ours}({arguments}", uses=(ours,)), *rest


class ExtendedPrecision:
    """The system."""

    tolerance = 1e-5  # of float32 sums in another order

    def offers(self, op: Op, inputs: tuple[Shape, ...]) -> Sequence[str]:
        """See :class:`search_spaces.offers.Offering`."""
        if isinstance(op, Linear):
            sizes = op.out_features, inputs[0][-1]
        elif isinstance(op, Conv) and _is_pointwise(op):
            sizes = op.out_channels, inputs[0][0]
        else:
            return ()
        return [KIND] if min(sizes) >= _LEAST else ()

    def operator(self, place: Place, form: Form) -> Op:
        """See :class:`search_spaces.variants.VariantSystem`."""
        layer = _layer(place)
        return layer if form == "plain" else EmulatedLayer(layer)

    def weights(
        self, place: Place, form: Form, trained: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """See :class:`search_spaces.variants.VariantSystem`."""
        return {name.removeprefix("0."): tensor for name, tensor in trained.items()}


def _layer(place: Place) -> Linear | Conv:
    """Return the layer of a region.

    Raises:
        NasError: the variant has settings, or the region is not one layer that is a product.
    """
    op = place.nodes[0].op
    if place.variant.params:
        raise NasError(f"{KIND} has no settings, got {place.variant}.")
    if len(place.nodes) > 1 or not isinstance(op, Linear | Conv):
        names = ", ".join(str(node.op) for node in place.nodes)
        raise NasError(f"{KIND} takes one linear layer or 1x1 convolution, not {names}.")
    if isinstance(op, Conv) and not _is_pointwise(op):
        raise NasError(f"{KIND} takes 1x1 convolutions of one group without padding, not {op}.")
    return op


def _is_pointwise(op: Conv) -> bool:
    """Tell whether a convolution is a matrix product."""
    return (op.kernel, op.padding, op.groups) == ((1, 1), (0, 0), 1)


for _name in _LAYERS.values():
    register_layer(_name, Home(_MODULE, _MODULE))
VARIANTS.add(KIND, ExtendedPrecision())
