"""Launching the Hopper kernels on tensors of 2-byte elements."""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path

import numpy
import torch

from kernels.errors import NasError
from kernels.jit import Kernel, compile_cuda, load, read_source
from kernels.remembered import PerTensor
from kernels.shfl_bw.activation import ACTIVATIONS
from kernels.shfl_bw.dealing import deal
from kernels.shfl_bw.images import Images, taps_of
from kernels.shfl_bw.plan import Plan, choose
from kernels.shfl_bw.window import Window

SOURCES = Path(__file__).parent / "cuda"
"""Where the CUDA sources are."""

_NO_IMAGE = (1, 1, 1, 1, 1, 1, 0, 0)
_TAPS = PerTensor[tuple[torch.Tensor, torch.Tensor]]()
_DEALT = PerTensor[dict[tuple[object, ...], torch.Tensor]]()
_MOST_DEALT = 1 << 14  # items; beyond, each block has many, and the order matters little


def run_spmm(
    x: torch.Tensor,
    images: Images,
    bias: torch.Tensor | None,
    *,
    out_features: int,
    activation: str = "none",
    plan: Plan | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return ``act(W x + bias)`` of x (in, tokens) as (out, tokens).

    Args:
        x: fp16 or bf16 on a Hopper GPU, contiguous, tokens a multiple of 8, 16-byte aligned.
        images: of W, in the type of ``x``.
        bias: (out,), float32.
        out_features: rows of W.
        activation: what the epilogue applies.
        plan: None takes the model's.
        out: to write to, like the result; None makes it.
    """
    tokens = x.shape[1]
    y = x.new_empty(out_features, tokens) if out is None else out
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
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the convolution of x (c, h, w, b) as (out, oh, ow, b), b a multiple of 8; as above."""
    channels, height, width, batch = x.shape
    down, across = window.output(height, width)
    y = x.new_empty(out_features, down, across, batch) if out is None else out
    if y.numel():
        plan = plan or plan_for(images, y[0].numel(), x.device, convolution=True)
        columns, shifts = _TAPS.get(
            images.columns,
            (window, channels, height, width),
            lambda: taps_of(images.columns, window, channels, height, width),
        )
        image = (batch, height, width, across, *window.stride, *window.padding)
        _launch(x, images, columns, shifts, bias, y, plan, activation, image)
    return y


def run_transpose(
    x: torch.Tensor, filled: int | None = None, *, leaves: bool = False
) -> torch.Tensor:
    """Return x (rows, columns) as (columns, filled), zeros behind the rows.

    Args:
        x: 2-byte elements on a GPU, contiguous, columns a multiple of 8.
        filled: at least the rows, a multiple of 8; None takes the next one.
        leaves: whether it is what a product wrote; else a product reads the result.
    """
    rows, columns = x.shape
    filled = -(-rows // 8) * 8 if filled is None else filled
    y = torch.empty(columns, filled, dtype=x.dtype, device=x.device)
    if y.numel():
        capability = torch.cuda.get_device_capability(x.device)
        kernel = transpose_kernel(x.dtype, capability, leaves=leaves)
        grid = (-(-columns // 64), -(-filled // 64))
        sizes = map(_int32, (rows, columns, columns, filled, filled))
        kernel(grid[::-1] if leaves else grid, (256,), (x, y, *sizes), overlap=capability >= (9, 0))
    return y


def plan_for(
    images: Images, tokens: int, device: torch.device, *, convolution: bool = False
) -> Plan:
    """Return the plan that is expected to be fastest for a weight and a number of tokens."""
    columns = images.vectors / images.groups
    return _planned(images.v, images.groups, columns, tokens, _sms(device), convolution)


@lru_cache(maxsize=4096)
def _planned(v: int, groups: int, columns: float, tokens: int, sms: int, convolution: bool) -> Plan:
    return choose(v, groups, columns, tokens, sms=sms, convolution=convolution)


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
    capability = torch.cuda.get_device_capability(x.device)
    convolution = shifts is not None
    kernel = spmm_kernel(plan, x.dtype, capability, activation=activation, convolution=convolution)
    x_pitch = 0 if shifts is not None else x.shape[1]
    blocks = plan.items(groups, tokens)
    grid = min(blocks, _blocks_at_once(kernel, plan, x.device))
    items = _dealt(images, plan, tokens, grid // plan.cluster)
    count = blocks // plan.cluster if items is None else len(items)
    sizes = (groups, tokens, sum(images.lengths), plan.splits, count, x_pitch, tokens, *image)
    tensors = (x, images.panels, columns, shifts, images.tiles, images.order, items, images.rows)
    arguments = (*tensors, bias, y, partial, *map(_int32, sizes))
    kernel((grid,), (plan.threads,), arguments, shared_bytes=plan.shared_bytes, overlap=True)
    if partial is not None:
        reduce = reduce_kernel(x.dtype, capability, activation)
        counts = (plan.splits, packed_rows, tokens, tokens, tokens)
        reduce(
            (-(-tokens // 1024), packed_rows),
            (128,),
            (partial, images.rows, bias, y, *map(_int32, counts)),
        )


def _dealt(images: Images, plan: Plan, tokens: int, workers: int) -> torch.Tensor | None:
    """Return which cluster takes which item, None to let the kernel deal in turn.

    The list is copied from the host once, which cannot be done while a graph is captured.
    """
    kept = _DEALT.get(images.tiles, None, dict)
    key = (tokens, plan, workers)
    if key not in kept:
        many = plan.items(images.groups, tokens) // plan.cluster > _MOST_DEALT
        if many or not plan.dealt or torch.cuda.is_current_stream_capturing():
            return None
        items = deal(
            images.lengths,
            tokens,
            step=plan.tokens * plan.cluster,
            width=plan.tokens,
            splits=plan.splits,
            workers=workers,
        )
        if len(kept) >= 64:
            kept.clear()
        kept[key] = torch.tensor(items, dtype=torch.int32).to(images.tiles.device)
    return kept[key]


def spmm_kernel(
    plan: Plan,
    dtype: torch.dtype,
    capability: tuple[int, int],
    *,
    activation: str = "none",
    convolution: bool = False,
) -> Kernel:
    """Return the product kernel with its constants, compiled for a capability."""
    defines = plan.defines() | {"ACTIVATION": ACTIVATIONS.index(activation)}
    defines |= {"CONV": 1} if convolution else {}
    return _kernel("spmm.cu", "shfl_bw_spmm", tuple(sorted(defines.items())), dtype, capability)


def reduce_kernel(dtype: torch.dtype, capability: tuple[int, int], activation: str) -> Kernel:
    """Return the kernel that adds splits, compiled for a capability."""
    pairs = (("ACTIVATION", ACTIVATIONS.index(activation)),)
    return _kernel("reduce.cu", "shfl_bw_reduce", pairs, dtype, capability)


def transpose_kernel(
    dtype: torch.dtype, capability: tuple[int, int], *, leaves: bool = False
) -> Kernel:
    """Return the kernel that transposes, compiled for a capability."""
    defines = (("LEAVES", 1),) if leaves else ()
    return _kernel("transpose.cu", "shfl_bw_transpose", defines, dtype, capability)


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


def _blocks_at_once(kernel: Kernel, plan: Plan, device: torch.device) -> int:
    """Return the blocks of a kernel that runs on and on: whole clusters, all resident."""
    if plan.cluster == 1:
        return _sms(device) * plan.blocks
    shape = (plan.threads, plan.cluster, plan.shared_bytes)
    return plan.cluster * kernel.clusters_at_once(int(device.index), *shape)


@cache
def _sms(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def _int32(value: int) -> numpy.int32:
    return numpy.int32(value)
