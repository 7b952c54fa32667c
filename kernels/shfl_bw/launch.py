"""Launching the Hopper kernels on tensors of 2-byte elements."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path

import numpy
import torch

from kernels.errors import NasError
from kernels.jit import Kernel, compile_cuda, load, read_source
from kernels.shfl_bw.activation import ACTIVATIONS
from kernels.shfl_bw.images import Images, taps_of
from kernels.shfl_bw.plan import Plan, choose
from kernels.shfl_bw.window import Window

SOURCES = Path(__file__).parent / "cuda"
"""Where the CUDA sources are."""

_NO_IMAGE = (1, 1, 1, 1, 1, 1, 0, 0)


def run_spmm(
    x: torch.Tensor,
    images: Images,
    bias: torch.Tensor | None,
    *,
    out_features: int,
    activation: str = "none",
    plan: Plan | None = None,
) -> torch.Tensor:
    """Return ``act(W x + bias)`` of x (in, tokens) as (out, tokens).

    Args:
        x: fp16 or bf16 on a Hopper GPU, contiguous, tokens a multiple of 8, 16-byte aligned.
        images: of W, in the type of ``x``.
        bias: (out,), float32.
        out_features: rows of W.
        activation: what the epilogue applies.
        plan: None takes the model's.
    """
    tokens = x.shape[1]
    y = torch.empty(out_features, tokens, dtype=x.dtype, device=x.device)
    if tokens:
        plan = plan or plan_for(images, tokens, x.device)
        _launch(x, images, images.columns, None, bias, y, plan, activation, _NO_IMAGE)
    return y


def run_convolution(
    x: torch.Tensor,
    images: Images,
    bias: torch.Tensor | None,
    window: Window,
    *,
    out_features: int,
    activation: str = "none",
    plan: Plan | None = None,
) -> torch.Tensor:
    """Return the convolution of x (c, h, w, b) as (out, oh, ow, b), b a multiple of 8; as above."""
    channels, height, width, batch = x.shape
    down, across = window.output(height, width)
    y = torch.empty(out_features, down, across, batch, dtype=x.dtype, device=x.device)
    if y.numel():
        plan = plan or plan_for(images, down * across * batch, x.device)
        columns, shifts = taps_of(images.columns, window, channels, height, width)
        image = (batch, height, width, across, *window.stride, *window.padding)
        _launch(x, images, columns, shifts, bias, y, plan, activation, image)
    return y


def run_transpose(x: torch.Tensor, filled: int | None = None) -> torch.Tensor:
    """Return x (rows, columns) as (columns, filled), zeros behind the rows.

    Args:
        x: 2-byte elements on a GPU, contiguous, columns a multiple of 8.
        filled: at least the rows, a multiple of 8; None takes the next one.
    """
    rows, columns = x.shape
    filled = -(-rows // 8) * 8 if filled is None else filled
    y = torch.empty(columns, filled, dtype=x.dtype, device=x.device)
    if y.numel():
        capability = torch.cuda.get_device_capability(x.device)
        kernel = _kernel("transpose.cu", "shfl_bw_transpose", (), x.dtype, capability)
        grid = (-(-columns // 64), -(-filled // 64))
        sizes = (rows, columns, columns, filled, filled)
        kernel(grid, (256,), (x, y, *map(_int32, sizes)))
    return y


def plan_for(images: Images, tokens: int, device: torch.device) -> Plan:
    """Return the plan that the model takes for a weight and a number of tokens."""
    return _planned(images.v, images.groups, images.vectors, tokens, _sms(device))


@lru_cache(maxsize=4096)
def _planned(v: int, groups: int, vectors: int, tokens: int, sms: int) -> Plan:
    return choose(v, groups, vectors / groups, tokens, sms=sms)


def _launch(
    x: torch.Tensor,
    images: Images,
    columns: torch.Tensor,
    shifts: torch.Tensor | None,
    bias: torch.Tensor | None,
    y: torch.Tensor,
    plan: Plan,
    activation: str,
    image: tuple[int, ...],
) -> None:
    tokens = y[0].numel()
    groups = images.groups
    packed_rows = groups * plan.v
    partial = None
    if plan.splits > 1:
        shape = (plan.splits, packed_rows, tokens)
        partial = torch.empty(shape, dtype=torch.float32, device=x.device)
    defines = plan.defines() | {"ACTIVATION": ACTIVATIONS.index(activation)}
    kernel = spmm_kernel(defines | ({} if shifts is None else {"CONV": 1}), x.dtype, x.device)
    x_pitch = 0 if shifts is not None else x.shape[1]
    sizes = (groups, tokens, plan.token_tiles(tokens), plan.splits, x_pitch, tokens, *image)
    tensors = (x, images.panels, columns, shifts, images.tiles, images.order, images.rows)
    arguments = (*tensors, bias, y, partial, *map(_int32, sizes))
    grid = (plan.grid(groups, tokens, _sms(x.device)),)
    kernel(grid, (plan.threads,), arguments, shared_bytes=plan.shared_bytes)
    if partial is not None:
        capability = torch.cuda.get_device_capability(x.device)
        pairs = (("ACTIVATION", ACTIVATIONS.index(activation)),)
        reduce = _kernel("reduce.cu", "shfl_bw_reduce", pairs, x.dtype, capability)
        counts = (plan.splits, packed_rows, tokens, tokens, tokens)
        reduce(
            (-(-tokens // 1024), packed_rows),
            (128,),
            (partial, images.rows, bias, y, *map(_int32, counts)),
        )


def spmm_kernel(defines: Mapping[str, int], dtype: torch.dtype, device: torch.device) -> Kernel:
    """Return the product kernel with its constants, compiled for a device."""
    capability = torch.cuda.get_device_capability(device)
    return _kernel("spmm.cu", "shfl_bw_spmm", tuple(sorted(defines.items())), dtype, capability)


@lru_cache(maxsize=512)
def _kernel(
    file: str,
    function: str,
    defines: tuple[tuple[str, int], ...],
    dtype: torch.dtype,
    capability: tuple[int, int],
) -> Kernel:
    options = [f"-D{name}={value}" for name, value in defines]
    if dtype == torch.bfloat16:
        options.append("-DBFLOAT")
    elif dtype != torch.float16:
        raise NasError(f"The Hopper kernels take float16 and bfloat16, not {dtype}.")
    major, minor = capability
    arch = f"sm_{major}{minor}" + ("a" if capability == (9, 0) else "")
    name = f"shfl_bw_{file.removesuffix('.cu')}"
    source = read_source(SOURCES / file)
    return load(compile_cuda(source, name=name, arch=arch, options=options), function)


@cache
def _sms(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def _int32(value: int) -> numpy.int32:
    return numpy.int32(value)
