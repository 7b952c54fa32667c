"""Launching the CUDA kernels on channels-last tensors of 2-byte elements."""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path

import numpy
import torch

from kernels.errors import NasError
from kernels.jit import Kernel, compile_cuda, load, read_source
from kernels.sliding_channel import plan as plans
from kernels.sliding_channel import plan_hopper
from kernels.sliding_channel.plan import Plan, Structure

SOURCES = Path(__file__).parent / "cuda"
"""Where the CUDA sources are."""


def run_forward(
    x: torch.Tensor,
    packed: torch.Tensor,
    bias: torch.Tensor | None,
    s: Structure,
    kernel: str = "forward.cu",
    plan: Plan | None = None,
) -> torch.Tensor:
    """Return the product of x (b, c_in, h, w), channels-last; y is channels-last.

    Args:
        x: fp16 or bf16 on a GPU, channels-last.
        packed: the weights as the kernel reads them, see ``packing``.
        bias: (c_out,), float32.
        s: the windows.
        kernel: the CUDA source.
        plan: of that kernel; None takes the rule's.
    """
    batch, _, height, width = x.shape
    y = empty_images(x, s.c_out)
    pixels = batch * height * width
    if pixels == 0:
        return y
    plan = plan or _plan(kernel, s, pixels, x.device, bias is not None)
    _kernel(plan, "sliding_forward", x.dtype, torch.cuda.get_device_capability(x.device))(
        (_blocks(plan, pixels, x.device), plan.split),
        (plan.threads,),
        (x, packed, bias, y, _int64(pixels)),
        shared_bytes=plan.shared_bytes,
    )
    return y


def run_input_gradient(
    dy: torch.Tensor,
    packed: torch.Tensor,
    s: Structure,
    kernel: str = "input_gradient.cu",
    plan: Plan | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the input's gradient (b, c_in, h, w), channels-last, of dy (b, c_out, h, w).

    Args:
        dy: fp16 or bf16 on a GPU, channels-last.
        packed: the weights as the kernel reads them, see ``packing``.
        s: the windows.
        kernel: the CUDA source.
        plan: of that kernel; None takes the rule's.
        out: what to write and return; None takes new memory.
    """
    batch, _, height, width = dy.shape
    dx = empty_images(dy, s.c_in) if out is None else out
    pixels = batch * height * width
    if pixels == 0:
        return dx
    plan = plan or _plan(kernel, s, pixels, dy.device)
    capability = torch.cuda.get_device_capability(dy.device)
    _kernel(plan, "sliding_input_gradient", dy.dtype, capability)(
        (_blocks(plan, pixels, dy.device), plan.split),
        (plan.threads,),
        (dy, packed, dx, _int64(pixels)),
        shared_bytes=plan.shared_bytes,
    )
    return dx


def run_weight_gradient(
    x: torch.Tensor, dy: torch.Tensor, s: Structure, plan: Plan | None = None
) -> torch.Tensor:
    """Return the weights' gradient (c_out, width) of channels-last x and dy."""
    pixels = x.shape[0] * x.shape[2] * x.shape[3]
    dw = torch.empty(s.c_out, s.width, dtype=x.dtype, device=x.device)
    if pixels == 0:
        return dw.zero_()
    plan = plan or _plan("weight_gradient.cu", s, pixels, x.device)
    capability = torch.cuda.get_device_capability(x.device)
    blocks = _blocks(plan, pixels, x.device)
    slots = blocks * plans.slots_per_block(plan)
    sums = dw.new_empty(slots, s.c_out, s.width, dtype=torch.float32)
    _kernel(plan, "sliding_weight_gradient", x.dtype, capability)(
        (blocks, plan.split),
        (plan.threads,),
        (x, dy, sums, _int64(pixels)),
        shared_bytes=plan.shared_bytes,
    )
    _kernel(plan, "sliding_add_slots", x.dtype, capability)(
        (s.c_out * s.width // 128,),
        (256,),
        (sums, dw, _int32(slots)),
        overlap=capability >= plan_hopper.CAPABILITY,
    )
    return dw


def gather(source: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Return the elements of a 2-byte tensor at the table's places, 0 at -1; flat.

    Args:
        source: on a GPU, contiguous.
        table: int32, a multiple of 8 entries.
    """
    out = torch.empty(len(table), dtype=source.dtype, device=source.device)
    plan = Plan("gather.cu", (), 0)
    capability = torch.cuda.get_device_capability(source.device)
    _kernel(plan, "sliding_gather", source.dtype, capability)(
        (-(-len(table) // 1024),), (128,), (source, table, out, _int32(len(table)))
    )
    return out


def run_fused(
    x: torch.Tensor,
    taps: torch.Tensor,
    first_bias: torch.Tensor,
    packed: torch.Tensor,
    bias: torch.Tensor,
    residual: torch.Tensor | None,
    s: Structure,
    plan: Plan,
) -> torch.Tensor:
    """Return depthwise + bias + activation + product + bias (+ residual) + activation.

    Args:
        x: (b, c_in, h, w), fp16 or bf16 on a GPU, channels-last.
        taps: depthwise filters (kernel * kernel, c_in), float32.
        first_bias: (c_in,), float32.
        packed: the weights by ``pack_forward``.
        bias: (c_out,), float32.
        residual: like the output, or None.
        s: the windows.
        plan: of ``fused_plan``.
    """
    batch, _, height, width = x.shape
    stride = plan.constant("STRIDE")
    out_height, out_width = -(-height // stride), -(-width // stride)
    y = empty_images(x, s.c_out, out_height, out_width)
    if y.numel() == 0:
        return y
    down, across = -(-out_height // (plan.constant("PIXELS") // 8)), -(-out_width // 8)
    blocks = plan.blocks(batch * down * across, _sms(x.device))
    sizes = (batch, height, width, out_height, out_width, down, across)
    _kernel(plan, "sliding_fused", x.dtype, torch.cuda.get_device_capability(x.device))(
        (blocks, plan.split),
        (plan.threads,),
        (x, taps, first_bias, packed, bias, residual, y, *map(_int32, sizes)),
        shared_bytes=plan.shared_bytes,
    )
    return y


def empty_images(
    like: torch.Tensor, channels: int, height: int = -1, width: int = -1
) -> torch.Tensor:
    """Return uninitialised channels-last images like others, with other channels or sizes."""
    size = like.shape[2:] if height < 0 else (height, width)
    return torch.empty(
        (like.shape[0], channels, *size),
        dtype=like.dtype,
        device=like.device,
        memory_format=torch.channels_last,
    )


def _blocks(plan: Plan, pixels: int, device: torch.device) -> int:
    return plan.blocks(-(-pixels // plan.constant("PIXELS")), _sms(device))


@lru_cache(maxsize=4096)
def _plan(kernel: str, s: Structure, pixels: int, device: torch.device, bias: bool = False) -> Plan:
    if kernel == "forward_hopper.cu":
        return plan_hopper.forward_plan(s, bias=bias)
    if kernel == "input_gradient_hopper.cu":
        return plan_hopper.input_gradient_plan(s)
    sms, capability = _sms(device), torch.cuda.get_device_capability(device)
    if kernel == "forward.cu":
        return plans.forward_plan(s, pixels, bias=bias, sms=sms, capability=capability)
    if kernel == "input_gradient.cu":
        return plans.input_gradient_plan(s, pixels, sms=sms, capability=capability)
    return plans.weight_gradient_plan(s, pixels, sms=sms, capability=capability)


@cache
def _sms(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def _int32(value: int) -> numpy.int32:
    return numpy.int32(value)


def _int64(value: int) -> numpy.int64:
    return numpy.int64(value)


@lru_cache(maxsize=512)
def _kernel(plan: Plan, function: str, dtype: torch.dtype, capability: tuple[int, int]) -> Kernel:
    options = [f"-D{name}={value}" for name, value in plan.defines]
    if dtype == torch.bfloat16:
        options.append("-DBFLOAT")
    elif dtype != torch.float16:
        raise NasError(f"The CUDA kernels take float16 and bfloat16, not {dtype}.")
    major, minor = capability
    arch = f"sm_{major}{minor}" + ("a" if capability == (9, 0) else "")
    name = f"sliding_{plan.file.removesuffix('.cu')}"
    source = read_source(SOURCES / plan.file)
    compiled = compile_cuda(source, name=name, arch=arch, options=[*options, "-std=c++17"])
    return load(compiled, function)
