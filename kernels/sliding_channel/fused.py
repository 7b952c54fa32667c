"""Depthwise convolution and sliding-channel convolution in one pass over memory, for inference."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional as F

from kernels.errors import NasError, UnknownNameError
from kernels.sliding_channel import launch
from kernels.sliding_channel.dense import sliding_channel_conv2d
from kernels.sliding_channel.module import SlidingChannelConv2d
from kernels.sliding_channel.packing import pack_forward
from kernels.sliding_channel.plan import (
    ACTIVATIONS,
    Plan,
    Structure,
    fused_plan,
    refuses_structure,
    whole_shift,
)

_FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "none": lambda v: v,
    "relu": F.relu,
    "relu6": F.relu6,
    "silu": F.silu,
    "hardswish": F.hardswish,
}


class FusedSlidingBlock(nn.Module):
    """Depthwise KxK + bias + activation + sliding channels + bias (+ residual) + activation.

    Input (b, c_in, h, w), output (b, c_out, ceil(h / stride), ceil(w / stride)). For inference:
    there are no gradients. fp16 and bf16 channels-last run as one kernel where it takes the
    shape; everything else runs as the layers one after the other. Made by ``fuse``.

    Args:
        sliding: the sliding-channel convolution, of which weights and windows are taken.
        depthwise_weight: (c_in, 1, k, k), norm folded in; k is 3, 5 or 7.
        depthwise_bias: (c_in,).
        bias: (c_out,), added after the sliding-channel convolution.
        stride: of the depthwise convolution, 1 or 2; its padding is k // 2.
        first: activation after the depthwise convolution, among ``ACTIVATIONS``.
        last: activation at the end.

    Raises:
        NasError: a shape, stride or activation that is none of these.
    """

    starts: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    depthwise_weight: torch.Tensor
    depthwise_bias: torch.Tensor

    def __init__(
        self,
        sliding: SlidingChannelConv2d,
        depthwise_weight: torch.Tensor,
        depthwise_bias: torch.Tensor,
        bias: torch.Tensor,
        *,
        stride: int = 1,
        first: str = "relu",
        last: str = "relu",
    ) -> None:
        super().__init__()
        self.kernel = depthwise_weight.shape[-1]
        expected = (sliding.in_channels, 1, self.kernel, self.kernel)
        if tuple(depthwise_weight.shape) != expected or self.kernel not in (3, 5, 7):
            raise NasError(
                f"Expected depthwise filters of shape ({sliding.in_channels}, 1, k, k) with k 3, 5 "
                f"or 7, got {tuple(depthwise_weight.shape)}."
            )
        if stride not in (1, 2):
            raise NasError(f"The depthwise stride must be 1 or 2, not {stride}.")
        for name in (first, last):
            if name not in ACTIVATIONS:
                raise UnknownNameError("activation", name, ACTIVATIONS)
        self.stride, self.first, self.last = stride, first, last
        c_in, c_out = sliding.in_channels, sliding.out_channels
        shift = whole_shift(c_in, sliding.cg, sliding.co, sliding.rule, sliding.order)
        self.structure = (
            None if shift is None else Structure(c_in, c_out, c_in // sliding.cg, shift)
        )
        self.register_buffer("starts", sliding.starts.clone(), persistent=False)
        self.register_buffer("depthwise_weight", depthwise_weight.detach().clone())
        self.register_buffer("depthwise_bias", depthwise_bias.detach().clone())
        self.register_buffer("weight", sliding.weight.detach().clone())
        self.register_buffer("bias", bias.detach().clone())
        self._packed: tuple[object, tuple[torch.Tensor, ...]] | None = None

    @torch.no_grad()
    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """Map x (b, c_in, h, w); ``residual`` has the shape of the output.

        Raises:
            NasError: an input or residual of another shape.
        """
        self._check(x, residual)
        plan = self.plan_for(x, residual is not None)
        if isinstance(plan, str) or torch.compiler.is_compiling():
            return self._layers(x, residual)
        x = x.contiguous(memory_format=torch.channels_last)
        if residual is not None:
            residual = residual.to(x.dtype).contiguous(memory_format=torch.channels_last)
        if any(t is not None and t.data_ptr() % 16 for t in (x, residual)):
            return self._layers(x, residual)
        taps, first_bias, packed, bias = self._operands()
        assert self.structure is not None
        with torch.cuda.device(x.device):
            return launch.run_fused(
                x, taps, first_bias, packed, bias, residual, self.structure, plan
            )

    def plan_for(self, x: torch.Tensor, residual: bool = False) -> Plan | str:
        """Return how the one kernel runs on this input, or why it does not."""
        if not x.is_cuda or x.dtype not in (torch.float16, torch.bfloat16):
            return f"only float16 and bfloat16 on a GPU, not {x.dtype} on {x.device.type}"
        if self.weight.dtype != x.dtype:
            return f"weights are {self.weight.dtype}, the input is {x.dtype}"
        if x.shape[2] * x.shape[3] * max(self.weight.shape[0], x.shape[1]) >= 1 << 31:
            return "images beyond 2^31 elements"
        if self.structure is None:
            return "windows do not move by a whole number of channels"
        settings = (self.kernel, self.stride, self.first, self.last)
        capability = torch.cuda.get_device_capability(x.device)
        return _plan(self.structure, *settings, capability, residual)

    def _check(self, x: torch.Tensor, residual: torch.Tensor | None) -> None:
        channels, outputs = len(self.depthwise_bias), len(self.starts)
        if x.dim() != 4 or x.shape[1] != channels:
            raise NasError(f"Expected an input (b, {channels}, h, w), got {tuple(x.shape)}.")
        down, across = -(-x.shape[2] // self.stride), -(-x.shape[3] // self.stride)
        expected = (x.shape[0], outputs, down, across)
        if residual is not None and tuple(residual.shape) != expected:
            raise NasError(f"Expected a residual {expected}, got {tuple(residual.shape)}.")

    def _layers(self, x: torch.Tensor, residual: torch.Tensor | None) -> torch.Tensor:
        """The definition, layer by layer."""
        dtype, padding = x.dtype, self.kernel // 2
        y = F.conv2d(
            x,
            self.depthwise_weight.to(dtype),
            self.depthwise_bias.to(dtype),
            self.stride,
            padding,
            groups=x.shape[1],
        )
        y = _FUNCTIONS[self.first](y)
        starts, weight = self.starts, self.weight
        bias = self.bias.to(dtype)
        y = sliding_channel_conv2d(y, weight.to(dtype), starts, bias)
        return _FUNCTIONS[self.last](y if residual is None else y + residual)

    def _operands(self) -> tuple[torch.Tensor, ...]:
        """Return (taps, first bias, packed weights, bias), made anew when a tensor changed."""
        held = (self.depthwise_weight, self.depthwise_bias, self.weight, self.bias)
        key = tuple((t.data_ptr(), t._version, t.dtype, t.device) for t in held)
        if self._packed is None or self._packed[0] != key:
            assert self.structure is not None
            taps = held[0].float().flatten(1).t().contiguous()
            packed = pack_forward(held[2], self.structure)
            self._packed = (key, (taps, held[1].float(), packed, held[3].float()))
        return self._packed[1]


def fuse(
    depthwise: nn.Conv2d,
    sliding: SlidingChannelConv2d,
    *,
    first_norm: nn.BatchNorm2d | None = None,
    first: str = "none",
    norm: nn.BatchNorm2d | None = None,
    last: str = "none",
) -> FusedSlidingBlock:
    """Return one block that computes trained layers in evaluation mode, norms folded in.

    Args:
        depthwise: KxK, one filter a channel, padding K // 2.
        sliding: follows it.
        first_norm: between the depthwise convolution and its activation.
        first: activation after the depthwise convolution, among ``ACTIVATIONS``.
        norm: between the sliding-channel convolution and its activation.
        last: activation at the end.

    Raises:
        NasError: a convolution that is not depthwise, or of another padding or dilation.
    """
    kernel, stride = depthwise.kernel_size[0], depthwise.stride[0]
    square = depthwise.kernel_size == (kernel, kernel) and depthwise.stride == (stride, stride)
    plain = depthwise.padding == (kernel // 2, kernel // 2) and depthwise.dilation == (1, 1)
    if not square or not plain or depthwise.groups != depthwise.in_channels:
        raise NasError(
            f"Expected a square depthwise convolution with padding kernel // 2, got {depthwise}."
        )
    scale, shift = _affine(first_norm, depthwise.bias, depthwise.out_channels)
    weight = depthwise.weight.detach().float() * scale[:, None, None, None].to(
        depthwise.weight.device
    )
    last_scale, last_shift = _affine(norm, sliding.bias, sliding.out_channels)
    folded = SlidingChannelConv2d(
        sliding.in_channels,
        sliding.out_channels,
        sliding.cg,
        sliding.co,
        rule=sliding.rule,
        order=sliding.order,
    ).to(sliding.weight.device, sliding.weight.dtype)
    scaled = sliding.weight.detach().float() * last_scale[:, None]
    with torch.no_grad():
        folded.weight.copy_(scaled)
    return FusedSlidingBlock(
        folded, weight, shift, last_shift, stride=stride, first=first, last=last
    )


def _affine(
    norm: nn.BatchNorm2d | None, bias: torch.Tensor | None, channels: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (scale, shift) of a bias followed by a norm in evaluation mode, float32."""
    device = (
        norm.running_mean.device if norm is not None and norm.running_mean is not None else None
    )
    if norm is None:
        device = None if bias is None else bias.device
        scale = torch.ones(channels, device=device)
        return scale, torch.zeros_like(scale) if bias is None else bias.detach().float()
    if norm.running_mean is None or norm.running_var is None:
        raise NasError("A norm without running statistics cannot be folded. Train with statistics.")
    scale = torch.rsqrt(norm.running_var.float() + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.detach().float()
    shift = -norm.running_mean.float() * scale
    if bias is not None:
        shift = shift + bias.detach().float() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.detach().float()


@lru_cache(maxsize=1024)
def _plan(
    s: Structure,
    kernel: int,
    stride: int,
    first: str,
    last: str,
    capability: tuple[int, int],
    residual: bool,
) -> Plan | str:
    if capability < (8, 0):
        return "needs a GPU of compute capability 8.0 or later"
    refusal = refuses_structure(s)
    if refusal is not None:
        return refusal
    return fused_plan(s, kernel, stride, first, last, capability=capability, residual=residual)
