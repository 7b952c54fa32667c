"""The cases of record of extended precision, each beside cuBLAS in float32.

Every plan is tried first; the fastest that passed the checks is then timed for the record, beside
the baseline in its fastest layout. What a case says of the operands holds for both: with ``split
inputs`` the halves are given, ``from fp32`` has the split inside.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from itertools import product
from typing import cast

import torch

from kernels.bench import POLICY, SCOUTING, Contest, Turns, relative_error, settle
from kernels.errors import NasError
from kernels.extended_precision import checks, launch, plan
from kernels.extended_precision.nearest import nearest_centres
from kernels.extended_precision.plan import GemmPlan
from kernels.extended_precision.portable import TILES, run_portable_gemm, run_repair
from kernels.extended_precision.split import SplitMatrix
from kernels.timing import Call, JsonValue, TimingPolicy, cold_sets

SYSTEM = "extended_precision"
BASELINE = "cuBLAS fp32, TF32 off"
_DEVICE = "cuda"
_POLICY = replace(POLICY, max_seconds=15.0)  # 20 products 8192^3 of cuBLAS take half a second
_GEMMS = (
    # batch, m, n, k, and the same in words
    (1, 4096, 4096, 4096, "gemm M4096 N4096 K4096"),
    (1, 8192, 8192, 8192, "gemm M8192 N8192 K8192"),
    (1, 16384, 1024, 1024, "gemm M16384 N1024 K1024"),
    (1, 1024, 16384, 4096, "gemm M1024 N16384 K4096"),
    (64, 512, 512, 512, "bmm 64 of M512 N512 K512"),
)
_KMEANS = (1 << 20, 128, 1024)
_DEPTHS = (64, 256, 2048, 16384)
_KINDS = ("U(-1,1)", "U(0,1)", "N(0,1)", "rows 10^-6..6")

RULE = "chosen"
"""The plan that a user gets, which ``plan.choose`` takes."""


def bench(
    only: str = "",
    *,
    commit: str = "",
    plans: Collection[str] | None = None,
    policy: TimingPolicy = _POLICY,
    scouting: TimingPolicy = SCOUTING,
) -> list[JsonValue]:
    """Measure the cases of record on torch's current GPU.

    Args:
        only: measure the cases whose names contain this.
        commit: of the code, for the records.
        plans: names of plans that may be used, see ``plan_names``; None takes all.
        policy: how to time for the record.
        scouting: how to find the fastest plan.

    Returns:
        One record per case, see ``kernels/results``; ``plan`` is the one that ran, ``plans_us``
        has what each took when they were tried.

    Raises:
        NasError: no plan is left.
    """
    names = [name for name in plan_names() if plans is None or name in plans]
    if not names:
        raise NasError("No plan of the extended-precision product is left to be timed.")
    records: list[JsonValue] = []
    with _exact_float32():
        for case, make in _cases():
            if only not in case:
                continue
            how = {"policy": policy, "scouting": scouting}
            records.append(settle(SYSTEM, case, make(names), commit=commit, **how))
    return records


def case_names() -> list[str]:
    """Return the names of the cases of record."""
    return [name for name, _ in _cases()]


def plan_names() -> list[str]:
    """Return the plans of this GPU: the Hopper kernel's, and the tiles of the Triton kernel."""
    hopper = torch.cuda.get_device_capability() == launch.HOPPER
    tiles = [f"portable {tile.rows}x{tile.columns}" for tile in TILES]
    return [*((RULE, *plan.VARIANTS) if hopper else ()), *tiles]


def compile_kernels() -> None:
    """Compile every CUDA kernel that the cases and the checks use; needs no GPU."""
    jobs: list[Callable[[], object]] = [
        partial(launch.compile_gemm, chosen) for chosen in (*plan.VARIANTS.values(), plan.PAPER)
    ]
    jobs.append(partial(launch.compile_gemm, plan.NEAREST, nearest=True))
    jobs.append(partial(launch.compile_probe, launch.HOPPER))
    depths = (0, 128, 512, 1024, 2048, 4096, 8192)
    for k, residual_bits, aligned in product(depths, (0, 11), (True, False)):
        split = plan.split_plan(k, residual_bits=residual_bits, aligned=aligned)
        jobs.append(partial(launch.compile_split, split, launch.HOPPER))
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(job) for job in jobs]:
            done.result()


def check_kernels(say: Callable[[str], None] = lambda text: None) -> list[dict[str, JsonValue]]:
    """Return what the checks found, see ``checks``: a row each.

    Args:
        say: told of each group at the end.
    """
    return [asdict(row) for row in checks.check_all(say)]


def sound_plans(rows: Sequence[Mapping[str, JsonValue]]) -> list[str]:
    """Return the plans of which every check holds."""
    failed = {row["group"] for row in rows if not row["passed"]}

    def needed(name: str) -> set[str]:
        if name == RULE:
            return {f"product {name}" for name, one in plan.VARIANTS.items() if one in plan.RULE}
        return {name if name.startswith("portable") else f"product {name}"}

    return [name for name in plan_names() if not failed & {*needed(name), "split"}]


def accuracy(plans: Collection[str] | None = None) -> list[JsonValue]:
    """Return the errors of each plan beside cuBLAS float32's own, for the issue's distributions.

    Relative in the Frobenius norm, and the largest as a share of |a| |b|; against float64.
    """
    rows: list[JsonValue] = []
    with _exact_float32():
        for kind, k in product(_KINDS, _DEPTHS):
            a, b = _drawn(kind, 512, k, 512)
            theirs = _errors(torch.matmul(a, b), a, b)
            for name in plan_names():
                if plans is not None and name not in plans:
                    continue
                left, right = _split(name, a[None]), _split(name, b.T[None])
                ours = _errors(_multiply(name, left, right)[0], a, b)
                rows.append(
                    {
                        "plan": name,
                        "distribution": kind,
                        "k": k,
                        "frobenius": ours[0],
                        "frobenius_cublas": theirs[0],
                        "share": ours[1],
                        "share_cublas": theirs[1],
                    }
                )
    return rows


@contextmanager
def _exact_float32() -> Iterator[None]:
    matmul = torch.backends.cuda.matmul
    saved = matmul.allow_tf32
    matmul.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32 = saved


def _cases() -> Iterator[tuple[str, Callable[[Sequence[str]], Contest]]]:
    for batch, m, n, k, words in _GEMMS:
        for given in ("split inputs", "from fp32"):
            case = f"{words} {given}"
            yield case, partial(_gemm, (batch, m, n, k), given == "split inputs")
    case = f"kmeans assignment {_KMEANS[0]}x{_KMEANS[1]} k{_KMEANS[2]}"
    yield case, _kmeans


def _gemm(shape: tuple[int, int, int, int], given: bool, names: Sequence[str]) -> Contest:
    batch, m, n, k = shape
    set_bytes = 4 * batch * (m * k + k * n + m * n)
    sets = [(_normal(batch, m, k), _normal(batch, k, n)) for _ in range(cold_sets(set_bytes))]
    outs = [torch.empty(batch, m, n, device=_DEVICE) for _ in sets]
    operands: dict[tuple[bool, int], list[tuple[SplitMatrix, SplitMatrix]]] = {}
    ours: Turns = {}
    for name in names:
        run: Callable[..., object] = partial(_from_float32, name)
        pairs: Sequence[tuple[object, object]] = sets
        if given:
            run, wants = partial(_multiply, name), _wants(name)
            if wants not in operands:
                operands[wants] = [(_split(name, a), _split(name, b.mT)) for a, b in sets]
            pairs = operands[wants]
        ours[name] = [partial(run, *pair, out) for pair, out in zip(pairs, outs, strict=True)]

    def error(name: str) -> float:
        a, b = sets[0]
        found = _from_float32(name, a, b, outs[0])
        rows = slice(0, 256)
        return relative_error(found[:, rows], torch.matmul(a[:, rows].double(), b.double()))

    return Contest(BASELINE, ours, _layouts(sets, outs), error)


def _layouts(
    sets: Sequence[tuple[torch.Tensor, torch.Tensor]], outs: Sequence[torch.Tensor]
) -> Turns:
    """Return the baseline on operands stored as they are and transposed."""
    found: Turns = {}
    for left, right in product((False, True), repeat=2):
        calls = []
        for (a, b), out in zip(sets, outs, strict=True):
            x = a.mT.contiguous().mT if left else a
            y = b.mT.contiguous().mT if right else b
            calls.append(partial(torch.bmm, x, y, out=out))
        found[f"{'T' if left else 'N'}{'T' if right else 'N'}"] = calls
    return found


def _kmeans(names: Sequence[str]) -> Contest:
    n, d, k = _KMEANS
    x, centres = _normal(n, d), _normal(k, d)

    def ours() -> object:
        norms = centres.square().sum(1)
        return launch.run_nearest(launch.run_split(x[None]), launch.run_split(centres[None]), norms)

    def chunked(rows: int, nearest: Callable[[torch.Tensor], torch.Tensor]) -> object:
        return torch.cat([nearest(part) for part in torch.split(x, rows)])

    def by_distances(part: torch.Tensor) -> torch.Tensor:
        return torch.cdist(part, centres).argmin(1)

    def by_products(part: torch.Tensor) -> torch.Tensor:
        norms = centres.square().sum(1)
        return torch.addmm(norms, part, centres.T, alpha=-2.0).argmin(1)

    baselines: Turns = {
        f"{name}, {rows} rows": [partial(chunked, rows, way)]
        for name, way in (("cdist+argmin", by_distances), ("addmm+argmin", by_products))
        for rows in (1 << 14, 1 << 16, 1 << 18)
    }

    def error(name: str) -> float:
        part = x[:100_000].double()
        exact = (part.square().sum(1)[:, None] - 2 * part @ centres.double().T) + (
            centres.double().square().sum(1)
        )
        found = nearest_centres(x[:100_000], centres).indices
        return float((exact.gather(1, found[:, None])[:, 0] / exact.min(1).values).max() - 1)

    # One set: the points alone are half a gigabyte.
    calls: list[Call] = [ours, ours]
    baselines = {name: [*turn, *turn] for name, turn in baselines.items()}
    what = "faster of torch.cdist+argmin and addmm+argmin, chunked, fp32"
    return Contest(what, {"nearest": calls}, baselines, error)


def _wants(name: str) -> tuple[bool, int]:
    """Return whether a plan's operands are swizzled, and their residual scale."""
    if name == RULE:
        return True, 0
    chosen = plan.VARIANTS.get(name)
    return (False, 0) if chosen is None else (True, chosen.residual_bits)


def _split(name: str, x: torch.Tensor) -> SplitMatrix:
    swizzled, residual_bits = _wants(name)
    return launch.run_split(x, residual_bits, swizzled=swizzled)


def _multiply(
    name: str, a: SplitMatrix, b: SplitMatrix, out: torch.Tensor | None = None
) -> torch.Tensor:
    chosen: GemmPlan | None = plan.VARIANTS.get(name)
    if chosen is not None or name == RULE:
        return run_repair(a, b, launch.run_gemm(a, b, plan=chosen, out=out))
    tile = next(tile for tile in TILES if name == f"portable {tile.rows}x{tile.columns}")
    return run_repair(a, b, run_portable_gemm(a, b, tile=tile, out=out))


def _from_float32(name: str, a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    return _multiply(name, _split(name, a), _split(name, b.mT), out)


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, device=_DEVICE)


def _drawn(kind: str, m: int, k: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator(_DEVICE).manual_seed(m + k + n)
    uniform = partial(torch.rand, generator=generator, device=_DEVICE)
    gaussian = partial(torch.randn, generator=generator, device=_DEVICE)
    if kind == "U(-1,1)":
        return 2 * uniform(m, k) - 1, 2 * uniform(k, n) - 1
    if kind == "U(0,1)":
        return uniform(m, k), uniform(k, n)
    if kind == "N(0,1)":
        return gaussian(m, k), gaussian(k, n)
    a, b = gaussian(m, k), gaussian(k, n)
    return a * 10.0 ** (12 * uniform(m, 1) - 6), b * 10.0 ** (12 * uniform(1, n) - 6)


def _errors(found: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> tuple[float, float]:
    exact = torch.matmul(a.double(), b.double())
    wrong = (found.double() - exact).abs()
    share = wrong / torch.matmul(a.double().abs(), b.double().abs())
    return cast("float", (wrong.norm() / exact.norm()).item()), cast("float", share.max().item())
