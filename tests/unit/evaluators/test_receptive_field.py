"""The receptive field's worked numbers (notes on 3DRF, section 7) and properties."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import product
from math import inf, log

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evaluators.cost import analytic_cost
from evaluators.proxies.receptive_field import (
    ReceptiveField,
    channel_dependencies,
    channel_field,
    fields,
    mean_fields,
    receptive_field,
)
from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.architecture.graph import Value
from search_spaces.builder import NetworkBuilder
from search_spaces.ops import Input
from search_spaces.space import DataSpec
from search_spaces.zoo.nas_bench_201 import EDGES, nas_bench_201
from tests.networks import (
    Interpreter,
    chain,
    mobilenet,
    raw_graphs,
    resnet18,
    resnet50,
    rewritten,
    vgg,
)

CIFAR = DataSpec((3, 32, 32), 10)


# A. Recursion of the field.


def test_vgg16_field_after_every_layer() -> None:
    reached = fields(vgg())[1:]
    printed = [3, 5, 6, 10, 14, 16, 24, 32, 40, 44, 60, 76, 92, 100, 132, 164, 196, 212]
    assert [item.height for item in reached] == printed
    assert [item.width for item in reached] == printed
    assert reached[-1].jump == (32, 32)


@pytest.mark.parametrize(
    ("architecture", "field"),
    [
        (resnet18(), 435),
        (resnet50(stride_on=1), 483),
        (resnet50(stride_on=3), 427),
        (mobilenet(), 159),
        (vgg(), 212),
        (chain((3, 32, 32), "conv 8 k3", "conv 8 k3 d2", "conv 8 k3 d4"), 15),
    ],
    ids=["resnet18", "resnet50 1x1", "resnet50 3x3", "mobilenet", "vgg16", "dilated"],
)
def test_field_of_the_last_feature_map(architecture: Architecture, field: int) -> None:
    score = receptive_field(architecture)
    assert (score.height, score.width) == (field, field)


def test_parameters_of_the_classics() -> None:
    """The networks above are the published ones: parameters as torchvision gives them."""
    assert resnet18().params == 11_689_512
    assert resnet50(stride_on=3).params == resnet50(stride_on=1).params == 25_557_032
    assert mobilenet().params == 3_217_226


# B. One block, 64 -> 128 on 16 x 16.


@pytest.mark.parametrize(
    ("ops", "params", "volume", "gain"),
    [
        (["conv 128 k3"], 73_728, 576, "6.356"),
        (["conv 64 k3 g64", "conv 128"], 8_768, 576, "6.356"),
        (["conv 64 k3 g64", "conv 128 g2"], 4_672, 288, "5.663"),
        (["conv 64 k3 g64", "conv 128 g4"], 2_624, 144, "4.970"),
        (["conv 128 k3 g4"], 18_432, 144, "4.970"),
        (["conv 64 k3 g64"], 576, 9, "2.197"),
        (["conv 64 k3 g64", "sliding 128 cg2"], 4_672, 288, "5.663"),
        (["conv 64 k3 g64", "sliding 128 cg4 co0.25"], 2_624, 144, "4.970"),
    ],
)
def test_blocks_from_64_to_128(ops: list[str], params: int, volume: int, gain: str) -> None:
    architecture = chain((64, 16, 16), *ops)
    score = receptive_field(architecture)
    last = architecture.nodes[-1]
    reached = fields(architecture)[-1]
    assert analytic_cost(architecture).params == params
    assert reached.height * reached.width * last.facts.reach.channels == volume
    assert f"{score.gain:.3f}" == f"{log(volume):.3f}" == gain


# C. Channel field of stacked 64 -> 64 layers.


@pytest.mark.parametrize(
    ("ops", "printed"),
    [
        (["conv 64 g4"], [".25", ".25", ".25", ".25"]),
        (["conv 64 g4", "shuffle g4"], [".25", "1", "1", "1"]),
        (["sliding 64 cg4 co0.5"], [".25", "1", "1", "1"]),
        (["sliding 64 cg4 co0.5 block"], [".25", ".375", ".5", ".625"]),
        (["sliding 64 cg8 co0.5"], [".125", ".5625", "1", "1"]),
        (["sliding 64 cg8 co0.75"], [".125", ".344", ".781", "1"]),
        (["sliding 64 cg2 co0.5 block"], [".5", ".75", "1", "1"]),
        (["conv 64"], ["1", "1", "1", "1"]),
        (["conv 64 k3 g64"], [".016", ".016", ".016", ".016"]),
    ],
)
def test_mean_channel_field_of_stacks(ops: list[str], printed: list[str]) -> None:
    shares = []
    for count in range(1, 5):
        stack = (ops * count)[: len(ops) * count]
        shares.append(channel_field(chain((64, 8, 8), *stack)) / 64)
    for share, text in zip(shares, printed, strict=True):
        assert round(share, len(text.partition(".")[2])) == float(text)


def test_channel_field_counts_from_a_reference_node() -> None:
    stack = chain((64, 8, 8), *["conv 64 g4", "shuffle g4"] * 2, "conv 64 g4")
    assert channel_field(stack, reference=0) == 64
    assert channel_field(stack, reference=2) == 64
    assert channel_field(stack, reference=4) == 16
    assert channel_field(stack, node=1, reference=0) == 16
    assert not channel_dependencies(stack, reference=4)[3].any()  # earlier than the reference


# D. NAS-Bench-201.


def _cells(operation: str) -> ReceptiveField:
    decisions = {f"edge{source}-{target}": operation for source, target in EDGES}
    architecture = nas_bench_201.replay(decisions, CIFAR).architecture
    return receptive_field(architecture, where=lambda node: "/cell" in node.scope)


@pytest.mark.parametrize(
    ("operation", "field", "layers", "scores"),
    [
        ("nor_conv_3x3", 231, 90, ("322.176", "509.666", "893.720")),
        ("nor_conv_1x1", 21, 90, ("311.916", "311.916", None)),
        ("skip_connect", 21, 0, ("0.000", "0.000", "0.000")),
        ("avg_pool_3x3", 231, 0, ("0.000", "0.000", "0.000")),
    ],
)
def test_nas_bench_201_of_one_operation(
    operation: str, field: int, layers: int, scores: tuple[str | None, ...]
) -> None:
    score = _cells(operation)
    assert (score.height, score.width, score.layers) == (field, field, layers)
    for value, printed in zip((score.gain, score.local, score.volume), scores, strict=True):
        assert printed is None or f"{value:.3f}" == printed


# E. The stage-level organizer over VGG-16.

WIDTHS = (64, 128, 256, 512, 512)
BASE = (2, 2, 3, 3, 3)


def _budgets(depths: Sequence[int]) -> tuple[int, int]:
    """Parameters and multiply-accumulates by arithmetic on the depths."""
    params = macs = 0
    channels, side = 3, 32
    for depth, width in zip(depths, WIDTHS, strict=True):
        for _ in range(depth):
            params += 9 * channels * width
            macs += 9 * channels * width * side**2
            channels = width
        side //= 2
    return params, macs


def _feasible() -> Iterator[tuple[int, ...]]:
    most = _budgets(BASE)
    for depths in product(range(1, 9), repeat=5):
        if sum(depths) > 20:
            continue
        params, macs = _budgets(depths)
        if params <= most[0] and macs <= most[1]:
            yield depths


def test_base_network_of_the_organizer() -> None:
    base = vgg()
    cost, score = analytic_cost(base), receptive_field(base)
    assert (cost.params, cost.macs) == (14_710_464, 313_196_544) == _budgets(BASE)
    assert f"{score.gain:.3f}" == "73.247"
    assert f"{score.volume:.3f}" == "144.055"
    assert score.height == 212


def _best(
    scored: list[tuple[float, int, tuple[int, ...]]],
) -> tuple[str, int, set[tuple[int, ...]]]:
    """Return the highest gain as printed, the fewest parameters that reach it, and the ties."""
    gain = max(item[0] for item in scored)
    top = [item for item in scored if item[0] > gain - 1e-9]
    params = min(item[1] for item in top)
    return f"{gain:.3f}", params, {item[2] for item in top if item[1] == params}


def test_the_organizer_finds_the_printed_depths() -> None:
    scored = []
    for depths in _feasible():
        architecture = vgg(depths)
        params, macs = _budgets(depths)
        assert (architecture.params, architecture.macs) == (params, macs)
        scored.append((receptive_field(architecture).gain, params, depths))
    same_depth = [item for item in scored if sum(item[2]) == sum(BASE)]
    assert len(same_depth) == 103
    # Layers of the last two stages see the whole image and are of one width: they tie.
    assert _best(same_depth) == ("74.244", 13_936_320, {(1, 1, 6, 1, 4), (1, 1, 6, 2, 3)})
    assert _best(scored) == ("77.996", 14_526_144, {(1, 5, 2, 1, 5)})


# F. Properties.

thorough = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

_LAYERS = st.sampled_from(
    [
        *("conv 8 k3 bn relu", "conv 16 k5", "conv 8 k3 s2 bn", "conv 8 k3 g2", "conv 8"),
        *(
            "conv 8 k3 d2",
            "sliding 8 cg2",
            "sliding 16 cg4 co0.25",
            "maxpool k2 s2",
            "avgpool k3 p1",
        ),
        *("conv 8 k1x5", "shuffle g2", "dropout p0.2"),
    ]
)


def _with_few_strides(ops: list[str]) -> list[str]:
    strided = [i for i, op in enumerate(ops) if "s2" in op]
    return ["conv 8 k3", *(op for i, op in enumerate(ops) if i not in strided[4:])]


stacks = st.lists(_LAYERS, max_size=8).map(_with_few_strides)


def _scores(architecture: Architecture) -> tuple[float, float, float]:
    score = receptive_field(architecture)
    return score.gain, score.volume, score.local


def _stack(side: int, ops: list[str]) -> Architecture:
    return chain((3, side, side), *ops)


@thorough
@given(stacks, st.integers(48, 96), st.integers(0, 64))
def test_a_larger_image_never_lowers_a_score(ops: list[str], side: int, more: int) -> None:
    small, large = _stack(side, ops), _stack(side + more, ops)
    for low, high in zip(_scores(small), _scores(large), strict=True):
        assert high >= low - 1e-9


@thorough
@given(stacks, st.sampled_from(["conv 8 k3", "conv 4", "conv 8 k3 g4", "sliding 8 cg2"]))
def test_another_layer_never_lowers_a_score(ops: list[str], more: str) -> None:
    before, after = _scores(_stack(96, ops)), _scores(_stack(96, [*ops, more]))
    assert all(high >= low - 1e-9 for low, high in zip(before, after, strict=True))


@thorough
@given(stacks)
def test_scores_are_the_sums_of_their_definitions(ops: list[str]) -> None:
    """R3.1 to R3.5 again, written out for a chain."""
    architecture = _stack(64, ops)
    r, j, q = [1, 1], [1, 1], [1, 1]
    gain = volume = local = 0.0
    for node in architecture.nodes[1:]:
        op = node.op
        kernel, dilation = getattr(op, "kernel", (1, 1)), getattr(op, "dilation", (1, 1))
        stride, before = getattr(op, "stride", (1, 1)), list(q)
        for axis in (0, 1):
            r[axis] += dilation[axis] * (kernel[axis] - 1) * j[axis]
            j[axis] *= stride[axis]
            q[axis] = min(r[axis], 64)
        if op.kind in ("conv", "sliding"):
            c = architecture.nodes[node.inputs[0]].shape[0] // getattr(
                op, "groups", getattr(op, "cg", 1)
            )
            gain += log(c) + log(q[0] / before[0]) + log(q[1] / before[1])
            volume += log(c * q[0] * q[1])
            local += log(c * kernel[0] * kernel[1])
    assert _scores(architecture) == pytest.approx((gain, volume, local))


def test_depthwise_earns_nothing_for_channels() -> None:
    depthwise = receptive_field(chain((64, 16, 16), "conv 64 g64"))
    assert (depthwise.gain, depthwise.layers) == (0.0, 1)


@pytest.mark.parametrize("groups", [2, 4, 8])
def test_permuting_output_channels_leaves_the_channel_field(groups: int) -> None:
    """A shuffle behind the last layer permutes its output channels."""
    plain = chain((16, 8, 8), "sliding 16 cg4", "sliding 16 cg4 co0.25")
    moved = Architecture.parse(f"{plain.text}; shuffle g{groups}")
    assert channel_field(moved) == channel_field(plain)


@thorough
@given(raw_graphs(), st.randoms(use_true_random=False))
def test_dead_branches_and_order_change_nothing(output: Value, rng: random.Random) -> None:
    first = Architecture.freeze(output)
    second = Architecture.freeze(rewritten(output, rng))
    assert receptive_field(first) == pytest.approx(receptive_field(second), abs=1e-9)


@thorough
@given(raw_graphs())
def test_random_graphs_have_fields_and_costs(output: Value) -> None:
    architecture = Architecture.freeze(output)
    score = receptive_field(architecture)
    reached = fields(architecture)
    means = mean_fields(architecture)
    if not architecture.live:
        assert score == ReceptiveField(-inf, -inf, -inf, 0, 0, 0)
        return
    assert score.layers == analytic_cost(architecture).layers
    assert score.height == max(item.height for item in reached)
    for mean, field in zip(means, reached, strict=True):
        if field.jump != (0, 0):
            assert mean[0] <= field.height + 1e-9
            assert mean[1] <= field.width + 1e-9


@settings(thorough, max_examples=40)
@given(raw_graphs(steps=8), st.integers(0, 99))
def test_channel_dependencies_hold_numerically(output: Value, seed: int) -> None:
    """No channel moves that the matrices say cannot; on graphs of everything."""
    architecture = Architecture.freeze(output)
    if not architecture.live or not architecture.inputs:
        return
    matrix = channel_dependencies(architecture)[-1]
    number = next(i for i, node in enumerate(architecture.nodes) if isinstance(node.op, Input))
    matrix = channel_dependencies(architecture, number)[-1]
    run = Interpreter(output, seed).eval()
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(1, 4, 5, 5, generator=generator, dtype=torch.float64)
    moved = base.repeat(4, 1, 1, 1)
    for channel in range(4):
        moved[channel, channel] += torch.randn(5, 5, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        difference = (run(moved) - run(base)).abs().amax(dim=(2, 3)) > 1e-12
    assert not (difference.numpy().T & ~matrix).any()


# Edge cases (section 8).


def test_unequal_axes_keep_two_recursions() -> None:
    score = receptive_field(chain((3, 16, 64), "conv 8 k3x5", "conv 8 k1x3 s1x2", "conv 8 k3"))
    assert (score.height, score.width) == (5, 11)
    clipped = receptive_field(chain((4, 4, 64), "conv 8 k9"))
    assert clipped.volume == pytest.approx(log(4 * 4 * 9))


def test_a_strided_pointwise_layer_keeps_the_field() -> None:
    architecture = chain((3, 32, 32), "conv 8 k3", "conv 8 s2", "conv 8 k3")
    assert [item.height for item in fields(architecture)] == [1, 3, 3, 7]
    assert receptive_field(architecture).layers == 3


def test_layers_behind_global_pooling_earn_their_channels() -> None:
    architecture = chain((3, 32, 32), "conv 8 k3", "gap", "flatten", "linear 10")
    score = receptive_field(architecture)
    assert score.gain == pytest.approx(log(27) + log(8))
    assert score.volume == pytest.approx(log(27) + log(8 * 32 * 32))
    assert (score.height, score.layers) == (3, 2)


def test_a_convolution_behind_global_pooling_is_no_feature_map() -> None:
    architecture = chain((3, 32, 32), "conv 8 k3", "gap", "conv 8 k3", "flatten", "linear 10")
    score = receptive_field(architecture)
    assert (score.height, score.width) == (3, 3)


def test_squeeze_excitation_joins_the_whole_image_to_the_map() -> None:
    net = NetworkBuilder((8, 32, 32))
    x = net.conv(net.input, 8, kernel=3)
    architecture = net.freeze(net.conv(net.squeeze_excite(x, 4), 8, kernel=3))
    reached = fields(architecture)
    assert reached[-1].jump == (1, 1)
    assert (reached[-1].height, reached[-1].width) == (34, 34)


def test_joins_of_different_strides_are_refused_with_the_place() -> None:
    net = NetworkBuilder((4, 8, 8))
    short = net.conv(net.input, 4, kernel=3, stride=1, padding=0, norm=None)
    short = net.max_pool(short, kernel=3, stride=1)
    long = net.conv(net.input, 4, kernel=3, stride=2)
    assert short.shape == long.shape
    architecture = (
        net.freeze(net.add(short, long, name="join")) if short.shape == long.shape else None
    )
    assert architecture is not None
    with pytest.raises(NasError, match=r"^join: .*strides"):
        receptive_field(architecture)


def test_an_absent_value_joins_any_stride() -> None:
    """A zero of a concatenation has no field and no jump of its own."""
    net = NetworkBuilder((4, 8, 8))
    x = net.conv(net.input, 4, kernel=3, stride=2)
    with_zero = net.freeze(net.concat([x, net.zero((4, 4, 4))]))
    assert receptive_field(with_zero) == receptive_field(net.freeze(x))
    assert fields(with_zero)[-1] == fields(net.freeze(x))[-1]
    assert mean_fields(with_zero)[-1] == (3.0, 3.0)


def test_nothing_live_scores_minus_infinity() -> None:
    net = NetworkBuilder((3, 8, 8))
    dead = net.freeze(net.classifier(net.conv(net.zero((3, 8, 8)), 4), 10))
    assert receptive_field(dead) == ReceptiveField(-inf, -inf, -inf, 0, 0, 0)


def test_paths_have_equal_weight_in_the_mean_field() -> None:
    net = NetworkBuilder((4, 32, 32))
    x = net.input
    for _ in range(3):
        x = net.add(x, net.conv(x, 4, kernel=3))
    assert fields(net.freeze(x))[-1].height == 7
    assert mean_fields(net.freeze(x))[-1] == (4.0, 4.0)  # a residual halves the growth
    branchy = net.add(net.input, net.conv(net.input, 4, kernel=3), net.conv(net.input, 4, kernel=7))
    assert mean_fields(net.freeze(branchy))[-1] == pytest.approx(((1 + 3 + 7) / 3,) * 2)


def test_where_selects_the_layers_that_are_summed() -> None:
    architecture = vgg()
    whole = receptive_field(architecture)
    parts = [
        receptive_field(architecture, where=lambda node, side=side: node.shape[1] == side)
        for side in (32, 16, 8, 4, 2)
    ]
    assert sum(item.gain for item in parts) == pytest.approx(whole.gain)
    assert sum(item.layers for item in parts) == whole.layers == 13
    assert {item.height for item in parts} == {212}


def test_networks_of_tokens_have_channel_dependencies() -> None:
    text = (
        "input 4x8; linear 8 nobias; linear 8 nobias @0; linear 8 nobias @0; "
        "attention h2 @1,2,3; add @0,4; norm ln; linear 16 gelu"
    )
    matrix = channel_dependencies(Architecture.parse(text))[-1]
    np.testing.assert_array_equal(matrix, np.ones((4, 4), dtype=np.bool_))
