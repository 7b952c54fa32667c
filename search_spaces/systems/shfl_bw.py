"""The variant ``shfl_bw(V=64,density=0.25)``: a layer with most of its weights pruned by groups.

It executes one fully connected layer or one convolution. A trained weight that already has the
pattern at that density, as :class:`kernels.shfl_bw.training.SparseTraining` leaves it, is packed as
it is; any other is pruned by magnitude.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from typing import TYPE_CHECKING, ClassVar

from kernels.errors import NasError
from search_spaces.architecture.node import Variant
from search_spaces.ops import Op, Shape
from search_spaces.ops.activation import activation_part
from search_spaces.ops.base import Part, expression, short
from search_spaces.ops.conv import Conv, tail_parts
from search_spaces.ops.linear import Linear
from search_spaces.source import Home, register_layer
from search_spaces.variants import VARIANTS, Form, Place

if TYPE_CHECKING:
    from torch import Tensor

    from kernels.shfl_bw.pattern import Pattern

KIND = "shfl_bw"
"""Of the variant."""

_FUSED = ("relu", "relu6", "silu", "hardswish", "gelu")  # of what the packed layers apply
_MODULE = "kernels.shfl_bw.module"
_OFFERED = ("V=32,density=0.5", "V=32,density=0.25", "V=64,density=0.5", "V=64,density=0.25")
_LEAST = 128
"""Rows and columns of a weight below which pruning it by groups is not offered."""
_PATTERNS = 256
"""Of so many weights the pattern is kept in a process."""
_known: dict[bytes, Pattern] = {}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the variant's text says.

    Attributes:
        v: rows of a vector.
        density: share of the vectors that is kept.
    """

    v: int
    density: float

    @classmethod
    def of(cls, variant: Variant) -> Settings:
        """Read them.

        Raises:
            NasError: one is missing, unknown or out of range.
        """
        given = dict(variant.params)
        try:
            if given.keys() != {"V", "density"}:
                raise ValueError
            found = cls(int(given["V"]), float(given["density"]))
        except ValueError:
            found = cls(0, 0.0)
        if found.v < 1 or not 0.0 < found.density <= 1.0:
            raise NasError(
                f"Expected {KIND}(V=<rows of a vector>,density=<share kept, above 0 and up to 1>), "
                f"got {variant}."
            )
        return found


@dataclass(frozen=True)
class PackedLayer(Op):
    """A layer whose weight is packed; norm and activation as the layer has them.

    Attributes:
        layer: what it executes.
        settings: how.
    """

    kind: ClassVar[str] = KIND

    layer: Linear | Conv
    settings: Settings

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
        if isinstance(self.layer, Linear):
            return self._linear(self.layer, inputs[0][-1])
        return self._convolution(self.layer, inputs[0][0])

    def _linear(self, layer: Linear, features: int) -> tuple[Part, ...]:
        source = expression(
            "ShflBWLinear",
            features,
            layer.out_features,
            **self._options(not layer.no_bias, layer.act),
        )
        part = Part("linear", source, uses=("ShflBWLinear",))
        apart = layer.act is not None and layer.act not in _FUSED
        return (part, activation_part(str(layer.act), inplace=True)) if apart else (part,)

    def _convolution(self, layer: Conv, channels: int) -> tuple[Part, ...]:
        fused = layer.act in _FUSED and layer.norm is None
        source = expression(
            "ShflBWConv2d",
            channels,
            layer.out_channels,
            short(layer.kernel),
            stride=(short(layer.stride), 1),
            padding=(short(layer.padding), 0),
            dilation=(short(layer.dilation), 1),
            **self._options(layer.bias, layer.act if fused else None),
        )
        part = Part("conv", source, uses=("ShflBWConv2d",))
        return (part,) if fused else (part, *tail_parts(layer, layer.out_channels))

    def _options(self, bias: bool, act: str | None) -> dict[str, tuple[object, object]]:
        return {
            "v": (self.settings.v, None),
            "density": (self.settings.density, None),
            "bias": (bias, True),
            "activation": (f'"{act}"' if act in _FUSED else None, None),
        }


class ShflBW:
    """The system."""

    tolerance = 1e-4  # of float32 sums in another order

    def offers(self, op: Op, inputs: tuple[Shape, ...]) -> Sequence[str]:
        """See :class:`search_spaces.offers.Offering`."""
        if isinstance(op, Linear):
            rows, columns = op.out_features, inputs[0][-1]
        elif isinstance(op, Conv) and op.groups == 1:
            rows, columns = op.out_channels, prod(op.kernel) * inputs[0][0]
        else:
            return ()
        wide = min(rows, columns) >= _LEAST
        return [f"{KIND}({settings})" for settings in _OFFERED] if wide else ()

    def operator(self, place: Place, form: Form) -> Op:
        """See :class:`search_spaces.variants.VariantSystem`."""
        layer, settings = _layer(place), Settings.of(place.variant)
        return layer if form == "plain" else PackedLayer(layer, settings)

    def weights(
        self, place: Place, form: Form, trained: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """See :class:`search_spaces.variants.VariantSystem`."""
        import torch

        from kernels.shfl_bw.packed import FORMAT_VERSION, pack
        from kernels.shfl_bw.pattern import like_weight

        settings = Settings.of(place.variant)
        role = "linear" if isinstance(_layer(place), Linear) else "conv"
        found = {name.removeprefix("0."): tensor for name, tensor in trained.items()}
        weight = found.pop(f"{role}.weight")
        pattern = _pattern_of(weight, settings)
        if form == "plain":
            mask = like_weight(pattern.mask, weight.shape)
            return {**found, f"{role}.weight": torch.where(mask, weight, 0)}
        packed = pack(weight, pattern)
        names = ("values", "columns", "offsets", "rows")
        for name, tensor in zip(names, packed.tensors(), strict=True):
            found[f"{role}.{name}"] = tensor
        found[f"{role}.format_version"] = torch.tensor(FORMAT_VERSION)
        return found


def _pattern_of(weight: Tensor, settings: Settings) -> Pattern:
    """Return the pattern of a weight; variants of a trained model prune the same ones again."""
    from kernels.shfl_bw.prune import pattern_for

    content = weight.detach().contiguous().cpu().numpy()
    key = sha256(f"{settings}{weight.shape}".encode() + content.tobytes()).digest()
    found = _known.pop(key, None) or pattern_for(weight, settings.v, settings.density)
    _known[key] = found
    if len(_known) > _PATTERNS:
        del _known[next(iter(_known))]
    return found


def _layer(place: Place) -> Linear | Conv:
    """Return the layer of a region.

    Raises:
        NasError: the region is not one layer that can be pruned.
    """
    op = place.nodes[0].op
    if len(place.nodes) > 1 or not isinstance(op, Linear | Conv):
        names = ", ".join(str(node.op) for node in place.nodes)
        raise NasError(f"{place.variant} takes one linear layer or convolution, not {names}.")
    if isinstance(op, Conv) and op.groups != 1:
        raise NasError(f"{place.variant} takes convolutions of one group, not {op}.")
    return op


for _name in ("ShflBWLinear", "ShflBWConv2d"):
    register_layer(_name, Home(_MODULE, _MODULE))
VARIANTS.add(KIND, ShflBW())
