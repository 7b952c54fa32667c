"""What must hold on a GPU before a plan is used: against float64, with poisoned outputs.

As a script it checks the plans that it is given, see :mod:`kernels.checks`:
``python -m kernels.shfl_bw.checks "V64 256x2 ring 3 cluster 2"``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence

import torch
from torch.nn import functional as F

from kernels import checks as runner
from kernels.checks import Row
from kernels.shfl_bw.activation import FUNCTIONS
from kernels.shfl_bw.images import Images, images_of
from kernels.shfl_bw.launch import run_convolution, run_spmm, run_transpose
from kernels.shfl_bw.packed import pack
from kernels.shfl_bw.pattern import Pattern, like_weight
from kernels.shfl_bw.plan import Plan
from kernels.shfl_bw.variants import variants
from kernels.shfl_bw.window import Window

ALLOWED = {torch.float16: 1e-3, torch.bfloat16: 8e-3}
"""Relative error in the Frobenius norm: above the rounding of the output."""

TRANSPOSITION = "transposition"
"""The group that is no plan."""

_DEVICE = "cuda"


def check_all(names: Sequence[str], say: Callable[[str], None] = lambda text: None) -> list[Row]:
    """Check plans; see :func:`kernels.checks.check_all`.

    Args:
        names: of plans, see :mod:`kernels.shfl_bw.variants`, or :data:`TRANSPOSITION`.
        say: told of each at the end.
    """
    return runner.check_all("kernels.shfl_bw.checks", names, say, at_once=6, seconds=150)


def main() -> None:
    """Print the rows of the groups named on the command line."""
    for group in sys.argv[1:]:
        runner.print_rows(check(group))


def check(group: str) -> Iterator[Row]:
    """Check a plan by name, or the transposition."""
    if group == TRANSPOSITION:
        yield from _transposition()
        return
    plan = variants()[group]
    for rows in (_products, _integers, _not_finite, _convolutions, _steadiness):
        yield from rows(group, plan)


def uneven(
    rows: int, columns: int, v: int, counts: Sequence[int], seed: int = 0
) -> tuple[Pattern, torch.Tensor]:
    """Return a shuffled pattern whose groups keep the given numbers of columns, and weights.

    Args:
        rows: of the matrix.
        columns: of the matrix.
        v: rows of a group.
        counts: kept columns of each group; repeated as often as needed.
        seed: of order, places and weights.
    """
    generator = torch.Generator().manual_seed(seed)
    groups = -(-rows // v)
    kept_columns = torch.tensor([counts[g % len(counts)] for g in range(groups)])
    ranks = torch.rand(groups, columns, generator=generator).argsort(1).argsort(1)
    kept = ranks < kept_columns[:, None]
    order = torch.randperm(groups * v, generator=generator)
    mask = torch.zeros(groups * v, columns, dtype=torch.bool)
    mask[order] = kept.repeat_interleave(v, 0)
    return Pattern(mask[:rows], order, v), torch.randn(rows, columns, generator=generator)


def _images(weight: torch.Tensor, pattern: Pattern, dtype: torch.dtype) -> Images:
    return images_of(*pack(weight.to(dtype), pattern).to(_DEVICE).tensors())


def _normal(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    generator = torch.Generator(_DEVICE).manual_seed(seed)
    return torch.randn(shape, generator=generator, device=_DEVICE).to(dtype)


def _poisoned(*shape: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    """Return memory full of NaN, and leave NaN in what the next allocations get."""
    blocks = [torch.full((1 << size,), float("nan"), device=_DEVICE) for size in range(8, 24)]
    del blocks
    return torch.full(shape, float("nan"), dtype=dtype, device=_DEVICE)


def _error(found: torch.Tensor, expected: torch.Tensor) -> float:
    scale = expected.norm().clamp(min=1e-30)
    return float(((found.double() - expected).norm() / scale).nan_to_num(nan=1e9))


_PRODUCTS = (
    # columns, tokens, kept columns of the groups, activation, type
    (200, 200, (150, 1, 0), "none", torch.float16),
    (300, 8, (300,), "gelu", torch.float16),  # density 1
    (130, 1000, (0,), "none", torch.float16),  # nothing is kept
    (1000, 520, (64, 65, 63, 513), "gelu", torch.bfloat16),
    (70, 960, (1, 70, 33), "none", torch.float16),
    (4096, 136, (1024, 1000), "none", torch.float16),
)


def _products(group: str, plan: Plan) -> Iterator[Row]:
    for seed, (columns, tokens, counts, activation, dtype) in enumerate(_PRODUCTS):
        v = plan.v if plan.v > 64 else (64, 64, 64, 32, 16, 32)[seed]  # fewer rows are bundled
        rows = 5 * v - 3  # rows of padding in the last group
        pattern, weight = uneven(rows, columns, v, counts, seed)
        weight = weight.to(dtype)
        x = _normal(columns, tokens, seed=seed, dtype=dtype)
        bias = None if seed == 0 else _normal(rows, seed=seed + 50, dtype=torch.float32)
        out = _poisoned(rows, tokens, dtype=dtype)
        images = _images(weight, pattern, dtype)
        y = run_spmm(x, images, bias, out_features=rows, activation=activation, plan=plan, out=out)
        exact = (weight.double() * pattern.mask).to(_DEVICE) @ x.double()
        exact = exact if bias is None else exact + bias.double()[:, None]
        error = _error(y, FUNCTIONS[activation](exact))
        what = f"V{v} {rows}x{columns} times {tokens}, kept {counts}, {activation}, {dtype}"
        yield Row(group, what, error < ALLOWED[dtype], f"error {error:.2e}")


def _integers(group: str, plan: Plan) -> Iterator[Row]:
    pattern, weight = uneven(3 * plan.v, 500, plan.v, (120, 125, 130))
    weight = (weight * 1.5).round().clamp(-4, 4)
    x = _normal(500, 512).mul(1.5).round().clamp(-4, 4)
    out = _poisoned(3 * plan.v, 512)
    images = _images(weight, pattern, torch.float16)
    y = run_spmm(x, images, None, out_features=3 * plan.v, plan=plan, out=out)
    exact = (weight.double() * pattern.mask).to(_DEVICE) @ x.double()
    wrong = int((y.double() != exact).sum())
    yield Row(group, "small integers are exact", wrong == 0, f"{wrong} of {y.numel()} differ")


def _not_finite(group: str, plan: Plan) -> Iterator[Row]:
    """NaN and infinity reach the rows that keep their column, and no others."""
    rows = 2 * plan.v
    pattern, weight = uneven(rows, 70, plan.v, (40, 65))
    x = _normal(70, 24)
    x[0, 3], x[69, 5] = float("inf"), float("nan")
    out = _poisoned(rows, 24)
    images = _images(weight, pattern, torch.float16)
    y = run_spmm(x, images, None, out_features=rows, plan=plan, out=out)
    hit = torch.zeros(rows, 24, dtype=torch.bool)
    hit[pattern.mask[:, 0], 3] = True
    hit[pattern.mask[:, 69], 5] = True
    same = torch.equal(~y.cpu().isfinite(), hit)
    yield Row(group, "NaN and infinity stay in their columns", same)


_CONVOLUTIONS = (
    # window, channels, height and width, images
    (Window((3, 3), (1, 1), (1, 1)), 24, (7, 9), 16),
    (Window((3, 3), (2, 2), (1, 1)), 40, (9, 7), 8),
    (Window((3, 2), (2, 1), (2, 3), (2, 3)), 16, (6, 5), 64),
    (Window((1, 1)), 80, (14, 3), 24),
)


def _convolutions(group: str, plan: Plan) -> Iterator[Row]:
    rows = 2 * plan.v
    for seed, (window, channels, size, batch) in enumerate(_CONVOLUTIONS):
        columns = channels * window.taps
        pattern, flat = uneven(rows, columns, plan.v, (columns // 4, columns // 3), seed)
        filters = like_weight(flat, (rows, channels, *window.kernel)).half()
        x = _normal(channels, *size, batch, seed=seed)
        out = _poisoned(rows, *window.output(*size), batch)
        images = _images(filters, pattern, torch.float16)
        y = run_convolution(x, images, None, window, out_features=rows, plan=plan, out=out)
        masked = filters.double() * like_weight(pattern.mask, filters.shape)
        sizes = (window.stride, window.padding, window.dilation)
        # On the CPU: cuDNN's double convolution may take another algorithm, this one is plain.
        exact = F.conv2d(x.cpu().double().permute(3, 0, 1, 2), masked, None, *sizes)
        error = _error(y.cpu(), exact.permute(1, 2, 3, 0))
        yield Row(group, f"{window} of {size}, {batch} images", error < 1e-3, f"error {error:.2e}")


def _steadiness(group: str, plan: Plan) -> Iterator[Row]:
    """Run a size that keeps all multiprocessors busy many times, with other data in between."""
    rows, columns, tokens = 2048, 1536, 3080
    pattern, weight = uneven(rows, columns, plan.v, (384, 320, 450))
    images = _images(weight, pattern, torch.float16)
    x, other = _normal(columns, tokens), _normal(columns, tokens, seed=2)

    def run(features: torch.Tensor) -> torch.Tensor:
        out = _poisoned(rows, tokens)
        return run_spmm(features, images, None, out_features=rows, plan=plan, out=out)

    first = run(x)
    exact = (weight.half().double() * pattern.mask).to(_DEVICE) @ x.double()
    error = _error(first, exact)
    yield Row(group, f"{rows}x{columns} times {tokens}", error < 1e-3, f"error {error:.2e}")
    differ = 0
    for _ in range(25):
        run(other)
        differ += int(not torch.equal(run(x), first))
    yield Row(group, "25 launches give the same bits", differ == 0, f"{differ} differ")


def _transposition() -> Iterator[Row]:
    for rows, columns in ((70, 136), (4096, 4096), (1, 8), (1000, 11008)):
        for leaves in (False, True):
            x = _normal(rows, columns)
            y = run_transpose(x, leaves=leaves)
            same = torch.equal(y[:, :rows], x.T) and not bool(y[:, rows:].any())
            way = "from" if leaves else "to"
            yield Row(TRANSPOSITION, f"{rows}x{columns}, {way} a product", same)


if __name__ == "__main__":
    main()
