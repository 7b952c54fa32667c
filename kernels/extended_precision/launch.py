"""Launching the CUDA kernels: splitting matrices, multiplying their images, the nearest columns."""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy
import torch

from kernels.errors import NasError
from kernels.extended_precision.plan import (
    CHUNK,
    MANY,
    MEASURED,
    NEAREST,
    ROW_MULTIPLE,
    STEP,
    TALL,
    GemmPlan,
    SplitPlan,
    choose,
    refuses,
    split_plan,
)
from kernels.extended_precision.split import SplitMatrix
from kernels.jit import CompiledKernel, Kernel, compile_cuda, load, read_source

SOURCES = Path(__file__).parent / "cuda"
"""Where the CUDA sources are."""

HOPPER = (9, 0)
"""The only compute capability on which the product's instructions exist."""

_MOST_BLOCKS = 65535
"""In the second and third dimension of a grid."""


class Added(NamedTuple):
    """What is added to a product: alpha * a b + beta * added.

    Attributes:
        tensor: broadcastable to (batch, m, n), float32; None adds nothing.
        alpha: factor of the product.
        beta: factor of what is added.
    """

    tensor: torch.Tensor | None = None
    alpha: float = 1.0
    beta: float = 1.0

    def strides(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return its strides as part of a result of that shape."""
        if self.tensor is None:
            return 0, 0, 0
        batch, row, column = self.tensor.expand(shape).stride()
        return batch, row, column


NOTHING = Added()


def run_split(
    x: torch.Tensor,
    residual_bits: int = 0,
    *,
    truncate: bool = False,
    swizzled: bool = True,
) -> SplitMatrix:
    """Split the rows of x (batch, rows, k) on its GPU; bit by bit ``split.split_matrix``.

    Args:
        x: float32. K or the rows should be contiguous; it is copied otherwise.
        residual_bits: lower halves are grown by 2 to this power.
        truncate: cut the halves instead of rounding them.
        swizzled: whether the image is for Hopper's tensor cores to read as it is.
    """
    if x.stride(2) != 1 and x.stride(1) != 1:
        x = x.contiguous()
    batch, rows, k = x.shape
    padded = _ceil(rows, ROW_MULTIPLE) * ROW_MULTIPLE
    steps = _ceil(k, STEP)
    image = torch.empty(batch, steps, padded, 64, dtype=torch.float16, device=x.device)
    exponents = torch.empty(batch, padded, dtype=torch.int32, device=x.device)
    trouble = torch.empty_like(exponents)
    along_k = x.stride(2) == 1
    aligned = x.data_ptr() % 16 == 0 and x.stride(0) % 4 == 0 and x.stride(1) % 4 == 0
    plan = split_plan(
        k if along_k else 0,
        residual_bits=residual_bits,
        truncate=truncate,
        swizzled=swizzled,
        aligned=aligned or not along_k,
    )
    if along_k:
        _split_rows(x, plan, padded, image, exponents, trouble)
    else:
        _split_columns(x, plan, padded, image, exponents, trouble)
    return SplitMatrix(x, image, exponents, trouble, residual_bits, swizzled)


def _split_rows(
    x: torch.Tensor,
    plan: SplitPlan,
    padded: int,
    image: torch.Tensor,
    exponents: torch.Tensor,
    trouble: torch.Tensor,
) -> None:
    batch, rows, k = x.shape
    sizes = (*_int64(x.stride(0), x.stride(1)), *_int32(rows, k, padded, batch))
    _split_kernel(plan, "split_rows", _capability(x.device))(
        (_ceil(padded * plan.warps, 8), min(batch, _MOST_BLOCKS)),
        (256,),
        (x, *sizes, image, exponents, trouble),
    )


def _split_columns(
    x: torch.Tensor,
    plan: SplitPlan,
    padded: int,
    image: torch.Tensor,
    exponents: torch.Tensor,
    trouble: torch.Tensor,
) -> None:
    batch, rows, k = x.shape
    measured, capability = _ceil(k, MEASURED), _capability(x.device)
    partial = torch.empty(batch, measured, padded, dtype=torch.int32, device=x.device)
    measure = _split_kernel(plan, "measure_columns", capability)
    write = _split_kernel(plan, "split_columns", capability)
    blocks, layers = _ceil(padded, TALL), min(batch, _MOST_BLOCKS)
    sizes = (*_int64(x.stride(0), x.stride(2)), *_int32(rows, k, padded, batch))
    measure((blocks, measured, layers), (MANY,), (x, *sizes, partial, trouble))
    outputs = image, exponents, trouble
    write(
        (blocks, _ceil(k, CHUNK), layers),
        (256,),
        (x, *sizes, *_int32(measured), partial, *outputs),
    )


def run_gemm(
    a: SplitMatrix,
    b: SplitMatrix,
    added: Added = NOTHING,
    plan: GemmPlan | None = None,
    out: torch.Tensor | None = None,
    parts: int = 1,
) -> torch.Tensor:
    """Return alpha a b^T + beta added, (batch, m, n), float32, on Hopper.

    Rows in trouble are multiplied as they are: see ``portable.run_repair``.

    Args:
        a: (batch or 1, m, k), swizzled.
        b: (batch or 1, n, k), swizzled, with the residual scale of ``a``.
        added: what is added.
        plan: None takes the rule's, and its parts.
        out: what to write and return, rows contiguous; None takes new memory.
        parts: in which K is summed, of one matrix; a divisor of its steps.

    Raises:
        NasError: operands that do not fit each other or the plan.
    """
    batch, m, n = result_shape(a, b)
    out = empty_result(a, b) if out is None else out
    if out.numel() == 0:
        return out
    if plan is None:
        plan, parts = _chosen(a, batch, m, n)
    _check(a, plan)
    if parts == 1:
        return _multiply(a, b, added, plan, out)
    if batch > 1 or a.image.shape[1] % parts:
        raise NasError(f"K of {a.image.shape[1]} steps and {batch} results has no {parts} parts.")
    sums = torch.empty(parts, m, n, dtype=torch.float32, device=out.device)
    torch.sum(_multiply(a, b, NOTHING, plan, sums), 0, out=out[0])
    if added.alpha != 1.0:
        out.mul_(added.alpha)
    return out if added.tensor is None else out.add_(added.tensor, alpha=added.beta)


def _multiply(
    a: SplitMatrix, b: SplitMatrix, added: Added, plan: GemmPlan, out: torch.Tensor
) -> torch.Tensor:
    """Write the results (batch, m, n), or the sums of each part of one result's K (parts, m, n)."""
    batch, m, n = out.shape
    parts = 1 if batch in (a.batch, b.batch) else batch
    steps = a.image.shape[1] // parts
    kernel = _gemm_kernel(plan, False)
    kernel(
        (plan.blocks(m, n, batch, _sms(out.device)),),
        (plan.threads,),
        (
            *_operand(a, batch, parts),
            *_operand(b, batch, parts),
            *_int32(m, n, steps, batch, *plan.clusters(m, n)),
            out,
            *_int64(out.stride(0), out.stride(1)),
            added.tensor,
            *_int64(*added.strides((batch, m, n))),
            numpy.float32(added.alpha),
            numpy.float32(added.beta),
            None,
        ),
        shared_bytes=plan.shared_bytes,
    )
    return out


def run_nearest(
    a: SplitMatrix, b: SplitMatrix, norms: torch.Tensor, plan: GemmPlan = NEAREST
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return for each row of a the row j of b with the least ``norms[j] - 2 a_i b_j``, on Hopper.

    Args:
        a: (1, m, k), swizzled.
        b: (1, n, k), swizzled.
        norms: (n,), float32.
        plan: tiles.

    Returns:
        The rows of b (m,), int64, the first among equals, and the least values (m,), float32.
    """
    _, m, n = result_shape(a, b)
    _check(a, plan)
    device = a.image.device
    nearest = torch.empty(m, dtype=torch.int64, device=device)
    values = torch.empty(m, dtype=torch.float32, device=device)
    if m == 0:
        return nearest, values
    rows = plan.clusters(m, n)[0]
    blocks = plan.cluster * min(rows, max(1, _sms(device) // plan.cluster))
    kernel = _gemm_kernel(plan, True)
    kernel(
        (blocks,),
        (plan.threads,),
        (
            *_operand(a, 1),
            *_operand(b, 1),
            *_int32(m, n, a.image.shape[1], 1, *plan.clusters(m, n)),
            values,
            *_int64(0, 0),
            norms,
            *_int64(0, 0, 1),
            numpy.float32(1),
            numpy.float32(1),
            nearest,
        ),
        shared_bytes=plan.shared_bytes,
    )
    return nearest, values


def run_probe(
    a: torch.Tensor, b: torch.Tensor, total: torch.Tensor, *, warpgroup: bool
) -> torch.Tensor:
    """Return total + a[0] b[0] + .. + a[15] b[15] as the tensor cores have it, many times.

    Args:
        a: 16 halves.
        b: 16 halves.
        total: one float32.
        warpgroup: by Hopper's instruction, else by that of sm_80.
    """
    threads = 128 if warpgroup else 32
    out = torch.empty(threads * (32 if warpgroup else 4), dtype=torch.float32, device=a.device)
    function = "probe_warpgroup" if warpgroup else "probe_warp"
    kernel = _probe_kernel(function, _capability(a.device))
    kernel((1,), (threads,), (a, b, total, out), shared_bytes=17 << 10 if warpgroup else 0)
    return out


def result_shape(a: SplitMatrix, b: SplitMatrix) -> tuple[int, int, int]:
    """Return (batch, m, n) of a product.

    Raises:
        NasError: the operands do not fit each other.
    """
    batch = max(a.batch, b.batch)
    fits = a.k == b.k > 0 and {a.batch, b.batch} <= {1, batch}
    if not fits or (a.residual_bits, a.swizzled) != (b.residual_bits, b.swizzled):
        raise NasError(
            "Expected operands (batch, m, k) and (batch, n, k) that are split alike, got "
            f"{tuple(a.source.shape)} and {tuple(b.source.shape)} with residual scales of "
            f"{a.residual_bits} and {b.residual_bits} bits."
        )
    return (0 if 0 in (a.batch, b.batch) else batch), a.rows, b.rows


def empty_result(a: SplitMatrix, b: SplitMatrix) -> torch.Tensor:
    """Return memory for a product."""
    return torch.empty(result_shape(a, b), dtype=torch.float32, device=a.image.device)


def _chosen(a: SplitMatrix, batch: int, m: int, n: int) -> tuple[GemmPlan, int]:
    sms, steps = _sms(a.image.device), a.image.shape[1]
    return choose(m, n, batch, steps, sms=sms, residual_bits=a.residual_bits)


def _check(a: SplitMatrix, plan: GemmPlan) -> None:
    refusal = refuses(plan)
    if refusal is None and not a.swizzled:
        refusal = "Hopper's tensor cores read swizzled images"
    if refusal is None and a.residual_bits != plan.residual_bits:
        refusal = f"the operands' residual scale is {a.residual_bits} bits"
    if refusal is not None:
        raise NasError(f"{plan} cannot run: {refusal}.")


def _operand(
    x: SplitMatrix, batch: int, parts: int = 1
) -> tuple[torch.Tensor | numpy.generic, ...]:
    """Return an operand as the kernel's parameters have it; parts of K lie one after another."""
    several = x.batch == batch
    matrix_bytes = x.image[:1].numel() * 2 // parts if several or parts > 1 else 0
    rows = x.padded if several else 0
    return x.image, x.exponents, numpy.uint64(matrix_bytes), *_int32(rows, x.padded)


@cache
def _sms(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


@cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def _ceil(count: int, size: int) -> int:
    return -(-count // size)


def _int32(*values: int) -> tuple[numpy.generic, ...]:
    return tuple(map(numpy.int32, values))


def _int64(*values: int) -> tuple[numpy.generic, ...]:
    return tuple(map(numpy.int64, values))


def compile_split(plan: SplitPlan, capability: tuple[int, int]) -> CompiledKernel:
    """Compile the split kernels of a plan, if they are not; needs no GPU."""
    return _compile("split", plan.defines(), capability)


def compile_gemm(plan: GemmPlan, *, nearest: bool = False) -> CompiledKernel:
    """Compile the product of a plan for Hopper, if it is not; needs no GPU."""
    return _compile("gemm", plan.defines(nearest=nearest), HOPPER)


def compile_probe(capability: tuple[int, int]) -> CompiledKernel:
    """Compile the probes of how tensor cores add, if they are not; needs no GPU."""
    return _compile("probe", {"HOPPER": 1} if capability == HOPPER else {}, capability)


@cache
def _probe_kernel(function: str, capability: tuple[int, int]) -> Kernel:
    return load(compile_probe(capability), function)


@lru_cache(maxsize=256)
def _split_kernel(plan: SplitPlan, function: str, capability: tuple[int, int]) -> Kernel:
    return load(compile_split(plan, capability), function)


@lru_cache(maxsize=256)
def _gemm_kernel(plan: GemmPlan, nearest: bool) -> Kernel:
    return load(compile_gemm(plan, nearest=nearest), "extended_gemm")


def _compile(name: str, defines: dict[str, int], capability: tuple[int, int]) -> CompiledKernel:
    major, minor = capability
    arch = f"sm_{major}{minor}" + ("a" if capability == HOPPER else "")
    options = [f"-D{key}={value}" for key, value in defines.items()]
    source = read_source(SOURCES / f"{name}.cu")
    return compile_cuda(source, name=f"extended_{name}", arch=arch, options=options)
