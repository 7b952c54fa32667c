"""Linear and convolution layers on packed low-bit weights and activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import nn

from kernels.arbitrary_precision import ops
from kernels.arbitrary_precision.encodings import Encoding, check_sums, combination
from kernels.arbitrary_precision.layout import padded, weight_codes, weight_image, weight_planes
from kernels.arbitrary_precision.operands import Geometry, Weights
from kernels.arbitrary_precision.packed import LowBit
from kernels.arbitrary_precision.plan import MAX_PLANE_PRODUCTS
from kernels.arbitrary_precision.planes import code_values, from_codes, to_codes
from kernels.arbitrary_precision.precision import Precision
from kernels.errors import NasError

FORMAT = 1
"""Version of the packed form, in every state dict."""


class _Packed(nn.Module):
    """What packed layers hold.

    Buffers: ``planes`` (m, p, bytes) uint8, ``scale`` (m,) float32, ``bias`` (m,) float32 or None,
    ``step`` () float32, and ``settings``, which says how to read them. The others follow from these
    and are in no state dict; ``Weights`` says what they are.
    """

    planes: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor | None
    step: torch.Tensor
    settings: torch.Tensor
    image: torch.Tensor
    factor: torch.Tensor
    offset: torch.Tensor
    constants: torch.Tensor
    shift: torch.Tensor

    def __init__(
        self, features: int, outputs: int, taps: int, precision: Precision, zero: int, bias: bool
    ) -> None:
        super().__init__()
        self.precision, self.zero = precision, zero
        self.features, self.outputs, self.taps = features, outputs, taps
        self.inputs: Encoding = precision.activations(zero)
        if precision.weight_bits * precision.activation_bits <= MAX_PLANE_PRODUCTS:
            check_sums(precision.weights, self.inputs, features * taps)  # other paths split them
        length = taps * padded(features) // 8
        settings = [FORMAT, precision.weight_bits, precision.activation_bits, zero, features, taps]
        self.register_buffer("settings", torch.tensor(settings))
        planes = torch.zeros(outputs, precision.weight_bits, length, dtype=torch.uint8)
        self.register_buffer("planes", planes)
        self.register_buffer("scale", torch.ones(outputs))
        self.register_buffer("bias", torch.zeros(outputs) if bias else None)
        self.register_buffer("step", torch.ones(()))
        for name in ("image", "factor", "offset", "constants", "shift"):
            self.register_buffer(name, torch.empty(0), persistent=False)
        self._matrix: torch.Tensor | None = None
        self._derive()

    def fill(
        self,
        integers: torch.Tensor,
        scale: torch.Tensor,
        step: torch.Tensor | float,
        bias: torch.Tensor | None,
    ) -> None:
        """Take integers (m, c, taps), what they are worth a row, and an activation's step."""
        codes = to_codes(integers, self.precision.weights)
        self.planes.copy_(weight_planes(codes, self.precision.weight_bits))
        self.scale.copy_(scale.detach())
        self.step.copy_(torch.as_tensor(step).detach())
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias.detach())
        self._derive()

    def integers(self) -> torch.Tensor:
        """Return the weights' integers (m, c, taps), int64."""
        return from_codes(weight_codes(self.planes, self.features), self.precision.weights)

    def matrix(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the weights' integers (m, c, taps) as a floating type; kept for the next call."""
        kept = self._matrix
        if kept is None or kept.dtype != dtype or kept.device != self.planes.device:
            kept = self._matrix = self.integers().to(dtype)
        return kept

    def weights(self) -> Weights:
        """Return what products need."""
        products = (self.factor, self.offset, self.constants, self.shift)
        settings = (self.precision, self.zero, self.features, self.matrix)
        return Weights(self.planes, self.image, *products, self.step, *settings)

    def _derive(self) -> None:
        """Make what follows from the planes: the kernels' image, and constants of a row."""
        encoding = self.precision.weights
        self.image = weight_image(self.planes)
        c = combination(encoding, self.inputs, self.features * self.taps)
        codes = weight_codes(self.planes, self.features)
        sums = code_values(codes, encoding).sum((1, 2))
        self.constants = (c.sum_w * sums + c.constant).to(torch.int32)
        self.factor = self.scale * self.step
        self.offset = torch.zeros_like(self.scale) if self.bias is None else self.bias.float()
        worth = self.factor.double() * self.constants
        self.shift = (self.offset.double() + worth).float()
        self._matrix = None

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        """Move buffers, as ``to``, ``half`` and the like do; kernels read them in float32."""

        def moved(tensor: torch.Tensor) -> torch.Tensor:
            changed = fn(tensor)
            return changed if changed.dtype == tensor.dtype else tensor.to(changed.device)

        self._matrix = None
        return super()._apply(moved, recurse)  # type: ignore[no-untyped-call, no-any-return]

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        found = state_dict.get(f"{prefix}settings")
        if found is not None:
            self._take_zero(found.tolist())
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._derive()

    def _take_zero(self, settings: list[int]) -> None:
        """Take the zero point of packed weights, which must otherwise be of this layer's sizes."""
        names = ("format", "weight bits", "activation bits", "zero", "features", "taps")
        pairs = zip(names, settings, self.settings.tolist(), strict=False)
        wrong = [
            f"{name} {came} for {own}"
            for name, came, own in pairs
            if came != own and name != "zero"
        ]
        if wrong:
            raise NasError(f"Packed weights do not fit this layer: {', '.join(wrong)}.")
        self.zero = settings[3]
        self.inputs = self.precision.activations(self.zero)

    def extra_repr(self) -> str:
        """Return sizes and precision."""
        return f"{self.features}, {self.outputs}, {self.precision}, zero={self.zero}"


class APLinear(_Packed):
    """Linear layer whose weights and inputs are integers of a few bits.

    Inputs are real numbers (..., in_features), which are rounded to multiples of ``step``, or codes
    of an earlier layer (:class:`LowBit`). The products are exact; the output is they times
    ``scale`` and ``step``, plus the bias. NaN in an input counts as the lowest code.

    Args:
        in_features: of the input.
        out_features: of the output.
        precision: bits.
        zero: code of the real zero.
        bias: whether there is one.

    Raises:
        NasError: sums may not fit 32 bits.

    Example:
        >>> layer = APLinear(64, 32, Precision.parse("w1a2"))
        >>> layer(torch.rand(4, 64)).shape
        torch.Size([4, 32])
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
        super().__init__(in_features, out_features, 1, precision, zero, bias)
        self.in_features, self.out_features = in_features, out_features

    @classmethod
    def of(
        cls,
        integers: torch.Tensor,
        scale: torch.Tensor,
        precision: Precision,
        *,
        step: torch.Tensor | float = 1.0,
        zero: int = 0,
        bias: torch.Tensor | None = None,
    ) -> APLinear:
        """Make a layer of integers (m, k), worth ``scale`` (m,) each."""
        outputs, features = integers.shape
        layer = cls(features, outputs, precision, zero=zero, bias=bias is not None)
        layer = layer.to(integers.device)
        layer.fill(integers[:, :, None], scale, step, bias)
        return layer

    def forward(self, x: torch.Tensor | LowBit) -> torch.Tensor:
        """Map x (..., in_features) to (..., out_features), of the type of a real input.

        Raises:
            NasError: the input has other features, or codes of another encoding.
        """
        features = x.features if isinstance(x, LowBit) else x.shape[-1]
        if features != self.features:
            raise NasError(f"Expected {self.features} features, got {features}.")
        return ops.linear(x, self.weights())


class APConv2d(_Packed):
    """Convolution of one group whose weights and inputs are integers of a few bits; see APLinear.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: height and width.
        precision: bits.
        stride: in rows and columns.
        padding: likewise; what is added stands for the real zero.
        dilation: likewise.
        zero: code of the real zero.
        bias: whether there is one.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        precision: Precision,
        *,
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (0, 0),
        dilation: tuple[int, int] = (1, 1),
        zero: int = 0,
        bias: bool = True,
    ) -> None:
        taps = kernel_size[0] * kernel_size[1]
        super().__init__(in_channels, out_channels, taps, precision, zero, bias)
        self.in_channels, self.out_channels, self.kernel_size = (
            in_channels,
            out_channels,
            kernel_size,
        )
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self._geometry = Geometry(kernel_size, stride, padding, dilation)

    @classmethod
    def of(
        cls,
        integers: torch.Tensor,
        scale: torch.Tensor,
        precision: Precision,
        *,
        step: torch.Tensor | float = 1.0,
        zero: int = 0,
        bias: torch.Tensor | None = None,
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (0, 0),
        dilation: tuple[int, int] = (1, 1),
    ) -> APConv2d:
        """Make a layer of integers (m, c, r, s), worth ``scale`` (m,) each."""
        outputs, channels, *size = integers.shape
        layer = cls(
            channels,
            outputs,
            (size[0], size[1]),
            precision,
            stride=stride,
            padding=padding,
            dilation=dilation,
            zero=zero,
            bias=bias is not None,
        ).to(integers.device)
        layer.fill(integers.flatten(2), scale, step, bias)
        return layer

    def forward(self, x: torch.Tensor | LowBit) -> torch.Tensor:
        """Map x (b, in_channels, h, w) to (b, out_channels, h', w'), of the type of a real input.

        Raises:
            NasError: the input has other channels or another rank, or codes of another encoding.
        """
        if len(x.shape) != 4 or x.shape[1] != self.features:
            raise NasError(
                f"Expected an input of shape (b, {self.features}, h, w), got {tuple(x.shape)}."
            )
        return ops.conv2d(x, self.weights(), self._geometry)

    def extra_repr(self) -> str:
        """Return sizes, precision and how the window moves."""
        return (
            f"{self.in_channels}, {self.out_channels}, {self.kernel_size}, {self.precision}, "
            f"zero={self.zero}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}"
        )
