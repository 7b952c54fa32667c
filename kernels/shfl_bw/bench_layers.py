"""Whole layers for the bench: linear, MLP and convolution with everything that they take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn import functional as F

from kernels.bench import relative_error
from kernels.shfl_bw.bench_weights import Weight, normal, pruned
from kernels.shfl_bw.images import Images
from kernels.shfl_bw.launch import run_convolution, run_spmm, run_transpose
from kernels.shfl_bw.packed import fold
from kernels.shfl_bw.pattern import like_weight
from kernels.shfl_bw.plan import Plan
from kernels.shfl_bw.window import Window
from kernels.timing import Call, cold_sets

_TOKENS = 4096
_IMAGES = 64

Turns = dict[str, Sequence[Call]]
Function = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Layers:
    """What is timed; as in :class:`kernels.shfl_bw.bench.Case`."""

    baseline: str
    ours: Callable[[Plan], Sequence[Call]]
    baselines: Turns
    beside: Turns
    error: Callable[[Plan], float]


def linear(features: int, out: int, v: int) -> Layers:
    """Return a layer with bias, token-major at both ends."""
    weight = pruned(out, features, v)
    sets = cold_sets(2 * (_TOKENS * features + _TOKENS * out + out * features // 4))
    weights = [weight.images() for _ in range(sets)]
    xs = [normal(_TOKENS, features, seed=i) for i in range(sets)]
    bias = normal(out, seed=99)
    added = bias.float()

    def forward(plan: Plan, images: Images, x: torch.Tensor) -> torch.Tensor:
        y = run_spmm(run_transpose(x), images, added, out_features=out, plan=plan)
        return run_transpose(y, leaves=True)

    def ours(plan: Plan) -> list[Call]:
        return [partial(forward, plan, w, x) for w, x in zip(weights, xs, strict=True)]

    dense = [weight.dense() for _ in xs]
    calls: list[Call] = [
        partial(F.linear, x, matrix, bias) for x, matrix in zip(xs, dense, strict=True)
    ]

    def error(plan: Plan) -> float:
        exact = F.linear(xs[0].double(), dense[0].double(), bias.double())
        return relative_error(forward(plan, weights[0], xs[0]), exact)

    beside: Turns = {"one transposition": [partial(run_transpose, x) for x in xs]}
    return Layers("torch linear fp16", ours, {"linear": calls}, beside, error)


def mlp(features: int, hidden: int, v: int) -> Layers:
    """Return two layers with GELU between, token-major at both ends and feature-major inside."""
    up = pruned(hidden, features, v, scale=2.0 / features**0.5)
    down = pruned(features, hidden, v, scale=2.0 / hidden**0.5)
    folded = tuple(map(Weight, fold(up.packed, down.packed)))
    sets = cold_sets(2 * (2 * _TOKENS * features + features * hidden // 2))
    weights = [tuple(part.images() for part in folded) for _ in range(sets)]
    xs = [normal(_TOKENS, features, seed=i) for i in range(sets)]
    biases = normal(hidden, seed=98), normal(features, seed=99)
    # Rows of the first layer stay in packed order, so its bias is put into that order.
    first = biases[0][up.packed.rows.long()].float()
    second = biases[1].float()

    def forward(plan: Plan, images: Sequence[Images], x: torch.Tensor) -> torch.Tensor:
        h = run_spmm(
            run_transpose(x), images[0], first, out_features=hidden, activation="gelu", plan=plan
        )
        y = run_spmm(h, images[1], second, out_features=features, plan=plan)
        return run_transpose(y, leaves=True)

    def ours(plan: Plan) -> list[Call]:
        return [partial(forward, plan, w, x) for w, x in zip(weights, xs, strict=True)]

    dense = up.dense(), down.dense()

    def plain(x: torch.Tensor, w1: torch.Tensor, w2: torch.Tensor) -> torch.Tensor:
        return F.linear(F.gelu(F.linear(x, w1, biases[0])), w2, biases[1])

    compiled = torch.compile(plain)
    baselines: Turns = {"eager": [partial(plain, x, *dense) for x in xs]}
    compiled(xs[0], *dense)
    baselines["compiled"] = [partial(compiled, x, *dense) for x in xs]

    def error(plan: Plan) -> float:
        part = slice(0, 512)
        h = F.gelu(F.linear(xs[0][part].double(), dense[0].double(), biases[0].double()))
        exact = F.linear(h, dense[1].double(), biases[1].double())
        return relative_error(forward(plan, weights[0], xs[0])[part], exact)

    name = "torch linear+GELU+linear fp16, the faster of eager and compile"
    return Layers(name, ours, baselines, {}, error)


def convolution(channels: int, size: int, v: int) -> Layers:
    """Return a 3x3 convolution on (c, h, w, b) images; the conversion to and fro is beside."""
    window = Window((3, 3), (1, 1), (1, 1))
    weight = pruned(channels, 9 * channels, v)
    pixels = _IMAGES * size * size
    sets = cold_sets(4 * pixels * channels + 2 * channels * channels * 9 // 4)
    weights = [weight.images() for _ in range(sets)]
    images = [normal(_IMAGES, channels, size, size, seed=i) for i in range(sets)]
    turned = [x.permute(1, 2, 3, 0).contiguous() for x in images]
    outs = [torch.empty_like(x) for x in turned]
    run = partial(run_convolution, bias=None, window=window, out_features=channels)

    def ours(plan: Plan) -> list[Call]:
        return [
            partial(run, x, w, plan=plan, out=out)
            for x, w, out in zip(turned, weights, outs, strict=True)
        ]

    filters = like_weight(weight.dense(), (channels, channels, 3, 3))
    last = torch.channels_last
    calls: list[Call] = [
        partial(F.conv2d, x.to(memory_format=last), filters.to(memory_format=last), padding=1)
        for x in images
    ]

    def error(plan: Plan) -> float:
        # Patches and one product: cuDNN in float64 is slow.
        found = run(turned[0], weights[0], plan=plan)
        patches = window.unfold(images[0][:8].double())
        matrix = filters.flatten(1).double()
        exact = (matrix @ patches).view(channels, 8, size, size).permute(0, 2, 3, 1)
        return relative_error(found[..., :8], exact)

    def there_and_back(x: torch.Tensor) -> torch.Tensor:
        y = run_transpose(x.flatten(1)).view(-1, _IMAGES)
        return run_transpose(y, leaves=True)

    beside: Turns = {"layout there and back": [partial(there_and_back, x) for x in images]}
    return Layers("cuDNN fp16 channels-last", ours, {"cuDNN": calls}, beside, error)
