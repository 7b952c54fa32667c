"""The cases of record of Shfl-BW, each beside what a user would pick instead.

Every plan is tried first; the fastest that passed the checks is then timed for the record, beside
the baseline in its fastest layout. Weights are pruned and packed outside, what is transposed is
inside. Masks are what our pruner keeps of N(0, 1) weights.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product

import torch

from kernels.bench import POLICY, SCOUTING, Contest, Turns, relative_error, settle
from kernels.errors import NasError
from kernels.shfl_bw import bench_layers, checks
from kernels.shfl_bw.bench_weights import DENSITY, HALF, Weight, normal, pruned
from kernels.shfl_bw.launch import (
    reduce_kernel,
    run_spmm,
    run_transpose,
    spmm_kernel,
    transpose_kernel,
)
from kernels.shfl_bw.plan import Plan
from kernels.shfl_bw.variants import variants
from kernels.timing import Call, JsonValue, TimingPolicy, cold_sets

SYSTEM = "shfl_bw"
_PRODUCTS = (
    # out, tokens, in, V
    (4096, 4096, 4096, 128),
    (4096, 4096, 4096, 64),
    (4096, 4096, 4096, 32),
    (11008, 4096, 4096, 64),
    (4096, 6400, 2048, 64),
    (4096, 6400, 1024, 64),
    (4096, 960, 1024, 64),
    (1024, 960, 4096, 64),
)


@dataclass(frozen=True, slots=True)
class Case:
    """A case, and what each plan would run.

    Attributes:
        v: rows of a group: which plans can be tried.
        baseline: what the baseline is.
        ours: one function per buffer set, for a plan.
        baselines: name to the same.
        beside: name to the same, timed and kept with the record.
        error: computes the relative error of a plan against float64.
    """

    v: int
    baseline: str
    ours: Callable[[Plan], Sequence[Call]]
    baselines: Turns
    beside: Turns
    error: Callable[[Plan], float]


def bench(
    only: str = "",
    *,
    commit: str = "",
    plans: Collection[str] | None = None,
    policy: TimingPolicy = POLICY,
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
        has what each took when they were tried, ``roofline_us`` see ``with_ideal``.

    Raises:
        NasError: no plan is left for a case.
    """
    records: list[JsonValue] = []
    for case, make in _cases():
        if only not in case:
            continue
        contest, how = _contest(case, make(), plans), {"policy": policy, "scouting": scouting}
        records.append(with_ideal(settle(SYSTEM, case, contest, commit=commit, **how)))
    return records


def with_ideal(record: JsonValue) -> JsonValue:
    """Return a record with the ideal: the baseline's time times the density.

    That is what products take where tensor cores alone count.
    """
    assert isinstance(record, dict)
    baseline_us = record["baseline_us"]
    assert isinstance(baseline_us, float)
    return {**record, "roofline_us": DENSITY * baseline_us}


def _contest(name: str, case: Case, plans: Collection[str] | None) -> Contest:
    known = {
        name: plan
        for name, plan in variants().items()
        if plan.v == max(64, case.v) and (plans is None or name in plans)
    }
    if not known:
        raise NasError(f"No plan is left for {name}.")
    ours: Turns = {name: case.ours(plan) for name, plan in known.items()}
    return Contest(
        case.baseline, ours, case.baselines, lambda plan: case.error(known[plan]), case.beside
    )


def case_names() -> list[str]:
    """Return the names of the cases of record."""
    return [name for name, _ in _cases()]


def plan_names() -> list[str]:
    """Return the plans that are tried."""
    return list(variants())


def compile_kernels() -> None:
    """Compile every kernel that the cases and the checks use; needs no GPU."""
    jobs: list[Callable[[], object]] = [
        *(partial(transpose_kernel, HALF, (9, 0), leaves=leaves) for leaves in (False, True)),
        *(
            partial(reduce_kernel, dtype, (9, 0), activation)
            for dtype in (HALF, torch.bfloat16)
            for activation in ("none", "gelu")
        ),
    ]
    for plan in variants().values():
        compiled = partial(spmm_kernel, plan, capability=(9, 0))
        jobs += [
            partial(compiled, dtype=HALF),
            partial(compiled, dtype=HALF, activation="gelu"),
            partial(compiled, dtype=torch.bfloat16, activation="gelu"),
            partial(compiled, dtype=HALF, convolution=True),
        ]
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(job) for job in jobs]:
            done.result()


def check_kernels(say: Callable[[str], None] = lambda text: None) -> list[dict[str, JsonValue]]:
    """Return what the checks found, see ``checks``: a row each.

    Args:
        say: told of each plan at the end.
    """
    names = [checks.TRANSPOSITION, *variants()]
    return [asdict(row) for row in checks.check_all(names, say)]


def sound_plans(rows: Sequence[Mapping[str, JsonValue]]) -> list[str]:
    """Return the plans of which every check holds."""
    failed = {row["group"] for row in rows if not row["passed"]}
    return [name for name in variants() if not failed & {name, checks.TRANSPOSITION}]


def _cases() -> Iterator[tuple[str, Callable[[], Case]]]:
    for m, n, k, v in _PRODUCTS:
        case = f"spmm M{m} N{n} K{k} s0.75 V{v}"
        yield case, partial(_product, m, n, k, v)
    for v in (64, 128):
        case = f"linear 4096 tokens 4096->4096 s0.75 V{v}"
        yield case, partial(_layers, bench_layers.linear, 4096, 4096, v)
    yield (
        "mlp 4096 tokens 4096-11008-4096 s0.75 V64",
        partial(_layers, bench_layers.mlp, 4096, 11008, 64),
    )
    for channels, size in ((128, 28), (256, 14), (512, 7)):
        case = f"conv3x3 {channels}->{channels} {size}x{size} B64 s0.75 V64"
        yield case, partial(_layers, bench_layers.convolution, channels, size, 64)


def _layers(make: Callable[[int, int, int], bench_layers.Layers], *sizes: int) -> Case:
    made = make(*sizes)
    return Case(sizes[2], made.baseline, made.ours, made.baselines, made.beside, made.error)


def _product(m: int, n: int, k: int, v: int) -> Case:
    weight = pruned(m, k, v)
    sets = cold_sets(2 * (m * k // 4 + k * n + m * n))
    weights = [weight.images() for _ in range(sets)]
    xs = [normal(k, n, seed=i) for i in range(sets)]
    outs = [x.new_empty(m, n) for x in xs]

    def ours(plan: Plan) -> list[Call]:
        return [
            partial(run_spmm, x, images, None, out_features=m, plan=plan, out=out)
            for x, images, out in zip(xs, weights, outs, strict=True)
        ]

    def error(plan: Plan) -> float:
        found = run_spmm(xs[0], weights[0], None, out_features=m, plan=plan)
        return relative_error(found, weight.dense().double() @ xs[0].double())

    beside: Turns = {"transposition of the input": [partial(run_transpose, x) for x in xs]}
    if m == n == k and v == 64:
        beside.update(_two_in_four(weight, xs))
    return Case(v, "cuBLAS fp16 dense", ours, _layouts(weight, xs, outs), beside, error)


def _layouts(weight: Weight, xs: Sequence[torch.Tensor], outs: Sequence[torch.Tensor]) -> Turns:
    """Return the dense product on operands stored as they are and transposed."""
    dense = weight.dense()
    found: Turns = {}
    for left, right in product((False, True), repeat=2):
        calls: list[Call] = []
        for x, out in zip(xs, outs, strict=True):
            a = dense.T.contiguous().T if left else dense.clone()
            b = x.T.contiguous().T if right else x
            calls.append(partial(torch.mm, a, b, out=out))
        found[f"{'T' if left else 'N'}{'T' if right else 'N'}"] = calls
    return found


def _two_in_four(weight: Weight, xs: Sequence[torch.Tensor]) -> Turns:
    """Return torch's product with 2 of 4 weights kept (density 0.5), where it works in a graph."""
    dense = weight.dense()
    fours = dense.view(len(dense), -1, 4)
    kept = torch.zeros_like(fours).scatter_(2, fours.abs().topk(2, dim=2).indices, 1.0)
    try:
        sparse = torch.sparse.to_sparse_semi_structured((fours * kept).view_as(dense))
        sparse @ xs[0]
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            sparse @ xs[0]
    except (RuntimeError, NotImplementedError):
        return {}
    return {"2:4 of torch, 50 %": [partial(torch.mm, sparse, x) for x in xs]}
