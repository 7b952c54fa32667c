"""What must hold on a GPU before a kernel is used: against float64, the model, and itself.

As a script it runs the groups that it is given, see :mod:`kernels.checks`:
``python -m kernels.extended_precision.checks "split" "product 256x128"``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial

import torch

from kernels import checks as runner
from kernels.checks import Row
from kernels.extended_precision import launch, plan, portable, tensor_core
from kernels.extended_precision.launch import NOTHING, Added
from kernels.extended_precision.nearest import nearest_centres
from kernels.extended_precision.plan import GemmPlan
from kernels.extended_precision.routes import PRODUCTS
from kernels.extended_precision.split import SplitMatrix, split_matrix

ALLOWED = 4e-7
"""Largest error as a share of |a| |b|: above what promoted sums of halves have, below one bit more.

Simulated with the model of Hopper: 1.2e-7 to 2.5e-7 for the shapes here.
"""

_DEVICE = "cuda"

_STEADY = (3000, 2000, 2500)
"""A product (m, k, n) that keeps every multiprocessor busy for several tiles."""

Multiply = Callable[[SplitMatrix, SplitMatrix, Added, torch.Tensor], torch.Tensor]


def groups() -> dict[str, Callable[[], Iterator[Row]]]:
    """Return the groups that this GPU can run, by name."""
    hopper = torch.cuda.get_device_capability() == launch.HOPPER
    found: dict[str, Callable[[], Iterator[Row]]] = {
        "probes": partial(_probes, hopper),
        "split": _split,
    }
    if hopper:
        for name, chosen in {**plan.VARIANTS, "paper": plan.PAPER}.items():
            found[f"product {name}"] = partial(_product, f"product {name}", chosen)
        found["nearest"] = _nearest
        found["repair hopper"] = partial(_repair, "hopper")
    for tile in portable.TILES:
        name = f"portable {tile.rows}x{tile.columns}"
        found[name] = partial(_portable, name, tile)
    found["repair portable"] = partial(_repair, "portable")
    return found


def check_all(say: Callable[[str], None] = lambda text: None) -> list[Row]:
    """Run every group that this GPU can run; see :func:`kernels.checks.check_all`."""
    return runner.check_all("kernels.extended_precision.checks", groups(), say)


def main() -> None:
    """Print the rows of the groups named on the command line."""
    known = groups()
    for group in sys.argv[1:]:
        runner.print_rows(known[group]())


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return N(0, 1) on the GPU."""
    generator = torch.Generator(_DEVICE).manual_seed(seed)
    return torch.randn(shape, generator=generator, device=_DEVICE)


def poisoned(*shape: int) -> torch.Tensor:
    """Return memory full of NaN, and leave NaN in what the next allocations get."""
    blocks = [torch.full((1 << size,), float("nan"), device=_DEVICE) for size in range(8, 24)]
    del blocks
    return torch.full(shape, float("nan"), device=_DEVICE)


def largest_share(
    found: torch.Tensor, a: torch.Tensor, b: torch.Tensor, added: Added = NOTHING
) -> float:
    """Return the largest error of alpha a b + beta added as a share of its terms' magnitudes."""
    exact, scale = (
        torch.matmul(a.double(), b.double()),
        torch.matmul(a.double().abs(), b.double().abs()),
    )
    exact, scale = exact * added.alpha, scale * abs(added.alpha)
    if added.tensor is not None:
        exact = exact + added.tensor.double() * added.beta
        scale = scale + (added.tensor.double() * added.beta).abs()
    return float(((found.double() - exact).abs() / scale).nan_to_num(nan=1.0).max())


def _probes(hopper: bool) -> Iterator[Row]:
    """Find whether tensor cores add as the model says."""
    capability = torch.cuda.get_device_capability()
    core = tensor_core.HOPPER if capability >= (9, 0) else tensor_core.AMPERE
    for probe in tensor_core.PROBES:
        a, b = (torch.tensor(x, dtype=torch.float16, device=_DEVICE) for x in (probe.a, probe.b))
        total = torch.tensor([probe.accumulator], device=_DEVICE)
        for warpgroup in (False, True) if hopper else (False,):
            values = launch.run_probe(a, b, total, warpgroup=warpgroup).tolist()
            found = sorted(set(values))
            expected = probe.expected(core)
            unit = "wgmma" if warpgroup else "mma.sync"
            detail = f"{unit} gives {found}, the model {expected!r}"
            yield Row("probes", f"{probe.what} ({unit})", found == [expected], detail)


def _split() -> Iterator[Row]:
    """Compare with the definition, bit by bit."""
    for rows, k in ((37, 100), (9, 128), (130, 513), (300, 2047), (65, 4096), (7, 9000)):
        x = normal(2, rows, k) * 10.0 ** (normal(2, rows, 1, seed=1) * 15)
        x[0, 1, 3], x[1, 2], x[1, 4, :3] = float("inf"), 0.0, float("nan")
        x[0, 3] *= 10.0 ** (normal(k, seed=2) * 4)
        layouts = {
            "K contiguous": x,
            "rows contiguous": x.mT.contiguous().mT,
            "unaligned": torch.empty(2, rows, k + 3, device=_DEVICE)[:, :, 3:].copy_(x),
            "strided": x.repeat(1, 1, 2)[:, :, ::2].copy_(x),
        }
        for options in ({}, {"residual_bits": 11}, {"swizzled": False}, {"truncate": True}):
            expected = split_matrix(x, **options)
            for layout, source in layouts.items():
                poisoned(1)
                found = launch.run_split(source, **options)
                same = [
                    torch.equal(found.image.view(torch.int16), expected.image.view(torch.int16)),
                    torch.equal(found.exponents, expected.exponents),
                    torch.equal(found.trouble, expected.trouble),
                ]
                what = f"{rows}x{k}, {layout}, {options or 'plain'}"
                yield Row("split", what, all(same), f"image, exponents, trouble equal: {same}")


_SHAPES = (
    # batch of a, batch of b, m, k, n
    (1, 1, 300, 100, 150),
    (2, 1, 140, 130, 131),
    (1, 3, 1, 33, 700),
    (1, 1, 129, 4096, 257),
    (5, 5, 65, 31, 64),
)


def _product(group: str, chosen: GemmPlan) -> Iterator[Row]:
    def multiply(a: SplitMatrix, b: SplitMatrix, added: Added, out: torch.Tensor) -> torch.Tensor:
        return launch.run_gemm(a, b, added, plan=chosen, out=out)

    promoted = chosen.promote != 0
    yield from _products(group, multiply, chosen.residual_bits, True, promoted)
    a, b = normal(1, 200, 300, seed=5), normal(1, 140, 300, seed=6)
    out = poisoned(1, 200, 140)
    left, right = (split_matrix(x, chosen.residual_bits) for x in (a, b))
    found = multiply(left, right, NOTHING, out)
    expected = tensor_core.multiply(a[0].cpu().numpy(), b[0].T.cpu().numpy(), chosen)
    differ = int((found[0].cpu() != torch.from_numpy(expected)).sum())
    yield Row(group, "equals the model bit by bit", differ == 0, f"{differ} of 28000 differ")


def _portable(group: str, tile: portable.Tile) -> Iterator[Row]:
    def multiply(a: SplitMatrix, b: SplitMatrix, added: Added, out: torch.Tensor) -> torch.Tensor:
        return portable.run_portable_gemm(a, b, added, tile=tile, out=out)

    yield from _products(group, multiply, 0, False, True)


def _products(
    group: str, multiply: Multiply, residual_bits: int, swizzled: bool, promoted: bool
) -> Iterator[Row]:
    def split(x: torch.Tensor) -> SplitMatrix:
        return launch.run_split(x, residual_bits, swizzled=swizzled)

    allowed = ALLOWED if promoted else 1e-4
    for seed, (a_batch, b_batch, m, k, n) in enumerate(_SHAPES):
        a, b = normal(a_batch, m, k, seed=seed), normal(b_batch, n, k, seed=seed + 100)
        a[:, 0] *= 1e-15
        b[:, 0] *= 1e12
        batch = max(a_batch, b_batch)
        for wide in (n, n + 3):
            out = poisoned(batch, m, wide)[:, :, :n]
            share = largest_share(multiply(split(a), split(b), NOTHING, out), a, b.mT)
            yield Row(
                group, f"{tuple(a.shape)} {tuple(b.shape)}", share < allowed, f"share {share:.2e}"
            )
        added = Added(normal(1, 1, n, seed=3), 2.0, -0.5)
        found = multiply(split(a), split(b), added, poisoned(batch, m, n))
        share = largest_share(found, a, b.mT, added)
        yield Row(group, f"added {tuple(a.shape)}", share < allowed, f"share {share:.2e}")
    yield from _steadiness(group, multiply, split, allowed)


def _steadiness(
    group: str,
    multiply: Multiply,
    split: Callable[[torch.Tensor], SplitMatrix],
    allowed: float,
) -> Iterator[Row]:
    """Run a size that keeps all multiprocessors busy many times, with other data in between."""
    m, k, n = _STEADY
    a, b = normal(1, m, k), normal(1, n, k, seed=1)
    left, right = split(a), split(b)
    first = multiply(left, right, NOTHING, poisoned(1, m, n)).clone()
    share = largest_share(first[:, :500], a[:, :500], b.mT)
    yield Row(group, f"{m}x{k}x{n}", share < allowed, f"share {share:.2e}")
    differ = 0
    for _ in range(30):
        multiply(right, left, NOTHING, poisoned(1, n, m))
        again = multiply(left, right, NOTHING, poisoned(1, m, n))
        differ += int(not torch.equal(again, first))
    yield Row(group, "30 launches give the same bits", differ == 0, f"{differ} differ")
    integers = torch.randint(-511, 512, (1, 500, 64), device=_DEVICE).float()
    out = multiply(split(integers), split(integers), NOTHING, poisoned(1, 500, 500))
    exact = torch.matmul(integers.double(), integers.double().mT)
    yield Row(group, "integers are exact", torch.equal(out.double(), exact))


def _repair(name: str) -> Iterator[Row]:
    """Compare inf, nan and wide rows with float32's own product."""
    group, k = f"repair {name}", 200
    a, b = normal(2, 150, k), normal(1, k, 170, seed=1)
    a[1, 2, 5], a[1, 5, 7], a[1, 140, 9] = float("inf"), float("nan"), -float("inf")
    b[0, 5, 60] = 0.0  # inf times 0
    b[0, 9, 3] = float("inf")
    spread = 10.0 ** torch.linspace(-9, 9, k, device=_DEVICE)
    a[0] *= spread
    b[0, :, :40] /= spread[:, None]
    b[0, :, 90] *= 1e-33
    found, plain = PRODUCTS[name](a, b, None, 1.0, 1.0), torch.matmul(a, b)
    for what in ("isnan", "isposinf", "isneginf"):
        ours, theirs = getattr(found, what)(), getattr(plain, what)()
        detail = f"{int((ours != theirs).sum())} differ"
        yield Row(group, what, bool(theirs.any()) and torch.equal(ours, theirs), detail)
    exact = torch.matmul(a.double(), b.double())
    scale = torch.matmul(a.double().abs(), b.double().abs())
    fits = plain.isfinite() & (exact.abs() > 1e-36)
    share = float(((found - exact).abs() / scale)[fits].max())
    theirs_share = float(((plain - exact).abs() / scale)[fits].max())
    detail = f"share {share:.2e}, torch {theirs_share:.2e}"
    yield Row(group, "wide rows", share < 1e-6, detail)


def _nearest() -> Iterator[Row]:
    for n, d, k in ((1000, 5, 3), (4097, 128, 1024), (300, 200, 1000), (20000, 64, 130)):
        x, centres = normal(n, d), normal(k, d, seed=1)
        norms = centres.square().sum(1)
        found, values = launch.run_nearest(
            launch.run_split(x[None]), launch.run_split(centres[None]), norms
        )
        exact = norms.double() - 2 * torch.matmul(x.double(), centres.double().T)
        best = exact.min(1).values
        excess = float((exact.gather(1, found[:, None])[:, 0] - best).max() / norms.max())
        error = float((values - best).abs().max() / norms.max())
        detail = f"excess {excess:.1e}, error {error:.1e} of the largest norm"
        yield Row("nearest", f"{n}x{d} of {k}", max(excess, error) < 1e-6, detail)
        twice = nearest_centres(x, torch.cat((centres, centres)))
        yield Row("nearest", f"{n}x{d}: the first among equals", bool((twice.indices < k).all()))


if __name__ == "__main__":
    main()
