"""Layers whose weights and activations are rounded to a few bits while they are trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from kernels.arbitrary_precision.encodings import Encoding
from kernels.arbitrary_precision.module import APConv2d, APLinear
from kernels.arbitrary_precision.precision import Precision
from kernels.arbitrary_precision.quantise import (
    activation_step,
    fake_binary,
    fake_quantise,
    integers,
    weight_steps,
)
from kernels.errors import NasError

_LEAST_STEP = 1e-8


class _Quantised(nn.Module):
    """What trainable low-bit layers share; mixed in before ``nn.Linear`` or ``nn.Conv2d``.

    Beside weight and bias a state dict holds ``activation_step`` (), ``weight_step`` (rows, 1, ...)
    from two bits on, and ``zero_point`` ().
    """

    weight: torch.Tensor
    bias: Any
    weight_step: torch.Tensor | None
    zero_point: torch.Tensor
    precision: Precision
    zero: int

    def _prepare(self, precision: Precision, zero: int) -> None:
        precision.activations(zero)  # refuses a zero point out of range
        self.precision, self.zero = precision, zero
        self.register_buffer("zero_point", torch.tensor(zero))
        shape = (len(self.weight), *[1] * (self.weight.dim() - 1))
        self.activation_step = nn.Parameter(torch.ones(()))
        if precision.weight_bits == 1:
            self.register_parameter("weight_step", None)
        else:
            steps = weight_steps(self.weight, precision.weights)
            self.weight_step = nn.Parameter(steps.view(shape))

    @torch.no_grad()
    def load_dense(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        """Take the weights of an ordinary layer, and the steps that suit them."""
        self.weight.copy_(weight)
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)
        if self.weight_step is not None:
            steps = weight_steps(self.weight, self.precision.weights)
            self.weight_step.copy_(steps.view_as(self.weight_step))

    def quantised_weight(self) -> torch.Tensor:
        """Return the weights as their codes have them, differentiable."""
        if self.weight_step is None:
            return fake_binary(self.weight)
        step = self.weight_step.clamp_min(_LEAST_STEP)
        return fake_quantise(self.weight, step, self.precision.weights)

    def quantised_input(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input as its codes have it, differentiable."""
        step = self.activation_step.clamp_min(_LEAST_STEP)
        return fake_quantise(x, step, self.precision.activations(self.zero))

    @torch.no_grad()
    def calibrate(self, x: torch.Tensor) -> None:
        """Set zero point and step from inputs of this layer.

        Inputs that are never negative keep the zero point 0. Others get the one that splits the
        range as the inputs do.
        """
        if not torch.isfinite(x).all():
            raise NasError("Cannot calibrate a layer on inputs that are not finite.")
        low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
        levels = (1 << self.precision.activation_bits) - 1
        self._take_zero(round(-low / (high - low) * levels) if low < 0 else 0)
        step = activation_step(x, self.precision.activations(self.zero))
        self.activation_step.copy_(step)

    def _take_zero(self, zero: int) -> None:
        """Keep a zero point as a number too: reading the buffer would wait for a GPU."""
        self.precision.activations(zero)
        self.zero = zero
        self.zero_point.fill_(zero)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._take_zero(int(self.zero_point))

    @torch.no_grad()
    def _integers(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the weights' integers, and what one of them is worth in each row."""
        encoding: Encoding = self.precision.weights
        if self.weight_step is None:
            scale = weight_steps(self.weight, encoding)
        else:
            scale = self.weight_step.clamp_min(_LEAST_STEP).flatten()
        shape = (-1, *[1] * (self.weight.dim() - 1))
        return integers(self.weight, scale.view(shape), encoding).to(torch.int8), scale

    def _settings(self) -> str:
        return f", {self.precision}, zero={self.zero}"


class QuantLinear(_Quantised, nn.Linear):
    """``nn.Linear`` with rounded weights and inputs; see :meth:`pack` for the fast form.

    Args:
        in_features: of the input.
        out_features: of the output.
        precision: bits.
        zero: code of the real zero of inputs.
        bias: whether there is one.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        precision: Precision,
        *,
        zero: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self._prepare(precision, zero)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x (..., in_features) to (..., out_features)."""
        return F.linear(self.quantised_input(x), self.quantised_weight(), self.bias)

    def pack(self) -> APLinear:
        """Return the layer that computes the same on codes."""
        codes, scale = self._integers()
        return APLinear.of(
            codes, scale, self.precision, step=self.activation_step, zero=self.zero, bias=self.bias
        )

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"{super().extra_repr()}{self._settings()}"


class QuantConv2d(_Quantised, nn.Conv2d):
    """``nn.Conv2d`` of one group with rounded weights and inputs; pads with zeros.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: height and width.
        precision: bits.
        stride: as ``nn.Conv2d`` has it.
        padding: likewise, as numbers.
        dilation: likewise.
        zero: code of the real zero of inputs.
        bias: whether there is one.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        precision: Precision,
        *,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        zero: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, bias=bias
        )
        self._prepare(precision, zero)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x (b, in_channels, h, w) to (b, out_channels, h', w')."""
        y: torch.Tensor = self._conv_forward(
            self.quantised_input(x), self.quantised_weight(), self.bias
        )
        return y

    def pack(self) -> APConv2d:
        """Return the layer that computes the same on codes."""
        codes, scale = self._integers()
        return APConv2d.of(
            codes,
            scale,
            self.precision,
            step=self.activation_step,
            zero=self.zero,
            bias=self.bias,
            stride=(self.stride[0], self.stride[1]),
            padding=(int(self.padding[0]), int(self.padding[1])),
            dilation=(self.dilation[0], self.dilation[1]),
        )

    def extra_repr(self) -> str:
        """Return the settings."""
        own: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{own}{self._settings()}"
