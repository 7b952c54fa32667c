"""Scores of fresh networks: formulas against values worked out by hand, and what must hold."""

from __future__ import annotations

from math import log

import pytest
import torch
from torch import nn

from evaluators.protocol import EvaluationError
from evaluators.proxies import statistics
from evaluators.proxies.curvature import weight_gradient
from evaluators.proxies.probe import Probe
from evaluators.proxies.untrained import SCORES, UntrainedEvaluator, _flow
from kernels.errors import UnknownNameError
from search_spaces.architecture import Architecture
from search_spaces.space import DataSpec
from search_spaces.zoo.nas_bench_201 import from_string, nas_bench_201

NET = Architecture.parse(
    "input 3x8x8; conv 8 k3 bn relu; conv 8 k3 g2 bn; add @1,2; conv 16 k3 s2 bn relu; gap; "
    "flatten; linear 4"
)
CPU = torch.device("cpu")


def test_entropy_of_equal_shares() -> None:
    assert float(statistics.entropy(torch.tensor([2.0, 2.0, 2.0, 2.0]))) == pytest.approx(log(4))
    assert float(statistics.entropy(torch.tensor([5.0, 0.0]))) == 0


def test_gradients_that_are_unlike_correlate_least() -> None:
    # Two rows with correlation c have eigenvalues 1 + c and 1 - c.
    apart = torch.tensor([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]])
    assert float(statistics.jacobian_correlation(apart)) == pytest.approx(-2, abs=1e-4)
    half = torch.tensor([[1.0, -1.0, 0.0], [1.0, 0.0, -1.0]])  # correlation 1/2
    expected = -(log(1.5) + 1 / 1.5 + log(0.5) + 2)
    assert float(statistics.jacobian_correlation(half)) == pytest.approx(expected, abs=1e-4)


def test_log_determinant_of_activation_codes() -> None:
    codes = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 1]], dtype=torch.bool)  # agree on 2 of 4 units
    kernel = statistics.code_kernel(codes)
    assert kernel.tolist() == [[4, 2], [2, 4]]
    assert float(statistics.log_determinant(kernel)) == pytest.approx(log(4 * 4 - 2 * 2), abs=1e-5)
    twice = statistics.code_kernel(codes.repeat(1, 2))  # more units that say the same rank higher
    assert float(statistics.log_determinant(twice)) == pytest.approx(log(48), abs=1e-5)
    equal = statistics.code_kernel(codes[:1].repeat(2, 1))
    assert -12 < float(statistics.log_determinant(equal)) < -9  # ln(16 * 2e-6): bad, yet finite


def test_spread_of_features() -> None:
    first = torch.tensor([1.0, -1.0, 1.0, -1.0])
    second = torch.tensor([1.0, 1.0, -1.0, -1.0])
    apart = torch.stack([first, second]).reshape(1, 2, 2, 2)
    assert float(statistics.feature_entropy(apart)) == pytest.approx(log(2))
    same = torch.stack([first, first]).reshape(1, 2, 2, 2)
    assert float(statistics.feature_entropy(same)) == pytest.approx(0, abs=1e-9)


def test_gain_of_a_block_that_doubles() -> None:
    signs = torch.tensor([[1.0, -1.0], [1.0, 1.0]]).reshape(1, 2, 1, 2)  # mean outer product: 1
    assert float(statistics.backward_gain(2 * signs, signs)) == pytest.approx(2)
    assert float(statistics.trainability(torch.tensor(1.0))) == pytest.approx(0, abs=1e-5)
    assert float(statistics.trainability(torch.tensor(2.0))) == pytest.approx(-0.5, abs=1e-5)


def test_steadiness_of_gradients() -> None:
    # The first weight: mean of |g| 2, deviation 1. The second never changes and is left out.
    gradients = torch.tensor([[1.0, 3.0], [3.0, 3.0]])
    assert float(statistics.gradient_steadiness(gradients)) == pytest.approx(log(2))


def test_deciles_of_a_spectrum() -> None:
    assert float(statistics.decile_entropy(torch.ones(20))) == pytest.approx(log(9))
    spectrum = torch.arange(11.0)  # its deciles are 1 to 9
    shares = [k / 45 for k in range(1, 10)]
    expected = -sum(p * log(p) for p in shares)
    assert float(statistics.decile_entropy(spectrum)) == pytest.approx(expected)


def test_flow_of_two_layers_by_hand() -> None:
    probe = Probe(Architecture.parse("input 1x2x2; conv 2; gap; flatten; linear 1"), 0, CPU)
    first, second = probe.layers()
    with torch.no_grad():
        first.weight.copy_(torch.tensor([-1.0, 2.0]).reshape(2, 1, 1, 1))
        second.weight.copy_(torch.tensor([[3.0, -0.5]]))
        second.bias.zero_()
    # R = 1 * 3 + 2 * 0.5 = 4, once for each layer's weights.
    assert float(_flow(probe, torch.zeros(1, 1, 2, 2))["synflow"].detach()) == pytest.approx(log(8))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (3, 4, 7, 7)),
        (nn.Conv2d(4, 6, (1, 3), dilation=(1, 2), padding=(0, 2)), (3, 4, 5, 5)),
        (nn.Linear(5, 4), (3, 5)),
    ],
)
def test_gradients_of_samples_are_autograds(layer: nn.Module, shape: tuple[int, ...]) -> None:
    inner = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    output = layer(inner)
    outer = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    for seed in range(2):
        ours = weight_gradient(layer, inner, outer, seed=seed)
        draws = torch.Generator().manual_seed(seed)
        place = tuple(int(torch.randint(n, (1,), generator=draws)) for n in layer.weight.shape)
        for sample in range(3):
            (whole,) = torch.autograd.grad(
                layer(inner[sample : sample + 1]), layer.weight, outer[sample : sample + 1]
            )
            assert float(ours[sample]) == pytest.approx(float(whole[place]), abs=1e-5)


def test_fisher_information_of_a_linear_classifier_by_hand() -> None:
    """Of p = (3/4, 1/4) and logits that a weight moves by 1 and 0: p (1 - p) = 3/16."""
    shares = torch.tensor([[0.75, 0.25], [0.75, 0.25]])
    root = statistics.label_spread(shares, 16)
    assert (root.mT @ root)[0].tolist() == [[0.1875, -0.1875], [-0.1875, 0.1875]]
    jacobian = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)  # (classes, weights)
    spectrum = statistics.fisher_spectrum(root @ jacobian)
    # F = [[3, -6], [-6, 12]] / 16 has rank 1.
    assert spectrum.tolist() == pytest.approx([0, 15 / 16], abs=1e-12)


def test_random_sums_of_classes_stand_for_many_in_the_mean() -> None:
    shares = torch.rand(1, 40, generator=torch.Generator().manual_seed(0)).softmax(1)
    torch.manual_seed(0)
    roots = torch.stack([statistics.label_spread(shares, 8)[0] for _ in range(2000)])
    assert roots.shape[1:] == (8, 40)
    expected = statistics.label_spread(shares, 40)[0]
    mean = (roots.mT @ roots).mean(0)
    assert float((mean - expected.mT @ expected).abs().max()) < 0.1 * float(expected.max()) ** 2


def test_vkdnw_ranks_by_layers_and_then_by_evenness() -> None:
    found = UntrainedEvaluator(("vkdnw",), batch=8).scores(NET)["vkdnw"]
    assert 4 < found < 4 + log(9)  # three convolutions and a linear layer
    shallow = Architecture.parse("input 3x8x8; conv 64 k3 bn relu; gap; flatten; linear 4")
    assert UntrainedEvaluator(("vkdnw",), batch=8).scores(shallow)["vkdnw"] < 2 + log(9) < found
    two = Architecture.parse(NET.text.replace("linear 4", "linear 2"))
    few = UntrainedEvaluator(("vkdnw",), batch=2).scores(two)["vkdnw"]  # two samples, four layers
    assert 4 + 0.5 < few < 4 + log(9)


def test_a_probe_gives_what_its_module_gives() -> None:
    probe = Probe(NET, 3, CPU)
    images = torch.randn(4, 3, 8, 8)
    assert torch.equal(probe.run(images)[0][-1], probe.module(images))
    assert torch.equal(probe.run(images, set(probe.cuts))[0][-1], probe.module(images))


def test_scores_follow_from_the_seed() -> None:
    every = tuple(SCORES)
    first = UntrainedEvaluator(every, seed=1, batch=8).scores(NET)
    torch.manual_seed(99)
    assert UntrainedEvaluator(every, seed=1, batch=8).scores(NET) == first
    other = UntrainedEvaluator(every, seed=2, batch=8).scores(NET)
    of_attention = {"attention_confidence", "head_importance"}  # of which this network has none
    assert all(other[name] != first[name] for name in every if name not in of_attention)
    assert all(first[name] == 0 for name in of_attention)
    assert all(abs(value) < 1e9 for value in first.values())
    for name in every:  # company changes nothing
        assert UntrainedEvaluator((name,), seed=1, batch=8).scores(NET) == {name: first[name]}


def test_samples_are_compared_by_real_images_where_there_are_some() -> None:
    names = ("naswot", "jacob_cov", "trainability")
    images = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    noise = UntrainedEvaluator(names, batch=8)
    real = UntrainedEvaluator(names, batch=8, images=images)
    assert noise.cache_key(NET) != real.cache_key(NET)
    a, b = noise.scores(NET), real.scores(NET)
    assert a["trainability"] == b["trainability"]
    assert a["naswot"] != b["naswot"]
    assert a["jacob_cov"] != b["jacob_cov"]
    same = UntrainedEvaluator(("naswot",), batch=8, images=images[:1].expand(8, -1, -1, -1))
    assert same.scores(NET)["naswot"] < b["naswot"] - 10  # equal samples are told apart by nothing


def test_gradients_of_more_samples_than_pixels_are_no_reason_for_a_bad_score() -> None:
    """64 gradients of 64 pixels always depend on one another: an eigenvalue of 0 gives -1e5."""
    small = Architecture.parse(
        "input 1x8x8; conv 16 k3 bn relu; conv 16 k3 bn relu; gap; flatten; linear 4"
    )
    images = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    found = UntrainedEvaluator(("jacob_cov",), images=images).scores(small)
    assert -1e4 < found["jacob_cov"] < -32


def test_a_score_needs_no_torch_module_of_one_kind() -> None:
    """Grouped, depthwise and sliding-channel layers, a chain without branches, no normalisation."""
    net = Architecture.parse(
        "input 3x8x8; conv 16 k3 relu; conv 16 k3 g16 relu; sliding 32 cg2 relu; maxpool k2 s2; "
        "conv 16 bias; gap; flatten; linear 10"
    )
    found = UntrainedEvaluator(tuple(SCORES), batch=8).scores(net)
    assert all(abs(value) < 1e9 for value in found.values())


def test_dead_networks_and_unknown_scores_are_refused() -> None:
    dead = nas_bench_201.replay(
        from_string("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"), DataSpec((3, 32, 32), 10)
    ).architecture
    with pytest.raises(EvaluationError, match="Nothing of the input"):
        UntrainedEvaluator(("naswot",)).evaluate(dead)
    with pytest.raises(UnknownNameError):
        UntrainedEvaluator(("nonsense",))
