"""A variant system as small as one can be: weights of linear layers rounded to eight bits.

Packed, a layer holds whole numbers and runs as an operator of its own, on inputs rounded to
bfloat16; plain, it is torch's, with the weights that the whole numbers stand for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from kernels.errors import NasError
from search_spaces.ops import Shape
from search_spaces.ops.activation import activation_part
from search_spaces.ops.base import Op, Part
from search_spaces.ops.linear import Linear
from search_spaces.source import Home, register_layer
from search_spaces.variants import VARIANTS, Form, Place


@torch.library.custom_op("paretonas_tests::rounded_linear", mutates_args=())
def rounded_linear(x: Tensor, whole: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Map x (..., features) to (..., out)."""
    return x.bfloat16().float() @ whole.float().T * scale + bias


@rounded_linear.register_fake
def _(x: Tensor, whole: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], whole.shape[0])


class RoundedLinear(nn.Module):
    """A linear layer of whole numbers."""

    def __init__(self, features: int, out: int) -> None:
        super().__init__()
        self.register_buffer("whole", torch.zeros(out, features, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(out))
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., features) to (..., out)."""
        y: Tensor = rounded_linear(x, self.whole, self.scale, self.bias)
        return y


@dataclass(frozen=True)
class RoundedChain(Op):
    """One or more linear layers, one after the other."""

    kind: ClassVar[str] = "rounded"

    layers: tuple[Linear, ...]
    shapes: tuple[Shape, ...]
    form: Form

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", "rounded")
        object.__setattr__(self, "_facts", {})

    def infer(self, inputs: tuple[Shape, ...]) -> Shape:
        return self.shapes[-1]

    def parts(self, inputs: tuple[Shape, ...]) -> tuple[Part, ...]:
        found: list[Part] = []
        for number, (layer, before) in enumerate(
            zip(self.layers, (inputs[0], *self.shapes), strict=False)
        ):
            sizes = f"{before[-1]}, {layer.out_features}"
            if self.form == "packed":
                made = Part(f"l{number}", f"RoundedLinear({sizes})", uses=("RoundedLinear",))
            else:
                made = Part(f"l{number}", f"nn.Linear({sizes})")
            found.append(made)
            if layer.act:
                found.append(activation_part(layer.act, inplace=True))
        return tuple(found)


class Rounding:
    """The system."""

    tolerance = 0.02  # bfloat16 has steps of 0.004

    def operator(self, place: Place, form: Form) -> Op:
        for node in place.nodes:
            if not isinstance(node.op, Linear) or node.op.no_bias:
                raise NasError(f"{place.variant} takes linear layers with a bias, not {node.op}.")
        layers = tuple(node.op for node in place.nodes if isinstance(node.op, Linear))
        return RoundedChain(layers, tuple(node.shape for node in place.nodes), form)

    def weights(
        self, place: Place, form: Form, trained: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        found = {}
        for number in range(len(place.nodes)):
            weight = trained[f"{number}.linear.weight"]
            scale = weight.abs().amax(1) / 127
            whole = (weight / scale[:, None]).round()
            if form == "packed":
                found[f"l{number}.whole"], found[f"l{number}.scale"] = whole.to(torch.int8), scale
            else:
                found[f"l{number}.weight"] = whole * scale[:, None]
            found[f"l{number}.bias"] = trained[f"{number}.linear.bias"]
        return found


def enrol() -> None:
    """Make the variant ``rounded`` known."""
    if "rounded" not in VARIANTS:
        register_layer("RoundedLinear", Home("tests.rounding", "tests.rounding"))
        VARIANTS.add("rounded", Rounding())
