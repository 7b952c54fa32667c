"""The cases of record of dual-module inference, each beside what a user would pick instead.

Weights are cold: sets of them rotate beyond the cache. Thresholds are set so that a declared share
of the rows keeps its estimate, which the record says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from kernels.bench import (
    POLICY,
    SCOUTING,
    Case,
    Comparison,
    Turns,
    measure,
    relative_error,
)
from kernels.dual_module.calibrate import fit, set_ratio
from kernels.dual_module.launch import FFNStep, LSTMStep
from kernels.dual_module.linear import DualModuleFFN
from kernels.dual_module.plans import DENSE_PLANS, FFN_PLANS, LSTM_PLANS, Plan
from kernels.dual_module.recurrent import DualModuleLSTMCell
from kernels.timing import Call, JsonValue, TimingPolicy, cold_sets, time_interleaved

SYSTEM = "dual_module"
_HALF = torch.float16
_SAMPLES = 4096
_INPUTS = 40  # vectors that are timed in turn, since each has rows of its own that matter
_DECAY = 1.0  # of the inputs' spectrum: little modules live from correlated inputs


def bench(only: str = "", *, commit: str = "", policy: TimingPolicy = POLICY) -> list[JsonValue]:
    """Measure the cases of record; see :func:`kernels.bench.measure`."""
    return measure(SYSTEM, _cases(), only=only, commit=commit, policy=policy)


def case_names() -> list[str]:
    """Return the names of the cases of record."""
    return [name for name, _ in _cases()]


def _cases() -> Iterator[Case]:
    for hidden in (1500, 2048, 4096):
        name = f"lstm step h{hidden} ratio0.5"
        yield name, partial(_lstm, name, hidden)
    name = "ffn 4096-16384-4096 B1 inactive0.8"
    yield name, partial(_ffn, name)


def _lstm(case: str, hidden: int) -> Comparison:
    cell = DualModuleLSTMCell.of(nn.LSTMCell(hidden, hidden).cuda(), bits=4)
    xs, hs = _inputs(hidden, 1), _inputs(hidden, 2) / 4
    cs = torch.randn(_SAMPLES, hidden, device="cuda")
    fit(cell, lambda: cell(xs, (hs, cs)))
    sets = cold_sets(16 * hidden * hidden)
    set_ratio(cell, 0.5, lambda: cell(xs, (hs, cs)))
    halves, states = xs.half(), hs.half()
    new_h = torch.empty(hidden, dtype=_HALF, device="cuda")
    new_c = torch.empty(hidden, device="cuda")

    def calls(steps: Sequence[LSTMStep]) -> list[Call]:
        return [
            steps[i % sets].launch(halves[i], states[i], cs[i], new_h, new_c).run
            for i in range(_turns(sets))
        ]

    def made(plan: Plan, dense: bool) -> list[LSTMStep]:
        return [LSTMStep(cell, plan=plan, dense=dense) for _ in range(sets)]

    tried = {name: made(plan, False) for name, plan in LSTM_PLANS.items()}
    best = _fastest({name: calls(steps) for name, steps in tried.items()})
    ours = tried[best]

    def error() -> float:
        calls(ours)[0]()
        one = slice(0, 1)
        expected = cell(halves[one].float(), (states[one].float(), cs[one]))[1][0]
        return relative_error(new_c, expected.double())

    def figures() -> dict[str, JsonValue]:
        kept = _realised(calls(ours), [step.computed for step in ours], 4 * hidden)
        return {**kept, "plan": best}

    library = [nn.LSTM(hidden, hidden).cuda().half() for _ in range(sets)]

    def cudnn(i: int) -> object:
        state = states[i : i + 1], cs[i : i + 1].half()
        return library[i % sets](halves[i : i + 1], state)

    baselines: dict[str, Sequence[Call]] = {
        "cuDNN": [partial(cudnn, i) for i in range(_turns(sets))],
        **{f"own dense step, {name}": calls(made(p, True)) for name, p in DENSE_PLANS.items()},
    }
    baseline = "the better of cuDNN and our own dense step"
    moved = 16 * hidden * hidden
    return Comparison(case, baseline, calls(ours), baselines, moved, error, figures=figures)


def _ffn(case: str) -> Comparison:
    width, hidden = 4096, 16384
    first, second = nn.Linear(width, hidden).cuda(), nn.Linear(hidden, width).cuda()
    block = DualModuleFFN(first, second, bits=4)
    xs = _inputs(width, 3)
    fit(block, lambda: block.first(xs))
    set_ratio(block, 0.8, lambda: block.first(xs))
    sets = cold_sets(4 * width * hidden)
    lossless = [FFNStep(block, lossless=True) for _ in range(sets)]
    halves = xs.half()
    y = torch.empty(width, dtype=_HALF, device="cuda")
    pairs = [
        (first.weight.detach().half().clone(), second.weight.detach().half().clone())
        for _ in range(sets)
    ]
    biases = first.bias.detach().half(), second.bias.detach().half()

    def calls(steps: Sequence[FFNStep]) -> list[Call]:
        return [steps[i % sets].launch(halves[i], y).run for i in range(_turns(sets))]

    tried = {
        name: [FFNStep(block, plan=plan) for _ in range(sets)] for name, plan in FFN_PLANS.items()
    }
    best = _fastest({name: calls(steps) for name, steps in tried.items()})
    steps = tried[best]

    def dense(i: int) -> object:
        w1, w2 = pairs[i % sets]
        return F.linear(torch.relu_(F.linear(halves[i : i + 1], w1, biases[0])), w2, biases[1])

    def error() -> float:
        calls(steps)[0]()
        return relative_error(y, block(halves[:1].float())[0].double())

    def figures() -> dict[str, JsonValue]:
        kept = _realised(calls(steps), [step.computed for step in steps], hidden)
        return {**kept, "plan": best}

    baselines: dict[str, Sequence[Call]] = {
        "linear": [partial(dense, i) for i in range(_turns(sets))]
    }
    return Comparison(
        case,
        "cuBLAS fp16 two GEMVs",
        calls(steps),
        baselines,
        4 * width * hidden,
        error,
        beside={"lossless": calls(lossless)},
        figures=figures,
    )


def _fastest(tried: Turns) -> str:
    """Return the name of the plan that takes least."""
    with torch.no_grad():
        timings = time_interleaved(tried, device="cuda", policy=SCOUTING)
    return min(timings, key=lambda name: timings[name].median_us)


def _turns(sets: int) -> int:
    """Return how many calls, each with a vector of its own, use each set equally often."""
    return sets * max(1, _INPUTS // sets)


def _realised(
    calls: Sequence[Call], computed: Sequence[torch.Tensor], rows: int
) -> dict[str, JsonValue]:
    """Return which share of the rows kept its estimate in the calls; computed counts the others."""
    shares = []
    for i, call in enumerate(calls):
        call()
        shares.append(1 - int(computed[i % len(computed)].sum()) / rows)
    return {
        "kept_share": sum(shares) / len(shares),
        "kept_share_least": min(shares),
        "kept_share_most": max(shares),
    }


def _inputs(size: int, seed: int) -> torch.Tensor:
    """Return samples (n, size) whose covariance has eigenvalues i^-decay in a random basis."""
    generator = torch.Generator("cuda").manual_seed(seed)
    scale = torch.arange(1, size + 1, device="cuda") ** (-_DECAY / 2)
    x = torch.randn(_SAMPLES, size, generator=generator, device="cuda") * scale
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator, device="cuda")).Q
    made: torch.Tensor = x @ basis.T * (size / scale.square().sum()).sqrt()
    return made
