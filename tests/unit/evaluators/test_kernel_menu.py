"""The kernel-level optimiser, against brute force and against the channel-dependency matrices."""

from __future__ import annotations

from itertools import pairwise, product

import pytest

from evaluators.cost import analytic_cost
from evaluators.proxies.kernel_menu import choose_kernels, menu
from evaluators.proxies.organise import Budget
from evaluators.proxies.receptive_field import channel_dependencies, receptive_field
from kernels.errors import NasError
from search_spaces.architecture import Architecture
from tests.networks import chain, resnet18, vgg

SMALL = chain(
    (3, 8, 8),
    "conv 16 k3 bn relu",
    "conv 16 k3 bn relu",
    "conv 32 k3 s2 bn relu",
    "conv 32 k3 bn relu",
)


def test_menu_of_a_dense_convolution() -> None:
    names = [item.name for item in menu(SMALL, 2)]
    assert names == [
        "as it is",
        "DW+PW",
        "DW+GPW g2",
        *(f"DW+RPW g2 o{overlap}" for overlap in ("1/4", "1/3", "1/2", "3/4")),
    ]
    assert [item.name for item in menu(SMALL, 1)] == ["as it is"]  # it reads the image
    assert {item.groups for item in menu(SMALL, 4)} == {1, 2, 4}  # 8 channels at least


def test_no_activation_stands_inside_a_kernel() -> None:
    """A dense convolution is linear in its input; so is what stands for it, but for the norm."""
    own, *others = menu(SMALL, 2)
    for kernel in others:
        spatial, mixing = kernel.ops
        assert (spatial.act, spatial.norm) == (None, "bn")  # type: ignore[attr-defined]
        assert mixing.act == own.ops[0].act == "relu"  # type: ignore[attr-defined]


def test_menu_of_a_pointwise_convolution() -> None:
    net = chain((16, 8, 8), "conv 16 k3 g16", "conv 32", "conv 32 s2")
    assert [item.name for item in menu(net, 2)][:2] == ["as it is", "GPW g2"]
    assert len(menu(net, 1)) == len(menu(net, 3)) == 1  # depthwise already; has a stride


def _reads_all(network: Architecture) -> bool:
    """Tell whether two mixing layers in a row always reach all channels, by the matrices."""
    mixing = [
        number
        for number, node in enumerate(network.nodes)
        if node.facts.reach.weighted and node.facts.reach.channels > 1
    ]
    return all(
        channel_dependencies(network, network.nodes[first].inputs[0])[second].all()
        for first, second in pairwise(mixing)
    )


@pytest.mark.parametrize("share", [0.9, 0.3, 0.2, 0.16])
def test_what_is_found_is_the_best_there_is(share: float) -> None:
    budget = Budget(params=share * SMALL.params)
    kinds = [menu(SMALL, number) for number in (2, 3, 4)]
    scored = []
    for kernels in product(*kinds):
        ops = [op.text for kernel in kernels for op in kernel.ops]
        network = chain((3, 8, 8), "conv 16 k3 bn relu", *ops)
        cost = analytic_cost(network)
        if cost.params <= budget.params and _reads_all(network):
            swaps = sum(kernel.name != "as it is" for kernel in kernels)
            gain = -round(receptive_field(network).gain, 6)
            scored.append((gain, swaps, -cost.params, -cost.macs))
    found = choose_kernels(SMALL, budget)
    gain = receptive_field(found.architecture).gain
    best = min(scored)[0]
    assert -round(gain, 6) == best
    if gain == pytest.approx(receptive_field(SMALL).gain):  # nothing was lost: any may be kept
        swaps = sum(name != "as it is" for name in found.kernels.values())
        after = found.architecture
        assert (swaps, -after.params, -after.macs) == min(scored)[1:]
    assert receptive_field(SMALL).gain - gain == pytest.approx(found.lost)
    assert _reads_all(found.architecture)


@pytest.mark.parametrize(
    "network", [vgg(widths=(32, 64, 64, 128, 128)), resnet18(64)], ids=["vgg16", "resnet18"]
)
def test_the_classics_at_half_their_parameters(network: Architecture) -> None:
    found = choose_kernels(network, Budget(params=network.params / 2))
    assert 0.4 * network.params < found.architecture.params <= network.params / 2
    assert found.architecture.macs < network.macs
    assert found.architecture.output.shape == network.output.shape
    lost = receptive_field(network).gain - receptive_field(found.architecture).gain
    assert lost == pytest.approx(found.lost, abs=1e-9)


def test_of_equal_places_those_on_the_smallest_maps_are_swapped() -> None:
    network = vgg(widths=(32, 64, 64, 128, 128))
    found = choose_kernels(network, Budget(params=network.params / 2))
    swapped = [number for number, name in found.kernels.items() if name != "as it is"]
    # Of the five places of 128 to 128 channels, two have 4 x 4 pixels, three 2 x 2.
    assert [network.nodes[number].shape for number in swapped] == [(128, 4, 4), *[(128, 2, 2)] * 3]


def test_budgets_that_nothing_keeps() -> None:
    with pytest.raises(NasError, match="keeps the budget"):
        choose_kernels(SMALL, Budget(params=100))
    with pytest.raises(NasError, match="can be swapped"):
        choose_kernels(
            Architecture.parse("input 3x8x8; conv 8 k3; gap; flatten; linear 10"), Budget()
        )
